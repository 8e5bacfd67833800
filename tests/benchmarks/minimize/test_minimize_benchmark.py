"""The minimization benchmark: its judge believes no solver, its problems are many, its report counts what is wrong."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.minimize.__main__ import PROBLEMS, find_dear, find_faults, run_one, write_report
from benchmarks.minimize._judge import judge, measure


def test_the_set_is_as_large_as_it_says():
    assert len(PROBLEMS) >= 60
    assert sum(problem.bounds_only for problem in PROBLEMS.values()) >= 25


SOLUTIONS = {
    "HS6": [1.0, 1.0],
    "HS28": [0.5, -0.5, 0.5],
    "HS35": [4 / 3, 7 / 9, 4 / 9],
    "HS45": [1.0, 2.0, 3.0, 4.0, 5.0],
    "Rosenbrock": [1.0, 1.0],
}


@pytest.mark.parametrize("name", SOLUTIONS)
def test_the_judge_accepts_minima_and_refuses_what_is_near(name):
    problem, x = PROBLEMS[name], torch.tensor(SOLUTIONS[name], dtype=torch.float64)
    assert judge(problem, x, "converged").verdict == "right"
    assert judge(problem, x, "failed").verdict == "alarm"
    assert judge(problem, x, "infeasible").verdict == "wrong"
    assert judge(problem, x, "unbounded").verdict == "wrong"
    assert judge(problem, x + 1e-2, "converged").verdict == "wrong"
    assert judge(problem, problem.x0, "converged").verdict == "wrong"
    assert judge(problem, problem.x0, "failed").verdict == "failed"


def test_the_judge_measures_violations_and_gradients_itself():
    problem = PROBLEMS["HS35"]  # at 0 no row is violated, nothing is stationary
    violation, stationarity, _ = measure(problem, torch.zeros(3, dtype=torch.float64))
    assert violation == 0
    assert stationarity > 0.5
    violation, _, objective = measure(problem, torch.full((3,), 2.0, dtype=torch.float64))
    assert violation == pytest.approx(5 / 2)  # 8 - 3 by the largest entry of the row's gradient
    assert objective == pytest.approx(float(problem.objective(torch.full((3,), 2.0))))


def test_lower_than_the_minimum_by_leaving_the_rows_is_refused():
    problem = PROBLEMS["HS35"]
    below = judge(problem, torch.tensor([1.4, 0.8, 0.6], dtype=torch.float64), "converged")
    assert below.objective < problem.least
    assert below.verdict == "wrong"


def test_numbers_that_are_not_finite_are_refused():
    assert judge(PROBLEMS["HS6"], torch.tensor([float("nan"), 1.0]), "converged").verdict == "wrong"
    with pytest.raises(ValueError, match="is no ending"):
        judge(PROBLEMS["HS6"], torch.ones(2), "great")


@pytest.mark.parametrize("kind", ["twice", "once"])
def test_solvers_are_run_and_judged(kind):
    rows = [run_one(name, kind, "ours") for name in ("HS6", "HS35", "variables of different size")]
    assert [row.verdict for row in rows] == ["right"] * 3
    assert "| HS35 |" in write_report(rows, ["ours"], [kind])
    assert find_faults(rows) == []


def test_faults_are_counted():
    good = run_one("HS6", "twice", "ours")
    wrong = dataclasses.replace(good, verdict="wrong", solved=False)
    peer = dataclasses.replace(good, solver="Ipopt", evaluations=1)
    assert any("wrongly called" in fault for fault in find_faults([wrong]))
    assert any("1 solved" in fault or "0 solved, Ipopt 1" in fault for fault in find_faults([wrong, peer]))
    assert any("are not called so" in fault for fault in find_faults([dataclasses.replace(good, verdict="alarm")]))
    dear = dataclasses.replace(good, evaluations=100)
    assert len(find_dear([dear, peer])) == 1
    assert any("times Ipopt's evaluations" in fault for fault in find_faults([dear, peer]))
