"""Cells of constrained distillation: what they span, what the judge refuses, and the arithmetic of the comparison."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from benchmarks.distillation_cells import FIXED, Cell, as_csv, choose, draw_cells, report_sections
from benchmarks.distillation_cells._cells import BATCHES, COUNTS, MODELS, OPTIMIZERS, TASKS, THRESHOLDS, product
from benchmarks.distillation_cells._contenders import BY_HAND, CONTENDERS, NAMES, TRAINER, label
from benchmarks.distillation_cells._figures import Row, make_row
from benchmarks.distillation_cells._judge import TOLERANCE, Judge, Look
from benchmarks.distillation_cells._problem import batch_values, batches, set_up_cell
from benchmarks.distillation_cells._run import Course, run_contender
from benchmarks.distillation_cells._summary import choose_best, compare, tally
from benchmarks.distillation_cells._thresholds import ReferenceSettings, log_odds_share, set_thresholds
from benchmarks.distillation_cells._trainer import is_true, make_trainer, run_trainer
from benchmarks.primal_dual import __main__ as primal_dual
from benchmarks.primal_dual._problems import Sample
from solvers.kkt import KKTResiduals

LINEAR = Cell("linear", "breast cancer", "SGD 0.1", 64, "near", 1)
FULL = replace(LINEAR, batch=None)
RARE = Cell("linear", "drift", "Adam 1e-2", 64, "near", 5)
PASSES = KKTResiduals(0.0, 0.0, 0.0, 0.0)


def numbers(x):
    return [part.detach().clone() for part in x]


# cells


def test_the_fixed_cells_span_every_value_and_every_pair_of_student_and_task():
    assert len(set(FIXED)) == 12
    for name, values in {
        "optimizer": OPTIMIZERS,
        "batch": BATCHES,
        "threshold": THRESHOLDS,
        "M": COUNTS,
    }.items():
        counts = [sum(getattr(cell, name) == value for cell in FIXED) for value in values]
        assert counts == [12 // len(values)] * len(values)
    assert {(cell.model, cell.task) for cell in FIXED} == set(itertools.product(MODELS, TASKS))
    # no two of the three halves go together
    assert {(cell.batch, cell.threshold, cell.M) for cell in FIXED} >= {(None, "near", 5), (64, "far", 1)}
    for a, b in itertools.combinations(("batch", "threshold", "M"), 2):
        assert len({(getattr(cell, a), getattr(cell, b)) for cell in FIXED}) == 4


def test_a_draw_is_a_function_of_its_seed_and_leaves_the_fixed_cells_out():
    assert len(set(product())) == 384
    for seed in range(5):
        cells = draw_cells(seed)
        assert cells == draw_cells(seed)
        assert len(set(cells)) == 12
        assert not set(cells) & set(FIXED)
    assert draw_cells(0) != draw_cells(1)


def test_cells_are_chosen_by_parts_of_their_names():
    assert choose(0) == [*FIXED, *draw_cells(0)]
    assert len({cell.name for cell in choose(0)}) == 24
    some = choose(0, ["MLP, digits", "SGD"])
    assert some
    assert all("MLP, digits" in cell.name or "SGD" in cell.name for cell in some)


# thresholds


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("M", COUNTS)
def test_thresholds_bind_and_can_be_met(task, M):
    reached = {}
    for threshold, share in (("near", 0.30), ("far", 0.75)):
        cell = Cell("linear", task, "Adam 1e-2", None, threshold, M)
        reached[threshold] = thresholds = set_thresholds(cell, ReferenceSettings(steps=300))
        for plain, asked, strong in zip(thresholds.plain_M, thresholds.threshold_M, thresholds.strong_M, strict=True):
            assert plain + TOLERANCE < asked < strong - TOLERANCE
        assert log_odds_share(thresholds) == pytest.approx([share] * M)
        assert len(thresholds.threshold_M) == M
    assert all(near < far for near, far in zip(*(reached[t].threshold_M for t in THRESHOLDS), strict=True))
    assert reached["near"].strong_M == reached["far"].strong_M


def test_thresholds_that_nobody_is_known_to_meet_are_refused():
    backwards = ReferenceSettings(steps=50, truth=0.0, protected=0.0)
    with pytest.raises(ValueError, match="the strong student has"):
        set_thresholds(Cell("linear", "label noise", "Adam 1e-2", None, "near", 1), backwards)


# the judge


@pytest.fixture(scope="module")
def kkt_point():
    """A student that minimises ``f + c g`` for c = 0.2, and the cell whose threshold is its own safety."""
    setup = set_up_cell(FULL, 0, [0.5], 40)
    x, c = setup.problem().start(), 0.2
    optimizer = torch.optim.LBFGS(x, max_iter=400, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def closure():
        f, g_M, _ = setup.problem().evaluate(x)
        optimizer.zero_grad()
        (f + c * g_M.sum()).backward()
        return f + c * g_M.sum()

    optimizer.step(closure)
    safety = 0.5 - float(setup.problem().evaluate(x)[1].detach())
    return set_up_cell(FULL, 0, [safety], 40), numbers(x), torch.tensor([c])


def test_the_judge_accepts_a_kkt_point(kkt_point):
    setup, x, lambda_M = kkt_point
    reading = Judge(setup).look(7, x, lambda_M)
    assert reading.solved
    assert reading.feasible
    assert reading.step == 7
    assert all(not part.requires_grad for part in x)


@pytest.mark.parametrize("factor", [0.5, 1.5, -1.0, math.nan])
def test_the_judge_refuses_wrong_multipliers(kkt_point, factor):
    setup, x, lambda_M = kkt_point
    assert not Judge(setup).look(1, x, factor * lambda_M, last=True).solved


def test_the_judge_refuses_an_infeasible_student(kkt_point):
    setup, x, lambda_M = kkt_point
    asked = setup.constraints[0].required
    above = set_up_cell(FULL, 0, [asked + 0.01], 40)
    reading = Judge(above).look(1, x, lambda_M, last=True)
    assert not reading.solved
    assert not reading.feasible
    assert reading.margin == pytest.approx(-0.01, abs=1e-5)
    assert Judge(set_up_cell(FULL, 0, [asked + 0.5 * TOLERANCE], 40)).look(1, x, lambda_M).feasible
    nothing = Judge(setup).look(1, [math.nan * part for part in x], lambda_M, last=True)
    assert not nothing.feasible
    assert not nothing.finite
    assert not nothing.solved


def test_gradients_are_worked_out_only_where_the_other_residuals_pass(kkt_point):
    setup, x, lambda_M = kkt_point
    judge = Judge(setup)
    assert math.isnan(judge.look(1, x, -lambda_M).residuals.stationarity)
    assert judge.look(2, x, lambda_M).residuals.stationarity <= TOLERANCE
    assert math.isnan(judge.look(3, x, lambda_M).residuals.stationarity)  # solved before
    assert judge.look(4, x, lambda_M, last=True).residuals.stationarity <= TOLERANCE


def test_verdicts_are_held_against_the_judge():
    good = Look(1, 0.1, (0.0,), PASSES)
    bad = Look(1, 0.1, (-0.1,), replace(PASSES, primal=0.1))
    blank = Look(1, math.nan, (math.nan,), replace(PASSES, primal=math.nan))
    truths = {"converged": (True, False, False), "infeasible": (False, False, False)}
    truths |= {"budget_spent": (False, True, True), "diverged": (False, False, True), "a new word": (None,) * 3}
    for word, expected in truths.items():
        assert tuple(is_true(word, look) for look in (good, bad, blank)) == expected


# contenders


def test_by_hand_is_its_formula_for_two_steps():
    eta, rho, rate = 0.1, 0.5, 0.1
    problem = set_up_cell(LINEAR, 3, [0.9], 40).problem()
    x, wanted = problem.start(), problem.start()
    walker = BY_HAND.build(problem, x, (eta, rho))
    lam = 0.0
    stream = problem.stream()
    for _ in range(2):
        walker.step()
        f, g_M, _ = next(stream).evaluate(wanted)
        g = float(g_M.detach())
        assert g > 0
        lam = max(0.0, lam + eta * g)
        slopes = torch.autograd.grad(f + max(0.0, lam + rho * g) * g_M[0], wanted)
        wanted = [(part - rate * slope).detach().requires_grad_() for part, slope in zip(wanted, slopes, strict=True)]
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(x, wanted, strict=True))
        assert walker.multipliers()[0].tolist() == pytest.approx([lam])


@pytest.mark.parametrize("who", CONTENDERS, ids=lambda who: who.name)
def test_everyone_sees_the_same_batches_from_the_same_start(who):
    problem, seen = set_up_cell(RARE, 1, [0.6] * 5, 40).problem(), []

    def recorded():
        for index, sample in zip(batches(512, 64, 1), problem.samples(), strict=False):
            yield Sample(lambda x, i=index, one=sample: seen.append(i.tolist()) or one.evaluate(x), sample.present_M)

    x = problem.start()
    assert all(torch.equal(a, b) for a, b in zip(x, problem.start(), strict=True))
    try:
        walker = who.build(replace(problem, samples=recorded), x, who.scales[-1])
    except ImportError:
        pytest.skip(f"{who.package} is not installed")
    for _ in range(10):
        walker.step()
    assert seen == [index.tolist() for index in itertools.islice(batches(512, 64, 1), 10)]
    assert walker.multipliers()[0].shape == (5,)
    assert all(bool(part.isfinite().all()) for part in x)


@pytest.mark.parametrize("cell", [RARE, replace(RARE, batch=None)], ids=lambda cell: cell.name)
def test_the_trainer_sees_them_too(cell):
    setup, seen = set_up_cell(cell, 2, [0.6] * 5, 40), []
    trainer = make_trainer(setup)
    size = cell.batch or 512

    def hook(module, inputs):
        if module.training and torch.is_grad_enabled() and len(inputs[0]) == size:
            seen.append(inputs[0].clone())

    trainer.student.register_forward_pre_hook(hook)
    start = numbers(trainer.student.parameters())
    assert all(torch.equal(a, b) for a, b in zip(start, setup.problem().start(), strict=True))
    trainer.fit(setup.task.train, epochs=2, trace_every=100)
    order = batches(512, 64, 2) if cell.batch else itertools.repeat(torch.arange(512))
    wanted = [setup.task.train.inputs[index] for index in itertools.islice(order, len(seen))]
    assert len(seen) >= (16 if cell.batch else 2)
    assert all(torch.equal(a, b) for a, b in zip(seen[:16], wanted[:16], strict=True))


def test_a_batch_without_a_group_says_nothing_of_it():
    setup = set_up_cell(RARE, 0, [0.6] * 5, 40)
    context = setup.task.train.batch().context
    index = (context != 4).nonzero()[:64, 0]
    rows = setup.rows.take(index)
    logits = torch.zeros(64, 2, requires_grad=True)
    present = rows.inside_NM.any(0)
    g_M = batch_values(rows, logits, present)
    assert present.tolist() == [True] * 4 + [False]
    assert g_M.tolist() == pytest.approx([0.1] * 4 + [0.0])
    (slope,) = torch.autograd.grad(g_M[4], logits)
    assert bool((slope == 0).all())


def test_batches_and_the_whole_agree():
    setup = set_up_cell(RARE, 0, [0.6] * 5, 40)
    problem = setup.problem()
    x = problem.start()
    _, g_M, _ = problem.evaluate(x)
    counts_M = setup.rows.inside_NM.sum(0)
    total_M = torch.zeros(5)
    for index, sample in itertools.islice(zip(batches(512, 64, 0), problem.samples(), strict=False), 8):
        part_M = setup.rows.take(index).inside_NM.sum(0)
        total_M += part_M * sample.evaluate(x)[1].detach()
    assert torch.allclose(total_M / counts_M, g_M.detach(), atol=1e-5)


def test_the_trainer_and_the_judge_read_the_same_numbers():
    setup = set_up_cell(replace(RARE, batch=None), 0, [0.6] * 5, 40)
    trainer = make_trainer(setup)
    points = []
    trainer.fit(setup.task.train, epochs=1, trace_every=1, on_trace=points.append)
    reading = Judge(setup).look(0, setup.problem().start(), torch.zeros(5), last=True)
    assert points[0].loss == pytest.approx(reading.loss, rel=1e-4)
    assert [r.measured - r.required for r in points[0].readings] == pytest.approx(reading.margin_M, abs=1e-5)
    assert points[0].residuals.stationarity == pytest.approx(reading.residuals.stationarity, rel=1e-3)


def test_a_run_is_looked_at_up_to_its_last_step():
    setup = set_up_cell(LINEAR, 0, [0.75], 40)
    for course in (run_contender(setup, BY_HAND, BY_HAND.scales[0]), run_trainer(setup)):
        assert sorted({look.step for look in course.looks}) == list(range(1, 41))
        assert math.isfinite(course.looks[-1].residuals.stationarity)
        row = make_row(setup, "who", "how", True, course)
        assert row.last_loss == course.looks[-1].loss
        assert row.last_violation == max(0.0, -min(course.looks[-1].margin_M))


# figures and report


def test_the_figures_of_a_run():
    setup = set_up_cell(LINEAR, 0, [0.75], 8)
    looks = [
        Look(step, loss, (margin, 0.5), replace(PASSES, stationarity=math.nan))
        for step, loss, margin in [(2, 0.1, -0.1), (4, 0.4, 0.0), (6, 0.3, -0.0009), (7, 0.2, -0.02), (8, 0.5, 0.04)]
    ]
    row = make_row(setup, "who", "how", True, Course(tuple(looks), 1.0))
    assert (row.feasible_25, row.feasible_50, row.feasible) == (math.inf, 0.4, 0.3)
    assert row.feasible_strict == 0.4
    assert (row.last_loss, row.last_violation) == (0.5, 0.0)
    assert (row.margin_mean, row.margin_sd) == pytest.approx((0.01, 0.03))
    assert (row.loss_mean, row.loss_sd) == pytest.approx((0.35, 0.15))
    assert row.steps_to_kkt == math.inf
    better = Look(8, 0.25, (0.0, 0.0), PASSES)
    assert make_row(setup, "who", "how", True, Course(tuple(looks), 1.0, better)).feasible == 0.25
    blank = make_row(setup, "who", "how", True, Course((*looks, replace(better, margin_M=(0.5, math.nan))), 1.0))
    assert math.isnan(blank.last_violation)
    assert math.isnan(blank.margin_sd)
    missed = replace(better, margin_M=(0.0, -0.01))
    assert make_row(setup, "who", "how", True, Course(tuple(looks), 1.0, missed)).feasible == 0.3


def rows_of(cell, name, losses, setting="1", documented=True, **more):
    numbers = {"seconds": 1.0, "last_loss": 0.1, "last_violation": 0.0, "margin_sd": 0.01, "loss_sd": 0.01, **more}
    return [Row(cell, name, setting, documented, seed, 100, feasible=v, **numbers) for seed, v in enumerate(losses)]


@pytest.fixture
def rows():
    """Three cells: ours 10 % worse than a grid's best, alone feasible, and one seed short."""
    peer, inf = "Cooper, nuPI", math.inf
    return [
        *rows_of("a", TRAINER, [0.10, 0.12], says="converged", said_truly=False),
        *rows_of("a", peer, [0.20, 0.20]),
        *rows_of("a", peer, [0.09, 0.11], "0.1", False),
        *rows_of("a", BY_HAND.name, [0.11, 0.11]),
        *rows_of("b", TRAINER, [0.10, 0.10], says="converged", said_truly=True),
        *rows_of("b", peer, [0.01, inf]),
        *rows_of("c", TRAINER, [0.10, inf], says="budget_spent", said_truly=True),
        *rows_of("c", peer, [0.05, 0.05]),
        *rows_of("c", "Cooper, augmented", [0.04, 0.06], "0.1", False),
    ]


