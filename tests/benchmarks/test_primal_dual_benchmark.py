"""The benchmark's machinery: answers that are right are counted, wrong ones are not, peers run.  No test of speed."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks.primal_dual import __main__ as primal_dual
from benchmarks.primal_dual._cells import Cell, best_of, call, missing, walk
from benchmarks.primal_dual._judge import _jacobian, judge
from benchmarks.primal_dual._overhead import BY_HAND, PLAIN, TRAINER, Step, list_measure_courses, overhead
from benchmarks.primal_dual._peers import PEERS
from benchmarks.primal_dual._penalties_by_hand import BY_NAME
from benchmarks.primal_dual._problems import frontier, quadratics, table
from benchmarks.primal_dual._report import as_csv, counts, markdown, overhead_table, tell_measures
from benchmarks.primal_dual._solvers import SOLVERS, Answer, Solver
from benchmarks.primal_dual._steps import OURS, PENALTIES, Contender
from solvers.kkt import gradients
from tests.support import ROOT

TABLE = {problem.name: problem for problem in table()}
FRONTIER = {problem.name: problem for problem in frontier()}
SLSQP = next(who for who in SOLVERS if who.name == "scipy, SLSQP")
# x, lambda, mu by hand
ANSWERS = {
    "least squares, one equality": ([0.5, 0.5], [], [-1.0]),
    "circle, from its maximiser": ([-1.0, -1.0], [], [0.5]),
    "linear, x >= 1": ([1.0], [1.0], []),
    "concave, x <= 1/2": ([0.5], [3.0], []),
    "ZDT2, f1 <= 0.5": ([0.5] + [0.0] * 29, [1.0], []),
}


def point(x):
    return [torch.tensor(x, dtype=torch.float64, requires_grad=True)]


def vector(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_judge_accepts_the_answer_and_nothing_else(name):
    problem = (TABLE | FRONTIER)[name]
    x, lambda_, mu = ANSWERS[name]
    assert judge(problem, point(x), vector(lambda_), vector(mu)).solved
    shifted = [x[0] - 0.05, *x[1:]]
    assert not judge(problem, point(shifted), vector(lambda_), vector(mu)).solved
    wrong = [value + 0.1 for value in lambda_], [value - 0.1 for value in mu]
    assert not judge(problem, point(x), *map(vector, wrong)).solved
    assert not judge(problem, point([math.nan, *x[1:]]), vector(lambda_), vector(mu)).solved


def test_a_maximiser_without_residuals_is_not_solved():
    judgement = judge(TABLE["circle, from its maximiser"], point([1.0, 1.0]), vector([]), vector([-0.5]))
    assert judgement.residuals.holds(1e-12)
    assert not judgement.solved
    assert judgement.fault == "f is off by 133%"


def test_negative_multipliers_are_not_solved():
    """At x = 1 of ``min -x, x >= 1`` only lambda = -1 makes the gradient vanish."""
    problem = replace(TABLE["linear, x >= 1"], evaluate=lambda x: (-x[0][0], 1 - x[0], x[0].new_zeros(0)), best=None)
    judgement = judge(problem, point([1.0]), vector([-1.0]), vector([]))
    assert judgement.residuals.stationarity == 0
    assert not judgement.solved
    assert "dual" in judgement.fault or "complementarity" in judgement.fault


def test_gradients_of_many_rows_are_those_of_each():
    problem = quadratics([(7, 4)], seeds=[3])[0]
    x = point(list(range(7)))
    f, g_M, _ = problem.evaluate(x)
    assert torch.allclose(_jacobian(g_M, x), gradients(list(g_M), x), atol=1e-12)
    assert torch.allclose(_jacobian(f.reshape(1), x), gradients([f], x), atol=1e-12)


@pytest.mark.parametrize("name", [name for name in FRONTIER if "100" not in name])
def test_the_stated_fronts_are_those_that_an_independent_solver_finds(name):
    assert call(FRONTIER[name], SLSQP).solved


def test_quadratics_bind_and_their_answers_are_those_of_scipy():
    problem = quadratics([(10, 5)], seeds=[0])[0]
    cell = call(problem, SLSQP)
    assert cell.solved
    free = torch.zeros(5, dtype=torch.float64)
    answer = SLSQP.solve(problem)
    assert bool((answer.lambda_M > 0.01).any())
    assert not judge(problem, [answer.x_n.clone().requires_grad_()], free, torch.zeros(0)).solved


class Stands:
    """A contender that jumps to a point and stays there."""

    cost = 1

    def __init__(self, x, to, lambda_):
        self.x, self.to, self.lambda_ = x, to, lambda_

    def step(self):
        with torch.no_grad():
            self.x[0].fill_(self.to)

    def multipliers(self):
        return vector([self.lambda_]), vector([])


@pytest.mark.parametrize(("to", "lambda_", "solved"), [(1.0, 1.0, True), (1.01, 1.0, False), (1.0, 0.9, False)])
def test_a_contender_is_believed_where_it_stands_not_what_it_says(to, lambda_, solved):
    who = Contender("stands", lambda problem, x, scale: Stands(x, to, lambda_), "", "")
    cell = walk(replace(TABLE["linear, x >= 1"], steps=40), who, 1.0)
    assert (cell.solved, cell.note == "") == (solved, solved)
    assert cell.steps == (20 if solved else 40)


def test_a_solver_that_claims_convergence_is_judged_by_its_answer():
    def claims(problem):
        return Answer(vector([2.0]), vector([1.0]), vector([]), 1, 0.0, "converged")

    assert not call(TABLE["linear, x >= 1"], Solver("claims", claims, "")).solved


def test_an_infeasible_problem_is_solved_by_its_verdict_alone():
    def says(word):
        return Solver("says", lambda problem: Answer(vector([0.0]), vector([1.0, 1.0]), vector([]), 1, 0.0, word), "")

    assert call(TABLE["no point"], says("infeasible")).solved
    assert not call(TABLE["no point"], says("converged")).solved
    assert walk(TABLE["no point"], OURS[0], 1.0).note == "gives no verdicts"


@pytest.mark.parametrize("who", [*OURS, *PEERS, PENALTIES[0]], ids=lambda who: who.name)
def test_everyone_steps_towards_the_answer(who):
    problem = replace(TABLE["least norm, 5 rows"], steps=100)
    cell = walk(problem, who, who.scales[0])
    if cell.note.startswith("not installed"):
        pytest.skip(cell.note)
    assert math.isfinite(cell.objective)
    start = problem.start()
    assert cell.violation < float(problem.evaluate(start)[1].detach().max())


def test_peers_are_not_crippled():
    """What Cooper's own test suite solves, it solves here at its documented setting."""
    cell = walk(TABLE["least norm, 5 rows"], PEERS[0], 1.0)
    if cell.note.startswith("not installed"):
        pytest.skip(cell.note)
    assert cell.solved


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "cooper", None)
    cell = walk(TABLE["linear, x >= 1"], PEERS[0], 1.0)
    assert cell.note == "not installed: pip install cooper-optim"
    assert cell.note in counts([cell])
    assert missing("cooper-optim", ImportError("half of it")) == "does not import: half of it"


