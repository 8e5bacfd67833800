"""A slice of the conformance run, and proof that its judge says no to each kind of wrong answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.conformance import __main__ as conformance
from benchmarks.conformance._cases import KINDS, Chunk, Problem, Rules, plan
from benchmarks.conformance._judge import FAULTS, ask_again, judge
from benchmarks.conformance._scores import FAMILIES
from solvers import WeightPolytope

HALF = 2.0**-53  # half an ulp of one, and an ulp just below it
CLASSES = (3, 8, 140)  # few: each number of teachers up to 128 compiles kernels of its own


def test_a_slice_of_all_kinds_conforms(capsys, tmp_path):
    arguments = [
        "--rows",
        "20000",
        "--seed",
        "3",
        "--classes",
        *map(str, CLASSES),
        "--out",
        str(tmp_path / "report.md"),
    ]
    status = conformance.main(arguments)
    report = capsys.readouterr().out
    assert status == 0, report
    assert (tmp_path / "report.md").read_text() == report.removesuffix("\n")
    assert all(name in report for name in KINDS)
    assert "**20,000 rows. No row is wrong.**" in report


# --- the judge


def posed(
    polytope: WeightPolytope, w: list[list[float]], kind: str = "chain", **rules: object
) -> tuple[Problem, torch.Tensor]:
    """A problem whose answer is w, which conforms."""
    w_BK = torch.tensor(w, dtype=torch.float64)
    problem = Problem(kind, "euclidean", Rules(polytope, **rules), w_BK.clone(), np.arange(len(w)))
    assert not judge(problem, w_BK, w_BK).faulty.any()
    return problem, w_BK


CHAIN = WeightPolytope(3, 0.125, 0.625, [(0, 1), (1, 2)])
CHAIN_ROWS = [[0.5, 0.25, 0.25], [0.625, 0.25, 0.125]]


def found_in(problem: Problem, w_BK: torch.Tensor, again_BK: torch.Tensor | None = None) -> dict[str, list[bool]]:
    faults = judge(problem, w_BK, w_BK if again_BK is None else again_BK).faults
    assert tuple(faults) == FAULTS
    return {name: rows_B.tolist() for name, rows_B in faults.items() if rows_B.any()}


@pytest.mark.parametrize("rank_K", [None, np.array([2.0, 1.0, 0.0])])
@pytest.mark.parametrize(
    ("place", "towards", "fault"),
    [((1, 2), 0.0, "bound"), ((1, 0), 1.0, "bound"), ((0, 2), 1.0, "ordering"), ((0, 1), 0.0, "ordering")],
)
def test_one_ulp_is_seen(place, towards, fault, rank_K):
    problem, w_BK = posed(CHAIN, CHAIN_ROWS, rank=rank_K)
    w_BK[place] = torch.nextafter(w_BK[place], torch.tensor(towards).double())
    assert found_in(problem, w_BK) == {fault: [row == place[0] for row in range(2)]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_short_types_are_held_to_their_own_bounds(dtype):
    """0.6 is none of their numbers; the largest of them below it conforms, the next does not."""
    problem, _ = posed(WeightPolytope(2, 0.0, 0.6), [[0.6, 0.4]], kind="no order")
    fits = torch.tensor([[0.6, 0.4]], dtype=dtype)
    fits = torch.where(fits.double() > 0.6, torch.nextafter(fits, torch.zeros_like(fits)), fits)
    problem = replace(problem, v=fits)
    assert found_in(problem, fits) == {}
    beyond = torch.cat([torch.nextafter(fits[:, :1], torch.ones(1, 1, dtype=dtype)), fits[:, 1:]], dim=1)
    assert found_in(problem, beyond) == {"bound": [True]}


def test_bounds_and_orders_of_rows_are_those_of_the_row():
    low_BK, high_BK = np.array([[0.5, 0.0], [0.0, 0.5]]), np.ones((2, 2))
    problem, w_BK = posed(WeightPolytope(2), [[0.5, 0.5], [0.25, 0.75]], lower=low_BK, upper=high_BK)
    assert found_in(problem, w_BK.flip(0)) == {"bound": [True, False]}
    problem, w_BK = posed(WeightPolytope(2), [[0.5, 0.5], [0.25, 0.75]], rank=np.array([[0.0, 0.0], [1.0, 2.0]]))
    assert found_in(problem, w_BK.flip(1)) == {"ordering": [False, True]}


def test_only_critical_rows_are_ordered():
    problem, w_BK = posed(CHAIN, CHAIN_ROWS, critical=np.array([True, False]))
    assert found_in(problem, w_BK.flip(1)) == {"ordering": [True, False]}


def test_a_margin_may_be_missed_by_two_ulp():
    problem, w_BK = posed(WeightPolytope(2, orderings=[(0, 1)], margin=0.25), [[0.625, 0.375]], kind="margin")
    ulp = torch.tensor([[2 * HALF, 0.0]], dtype=torch.float64)
    assert found_in(problem, w_BK - 2 * ulp) == {}
    assert found_in(problem, w_BK - 3 * ulp) == {"ordering": [True], "sum": [True]}


def test_a_sum_may_miss_one_by_k_ulp():
    problem, w_BK = posed(CHAIN, CHAIN_ROWS)
    ulp = torch.tensor([[2 * HALF, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert found_in(problem, w_BK - 3 * ulp) == {}
    assert found_in(problem, w_BK - 4 * ulp) == {"sum": [True, False]}


def test_a_missed_linear_row_is_seen():
    polytope = WeightPolytope(2, linear=([[2.0, 0.0]], [1.0], [[0.0, 1.0]], [0.5]))
    problem, w_BK = posed(polytope, [[0.5, 0.5]], kind="linear rows")
    for shift in (1e-7, -1e-7):
        moved_BK = w_BK + torch.tensor([[shift, -shift]], dtype=torch.float64)
        assert found_in(problem, moved_BK) == {"linear row": [True]}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_seen(bad):
    problem, w_BK = posed(CHAIN, CHAIN_ROWS)
    w_BK[1, 1] = bad
    found = found_in(problem, w_BK)
    assert {name: rows for name, rows in found.items() if name != "moved"} == {
        name: [False, True] for name in ("value", "bound", "ordering", "sum")
    }
    outcome = conformance.Tally()
    chunk = Chunk("chain", "euclidean", torch.float64, 3, 2, (0, 0))
    for answer_BK in (w_BK, torch.tensor(CHAIN_ROWS, dtype=torch.float64)):
        outcome.add(chunk, judge(problem, answer_BK, answer_BK))
    assert not outcome.off < 1e300  # a good chunk afterwards does not cover it


@pytest.mark.parametrize(
    ("kind", "metric", "ulps", "wrong"),
    [("chain", "euclidean", 0.5, True), ("chain", "kl", 0.5, False), ("partial order", "euclidean", 0.5, False)]
    + [(kind, metric, 4.0, True) for kind in ("chain", "partial order") for metric in ("euclidean", "kl")],
)
def test_an_answer_that_moves_too_far_is_seen(kind, metric, ulps, wrong):
    """Up and down: the sum stays, so it excuses nothing.  One ulp is granted to rounding, where there is any."""
    problem, w_BK = posed(CHAIN, CHAIN_ROWS, kind=kind)
    again_BK = w_BK + 2 * ulps * HALF * torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    found = found_in(replace(problem, metric=metric), w_BK, again_BK)
    assert found == ({"moved": [True, False]} if wrong else {})


def test_a_sum_that_is_set_right_may_move_weights_as_far():
    problem, w_BK = posed(CHAIN, CHAIN_ROWS, kind="partial order")
    off = torch.tensor([[3 * 2 * HALF, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert found_in(problem, w_BK + off, w_BK) == {}


def test_a_twin_with_other_bits_is_seen():
    problem, w_BK = posed(CHAIN, [CHAIN_ROWS[0], CHAIN_ROWS[0]])
    problem = replace(problem, first_B=np.array([0, 0]))
    w_BK[1, 0] -= HALF
    assert found_in(problem, w_BK) == {"twin": [False, True]}


# --- the run


def test_a_wrong_answer_ends_in_status_one_and_a_program_that_replays_it(monkeypatch, capsys):
    right = Rules.project

    def wrong(rules, v_BK, metric):
        w_BK = right(rules, v_BK, metric).clone()
        w_BK[-1, 0] = torch.nextafter(w_BK[-1, 0], torch.tensor(2.0).double()) + 1
        return w_BK

    monkeypatch.setattr(Rules, "project", wrong)
    assert conformance.main(["--rows", "300", "--classes", "4", "--kinds", "tiers", "critical mask"]) == 1
    report = capsys.readouterr().out
    assert "FAULTS" in report
    monkeypatch.setattr(Rules, "project", right)
    program = report.split("```")[1]
    names: dict[str, object] = {}
    exec(program, names)
    assert isinstance(names["w"], torch.Tensor)
    assert names["polytope"].check(names["w"]).holds()  # replayed without the wrong answer


def test_the_program_gives_rows_what_they_bring():
    chunks = list(plan(600, 5, ["own tiers", "bounds of rows", "critical mask"], [3]))
    for chunk in chunks:
        problem = chunk.draw()
        w_BK = problem.rules.project(problem.v, problem.metric)
        found = judge(problem, w_BK, ask_again(problem, w_BK))
        found.faults["sum"][-1] = True
        names: dict[str, object] = {}
        exec(conformance.replay(chunk, problem, found, w_BK, w_BK), names)
        assert torch.equal(names["w"], w_BK[-1])


def test_rows_that_raise_an_error_count_as_wrong_and_no_others(monkeypatch):
    right = Rules.project
    chunk = max(plan(4_000, 0, ["chain"], [3]), key=lambda chunk: chunk.rows)
    v_BK = chunk.draw().v
    doomed_K = v_BK[v_BK.abs().amax(dim=-1).argmax()]

    def failing(rules, v_BK, metric):
        if (v_BK == doomed_K).all(dim=-1).any():
            raise ArithmeticError("no")
        return right(rules, v_BK, metric)

    monkeypatch.setattr(Rules, "project", failing)
    outcome = conformance.run(iter([chunk]))
    assert 1 <= outcome.tallies["chain"].faults["value"] < 9  # and the rows that repeat it
    assert outcome.first.endswith("# raised ArithmeticError: no")


# --- the problems


def test_a_plan_holds_all_rows_once_and_draws_the_same_again():
    chunks = list(plan(5_000, 2, list(KINDS), CLASSES))
    assert sum(chunk.rows for chunk in chunks) == 5_000
    assert {chunk.kind for chunk in chunks} == set(KINDS)
    assert len({chunk.seed for chunk in chunks}) == len(chunks)
    first, second = chunks[7].draw(), chunks[7].draw()
    assert first.rules.polytope == second.rules.polytope
    assert torch.equal(first.v, second.v)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("metric", ["euclidean", "kl"])
def test_scores_hold_what_they_promise(metric, dtype):
    problem = Chunk("own tiers", metric, dtype, 4, 4_000, (9, 0)).draw()
    v_BK, rules = problem.v, problem.rules
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert v_BK.dtype == dtype
    assert v_BK.isfinite().all()
    assert (v_BK.abs() == smallest).any()  # a denormal
    assert (v_BK.abs() > 1e4).any()
    repeated_B = problem.first_B != np.arange(4_000)
    assert repeated_B.sum() >= 4_000 // 8
    assert torch.equal(v_BK, v_BK[problem.first_B])
    assert (rules.rank == rules.rank[problem.first_B]).all()
    if metric == "kl":
        assert (v_BK > 0).all()
    else:
        assert ((v_BK == 0) & v_BK.signbit()).any()


def test_some_rows_of_a_chain_conform_before_they_are_projected():
    problem = Chunk("chain", "euclidean", torch.float64, 6, 4_000, (0, 1)).draw()
    as_they_are = judge(problem, problem.v, problem.v)
    assert 4_000 / len(FAMILIES) * 0.5 <= (~as_they_are.faulty).sum() < 2_000