def test_ratios_by_hand(rows):
    peers = ("Cooper, nuPI", "Cooper, augmented")
    ratios = compare(rows, TRAINER, peers)
    assert [ratio.value for ratio in ratios] == [pytest.approx(1.1), 0.0, math.inf]
    assert [ratio.other.setting for ratio in ratios[:2]] == ["0.1", "1"]
    ratios_tally = tally(ratios)
    assert (ratios_tally.cells, ratios_tally.close, ratios_tally.worst, ratios_tally.where) == (3, 1, math.inf, "c")
    assert ratios_tally.median == pytest.approx(1.1)
    assert compare(rows, TRAINER, peers, documented=True)[0].value == pytest.approx(0.55)
    strict = compare(
        [replace(row, feasible_strict=2.0 - row.seed) for row in rows], TRAINER, peers, False, "feasible_strict"
    )
    assert [ratio.losses for ratio in strict] == [(1.5, 1.5)] * 3
    alone = compare(rows, TRAINER, [BY_HAND.name])
    assert math.isnan(alone[1].value)
    assert tally(alone).cells == 1
    nobody = [*rows_of("d", TRAINER, [math.inf]), *rows_of("d", peers[0], [math.inf])]
    assert tally(compare(nobody, TRAINER, peers)).cells == 0