def test_the_best_of_a_grid_is_the_quickest_that_solved():
    def cell(scale, solved, steps, feasible=math.nan):
        return Cell("p", "table", "c", scale, scale == 1, solved, steps, 1.0, feasible=feasible)

    slow, quick, none = cell(1.0, True, 400), cell(0.1, True, 200), cell(10.0, False, 20)
    assert best_of([slow, none, quick]) is quick
    assert best_of([none, cell(1.0, False, 20, 0.5)]).feasible == 0.5
    assert "| c | 1 (1) |" in counts([slow, quick, none])
    assert "| c | 0 (1) |" in counts([cell(1.0, False, 9), quick])


def test_costs_are_shown_beside_the_plain_loop():
    text = overhead_table([Step("MLP", PLAIN, 0.002, 1.0), Step("MLP", "gone", math.nan, math.nan, "not installed")])
    assert "2.00 (1.00)" in text
    assert "| gone | not installed |" in text


def test_a_quick_run_from_end_to_end(capsys, tmp_path):
    threads = torch.get_num_threads()
    out = tmp_path / "primal_dual.md"
    try:
        assert primal_dual.main(["--quick", "--jobs", "1", "--out", str(out)]) == 0
    finally:
        torch.set_num_threads(threads)
    text = out.read_text()
    assert text in capsys.readouterr().out
    assert "QUICK RUN" in text
    for who in [*OURS, *PEERS, *SOLVERS, *PENALTIES]:
        assert f"| {who.name} |" in text
    assert "ours, ConstrainedTrainer" in text
    for block in text.split("\n\n"):
        widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1
    lines = out.with_suffix(".csv").read_text().splitlines()
    assert lines[0].startswith("problem,family,contender")
    assert len(lines) > 50


def test_what_constraints_of_each_measure_cost_a_step():
    courses = list_measure_courses()[::2]
    title, _, text = tell_measures(list(overhead(courses, 0.0, (PLAIN, BY_HAND, TRAINER))))
    assert title == "## What a measure costs a step"
    assert [line.split(" | ")[0] for line in text.splitlines()[2:]] == [f"| {course.name}" for course in courses]
    assert tell_measures([]) == []


def test_a_penalty_by_hand_is_the_librarys_surrogate():
    draw = torch.Generator().manual_seed(0)
    log_p_BV = torch.log_softmax(torch.randn(40, 10, generator=draw, dtype=torch.float64), -1)
    labels_B = torch.arange(40) % 10
    for name, (make, by_hand) in BY_NAME.items():
        wanted_B = make(3).surrogate_everywhere(log_p_BV, labels_B)
        torch.testing.assert_close(by_hand(log_p_BV, labels_B), wanted_B, msg=name)


def test_a_report_without_cells_has_its_head():
    text = markdown([], [], {"date": "a | b"})
    assert text.startswith("# Primal-dual")
    assert "a / b" in text
    assert as_csv([]).count("\n") == 1


@pytest.mark.slow
def test_processes_find_what_they_are_to_do(tmp_path):
    """A process that is spawned knows nothing of the main module: run as people run it, with two of them."""
    asked = ["--quick", "--families", "table", "--jobs", "2", "--out", str(tmp_path / "report.md")]
    command = [sys.executable, "-m", "benchmarks.primal_dual", *asked]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (tmp_path / "report.csv").read_text().count(OURS[0].name) >= 1


def test_a_report_is_not_written_over_a_folder(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        primal_dual.main(["--out", str(tmp_path)])
    assert end.value.code == 2
    assert "is a folder; wanted a file" in capsys.readouterr().err
