"""Constrained minimization on problems whose answers are known: points, multipliers, residuals and verdicts."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import minimize
from solvers.errors import InvalidInput
from tests.support.curves import square, t

KNOWN = {
    # objective, x0, inequality, equality, bounds; x, lambda, mu
    "on a line": (square, t(0.0, 0.0), None, lambda x: x.sum() - 1, None, [0.5, 0.5], [], [-1.0]),
    "on a circle, from its maximiser": (
        lambda x: x.sum(), t(1.0, 1.0), None, lambda x: square(x) - 2, None, [-1.0, -1.0], [], [0.5],
    ),
    "linear above one": (lambda x: x.sum(), t(0.0), lambda x: 1 - x, None, None, [1.0], [1.0], []),
    "concave up to e": (
        lambda x: -((x + 1) ** 2).sum(), t(0.5), lambda x: x - 0.3, None, (0.0, 1.0), [0.3], [2.6], [],
    ),
    "no constraint": (lambda x: square(x - 3), t(0.0), None, None, None, [3.0], [], []),
    "a bound that binds": (lambda x: square(x - 3), t(0.0), None, None, (None, t(2.0)), [2.0], [], []),
    "a slack row": (square, t(1.0), lambda x: x - 5, None, None, [0.0], [0.0], []),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_known_answers_whatever_the_units(name, unit):
    objective, x0, g, h, bounds, x, lam, mu = KNOWN[name]
    rows = [None if row is None else (lambda z, row=row: unit * row(z)) for row in (g, h)]
    s = minimize(objective, x0, inequality=rows[0], equality=rows[1], bounds=bounds)
    assert s.status == "converged", s.message
    assert s.x.tolist() == pytest.approx(x, abs=1e-6)
    assert (unit * s.multipliers).tolist() == pytest.approx(lam, abs=1e-6)
    assert (unit * s.equality_multipliers).tolist() == pytest.approx(mu, abs=1e-6)
    assert s.residuals.holds(1e-4)
    assert s.objective == pytest.approx(float(objective(s.x)))


def test_units_change_no_step():
    def run(loss, row):
        return minimize(lambda x: loss * square(x - 1), t(3.0, 0.0), inequality=lambda x: row * (x.sum() - 1))

    plain = run(1.0, 1.0)
    for loss, row in ((1000.0, 1.0), (1.0, 1000.0), (1e-3, 1e3)):
        other = run(loss, row)
        assert abs(other.evaluations - plain.evaluations) <= 0.2 * plain.evaluations
        assert other.x.tolist() == pytest.approx(plain.x.tolist(), abs=1e-7)
        assert float(other.multipliers) == pytest.approx(float(plain.multipliers) * loss / row, rel=1e-6)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_quadratics_are_cvxpys_primal_and_dual(seed):
    random = np.random.default_rng(seed)
    left, right = np.linalg.qr(random.standard_normal((5, 5)))[0], np.linalg.qr(random.standard_normal((10, 5)))[0]
    A = left @ np.diag(random.uniform(1.5, 2.5, 5)) @ right.T
    b = random.standard_normal(5)
    b /= np.linalg.norm(b)
    s = minimize(
        square, torch.zeros(10, dtype=torch.float64), inequality=lambda x: torch.tensor(A) @ x - torch.tensor(b)
    )
    x = cp.Variable(10)
    rows = A @ x <= b
    cp.Problem(cp.Minimize(cp.sum_squares(x)), [rows]).solve(solver=cp.CLARABEL)
    assert s.status == "converged", s.message
    assert s.x.numpy() == pytest.approx(x.value, abs=1e-5)
    assert s.multipliers.numpy() == pytest.approx(rows.dual_value, abs=1e-5)


def test_rows_that_conflict_are_named_with_a_proof():
    s = minimize(square, t(0.3), inequality=lambda x: torch.cat([1 - x, x + 1]))
    assert s.status == "infeasible"
    assert s.farkas.tolist() == pytest.approx([0.5, 0.5])
    assert not s.residuals.holds(1e-3)
    assert "linear program confirms it" in s.message


def test_rows_that_bounds_forbid_are_infeasible():
    s = minimize(square, t(0.0), inequality=lambda x: 2 - x, bounds=(-1.0, 1.0))
    assert s.status == "infeasible"
    assert s.x.tolist() == [1.0]


def test_where_no_multiplier_exists_it_is_not_called_infeasible():
    s = minimize(lambda x: x.sum(), t(1.0), inequality=lambda x: x**2)
    assert s.status == "no_multiplier"
    assert s.x.tolist() == pytest.approx([0.0], abs=1e-4)


def test_an_objective_that_falls_without_end_is_unbounded():
    s = minimize(lambda x: -x.sum(), t(0.0))
    assert s.status == "unbounded"
    assert "falls without end" in s.message


def test_repeated_rows_do_no_harm():
    s = minimize(lambda x: (x**4).sum(), t(1.0, 2.0), equality=lambda x: torch.stack([x.sum() - 1, 2 * x.sum() - 2]))
    assert s.status == "converged"
    assert s.x.tolist() == pytest.approx([0.5, 0.5], abs=1e-5)


def test_too_few_steps_say_what_is_missing():
    s = minimize(lambda x: x.sum(), t(1.0), inequality=lambda x: x**2, steps=1)
    assert s.status == "budget_spent"
    assert "Ended after 1 outer steps with stationarity" in s.message
    assert len(s.history) == 1


def test_the_answer_has_the_shape_and_dtype_of_the_start():
    seen = []
    s = minimize(square, torch.ones(2, 3), equality=lambda x: x.sum() - 6, on_step=seen.append)
    assert s.x.shape == (2, 3)
    assert s.x.dtype == torch.float32
    assert len(seen) == len(s.history)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minimize(square, [1.0]), "`x0` is a list; wanted a tensor"),
        (lambda: minimize(square, torch.tensor([1])), "`x0` has dtype torch.int64"),
        (lambda: minimize(lambda x: x, t(1.0, 2.0)), r"The objective gave \(2,\); wanted a tensor with one number"),
        (lambda: minimize(lambda x: 1.0, t(1.0)), "The objective gave float"),
        (lambda: minimize(lambda x: x.log().sum(), t(-1.0)), "At x0 the objective is nan"),
        (lambda: minimize(square, t(1.0), inequality=lambda x: x.reshape(1, 1)), r"`inequality` gave \(1, 1\)"),
        (lambda: minimize(square, t(1.0), bounds=(2.0, 1.0)), "Bounds of variable 0 are 2 and 1"),
        (lambda: minimize(square, t(1.0), bounds=(t(1.0, 2.0), None)), r"A bound has shape \(2,\), x0 \(1,\)"),
        (lambda: minimize(square, t(1.0), tolerance=0.0), "`tolerance` is 0.0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()


# Hock and Schittkowski, Test Examples for Nonlinear Programming Codes, 1981, by their numbers there
HOCK_SCHITTKOWSKI = {
    7: (
        lambda x: torch.log(1 + x[0] ** 2) - x[1],
        t(2.0, 2.0),
        None,
        lambda x: (1 + x[0] ** 2) ** 2 + x[1] ** 2 - 4,
        None,
    ),
    43: (
        lambda x: x[0] ** 2 + x[1] ** 2 + 2 * x[2] ** 2 + x[3] ** 2 - 5 * x[0] - 5 * x[1] - 21 * x[2] + 7 * x[3],
        torch.zeros(4, dtype=torch.float64),
        lambda x: torch.stack(
            [
                x[0] ** 2 + x[1] ** 2 + x[2] ** 2 + x[3] ** 2 + x[0] - x[1] + x[2] - x[3] - 8,
                x[0] ** 2 + 2 * x[1] ** 2 + x[2] ** 2 + 2 * x[3] ** 2 - x[0] - x[3] - 10,
                2 * x[0] ** 2 + x[1] ** 2 + x[2] ** 2 + 2 * x[0] - x[1] - x[3] - 5,
            ]
        ),
        None,
        None,
    ),
    71: (
        lambda x: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2],
        t(1.0, 5.0, 5.0, 1.0),
        lambda x: 25 - x.prod(),
        lambda x: square(x) - 40,
        (1.0, 5.0),
    ),
}  # fmt: skip
LEAST = {7: -(3**0.5), 43: -44.0, 71: 17.0140173}


@pytest.mark.parametrize("number", HOCK_SCHITTKOWSKI)
def test_hock_and_schittkowski(number):
    objective, x0, g, h, bounds = HOCK_SCHITTKOWSKI[number]
    s = minimize(objective, x0, inequality=g, equality=h, bounds=bounds)
    assert s.status == "converged", s.message
    assert s.objective == pytest.approx(LEAST[number], rel=1e-6)
    assert s.residuals.holds(1e-5)


def test_a_start_where_the_gradient_vanishes_is_left():
    """Problem: x^2 - y^2 + y^4/4 from (1, 0), whose way down leads to a saddle first."""
    s = minimize(lambda x: x[0] ** 2 - x[1] ** 2 + 0.25 * x[1] ** 4, t(1.0, 0.0))
    assert s.status == "converged"
    assert s.objective == pytest.approx(-1.0)