def test_a_contender_that_did_not_run_is_nobodys_best():
    gone = [Row("a", "Cooper, nuPI", "1", True, 0, 100, note="not installed: pip install cooper-optim")]
    assert choose_best(gone, ["Cooper, nuPI"]) is None
    text = "\n\n".join(report_sections([*gone, *rows_of("a", TRAINER, [0.1])]))
    assert "| Cooper, nuPI | not installed: pip install cooper-optim |" in text


def test_the_report_says_where_we_lose(rows):
    sections = report_sections(rows)
    text = "\n\n".join(sections)
    assert "| a | 1.100 | 0.11 | 0.1 | Cooper, nuPI | 0.1 |" in text
    assert "| ours, ConstrainedTrainer | best peer, best setting | 1 of 3 (33%) | 1.100 | others alone: c |" in text
    assert "| converged | 4 | 2 | 2 |" in text
    assert "Said, but not so:" in text
    for block in sections:
        widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1
    assert report_sections([]) == []
    assert as_csv(rows).count("\n") == len(rows) + 1


def test_a_part_that_no_cell_has_is_refused(capsys):
    with pytest.raises(SystemExit):
        primal_dual.main(["--families", "cells", "--only", "a forest"])
    assert "no cell of draw 0 has" in capsys.readouterr().err


def test_settings_in_words():
    assert [label(scale) for scale in (0.1, (0.01, 10.0))] == ["0.1", "eta 0.01, rho 10"]


def test_a_quick_run_from_end_to_end(capsys, tmp_path):
    threads = torch.get_num_threads()
    out = tmp_path / "cells.md"
    try:
        assert primal_dual.main(["--families", "cells", "--quick", "--jobs", "1", "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    text = out.read_text()
    assert text in capsys.readouterr().out
    assert "QUICK RUN" in text
    for name in NAMES:
        assert f"| {name} |" in text
    lines = out.with_suffix(".csv").read_text().splitlines()
    assert lines[0].startswith("cell,contender,setting")
    assert len(lines) == 1 + len(NAMES)
