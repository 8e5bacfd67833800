"""The minimizer along a curve of problems, on random quadratics and on published ones: answers, multipliers, cost."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

from solvers import minimize
from tests.support.curves import ROOT, full, gauss, spread, square, t

# f1, f2, x0, bounds, f2 at f1 = e, its derivative there, values of e; Zitzler, Deb and Thiele 2000, Fonseca and Fleming
# 1995, Binh and Korn 1997, Schaffer 1985
FRONTS = {
    "ZDT1": (
        lambda x: x[0], lambda x: spread(x) * (1 - (x[0] / spread(x)).sqrt()), full(30, 0.5), (0.0, 1.0),
        lambda e: 1 - e**0.5, lambda e: -0.5 / e**0.5, (0.1, 0.3, 0.5),
    ),
    "ZDT2": (
        lambda x: x[0], lambda x: spread(x) * (1 - (x[0] / spread(x)) ** 2), full(30, 0.5), (0.0, 1.0),
        lambda e: 1 - e**2, lambda e: -2 * e, (0.25, 0.375, 0.5, 0.75),
    ),
    "Fonseca and Fleming": (
        lambda x: gauss(x, ROOT), lambda x: gauss(x, -ROOT), full(3, 0.0), (-4.0, 4.0),
        lambda e: 1 - np.exp(-((2 - np.sqrt(-np.log(1 - e))) ** 2)), None, (0.2, 0.35, 0.5, 0.8),
    ),
    "Binh and Korn": (
        lambda x: 4 * square(x), lambda x: square(x - 5), t(1.0, 1.0), (0.0, t(5.0, 3.0)),
        lambda e: 2 * (5 - (e / 8) ** 0.5) ** 2 if e <= 72 else 4 + (5 - ((e - 36) / 4) ** 0.5) ** 2, None,
        (20.0, 60.0, 100.0),
    ),
    "Schaffer": (
        square, lambda x: square(x - 2), t(5.0), None,
        lambda e: (2 - e**0.5) ** 2, lambda e: -(2 - e**0.5) / e**0.5, (0.5, 1.5, 3.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FRONTS)
def test_fronts_are_exact_in_value_and_derivative_and_neighbors_are_cheap(name):
    first, second, x0, bounds, exact, derivative, places = FRONTS[name]
    cold = warm = 0
    before = None
    for e in places:
        rows = {"inequality": lambda x, e=e: (first(x) - e).reshape(1), "bounds": bounds}
        s = minimize(second, x0, **rows)
        if before is None:
            answers = [s]
        else:
            again = minimize(second, before.x, multipliers=before.multipliers, penalty=before.penalty, **rows)
            answers, cold, warm = [s, again], cold + s.evaluations, warm + again.evaluations
        by_hand = derivative(e) if derivative else (exact(e * 1.0001) - exact(e * 0.9999)) / (0.0002 * e)
        for answer in answers:
            assert answer.status == "converged", answer.message
            assert answer.objective == pytest.approx(exact(e), abs=1e-7, rel=1e-7)
            assert float(answer.multipliers) == pytest.approx(-by_hand, rel=1e-5)
        before = s
    assert warm <= cold <= 10 * (len(places) - 1)  # a solve from scratch is cheap by now


def quadratic(n, m, e, seed, condition):
    draw = np.random.default_rng(seed)
    Q = np.linalg.qr(draw.standard_normal((n, n)))[0]
    P = (Q * np.logspace(0, -np.log10(condition), n)) @ Q.T
    G, A = draw.standard_normal((m, n)) / n**0.5, draw.standard_normal((e, n)) / n**0.5
    inside = draw.uniform(-0.5, 0.5, n)
    room = draw.uniform(0, 0.2, m) * (draw.random(m) < 0.7)  # some rows pass through the point
    return (P + P.T) / 2, draw.standard_normal(n), G, G @ inside + room, A, A @ inside


@pytest.mark.parametrize("shape", [(10, 5, 2, 0, 1e2), (10, 20, 0, 1, 1e2), (60, 30, 6, 2, 1e6), (300, 60, 20, 3, 1e2)])
@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_quadratics_with_rows_and_bounds_whatever_their_condition(shape, unit):
    P, q, G, b, A, c = quadratic(*shape)
    P_, q_, G_, b_, A_, c_ = (torch.tensor(part) for part in (P, q, G, b, A, c))
    s = minimize(
        lambda x: unit * (x @ (P_ @ x) / 2 + q_ @ x),
        torch.zeros(len(q), dtype=torch.float64),
        inequality=lambda x: G_ @ x - b_,
        equality=lambda x: A_ @ x - c_,
        bounds=(-1.0, 1.0),
    )
    assert s.status == "converged", s.message
    assert s.residuals.holds(1e-9)  # convex: no better proof exists
    assert s.hessians <= 3
    if len(q) > 100:
        return
    x = cp.Variable(len(q))
    rows = [G @ x <= b, A @ x == c, x >= -1, x <= 1]
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, cp.psd_wrap(P)) / 2 + q @ x), rows)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    assert s.x.numpy() == pytest.approx(x.value, abs=1e-6)
    assert s.multipliers.numpy() / unit == pytest.approx(rows[0].dual_value, abs=1e-6)


# Hock and Schittkowski, Test Examples for Nonlinear Programming Codes, 1981, by their numbers there
SYSTEM = lambda x: torch.stack([square(x) - 10, x[1] * x[2] - 5 * x[3] * x[4], x[0] ** 3 + x[1] ** 3 + 1])  # noqa: E731
PUBLISHED = {
    6: (lambda x: (1 - x[0]) ** 2, t(-1.2, 1.0), None, lambda x: 10 * (x[1] - x[0] ** 2), None, 0.0),
    10: (
        lambda x: x[0] - x[1], t(-10.0, 10.0), lambda x: 3 * x[0] ** 2 - 2 * x[0] * x[1] + x[1] ** 2 - 1,
        None, None, -1.0,
    ),
    11: (lambda x: (x[0] - 5) ** 2 + x[1] ** 2 - 25, t(4.9, 0.1), lambda x: x[0] ** 2 - x[1], None, None, -8.498464223),
    12: (
        lambda x: 0.5 * x[0] ** 2 + x[1] ** 2 - x[0] * x[1] - 7 * x[0] - 7 * x[1], t(0.0, 0.0),
        lambda x: 4 * x[0] ** 2 + x[1] ** 2 - 25, None, None, -30.0,
    ),
    14: (
        lambda x: (x[0] - 2) ** 2 + (x[1] - 1) ** 2, t(2.0, 2.0), lambda x: 0.25 * x[0] ** 2 + x[1] ** 2 - 1,
        lambda x: x[0] - 2 * x[1] + 1, None, 9 - 2.875 * 7**0.5,
    ),
    22: (
        lambda x: (x[0] - 2) ** 2 + (x[1] - 1) ** 2, t(2.0, 2.0),
        lambda x: torch.stack([x.sum() - 2, x[0] ** 2 - x[1]]), None, None, 1.0,
    ),
    26: (
        lambda x: (x[0] - x[1]) ** 2 + (x[1] - x[2]) ** 4, t(-2.6, 2.0, 2.0), None,
        lambda x: (1 + x[1] ** 2) * x[0] + x[2] ** 4 - 3, None, 0.0,
    ),
    29: (lambda x: -x.prod(), t(1.0, 1.0, 1.0), lambda x: square(x * t(1, 2**0.5, 2)) - 48, None, None, -16 * 2**0.5),
    35: (
        lambda x: 9 - x @ t(8, 6, 4) + square(x * t(2**0.5, 2**0.5, 1)) + 2 * x[0] * (x[1] + x[2]),
        full(3, 0.5), lambda x: x[0] + x[1] + 2 * x[2] - 3, None, (0.0, None), 1 / 9,
    ),
    38: (
        lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2 + 90 * (x[3] - x[2] ** 2) ** 2 + (1 - x[2]) ** 2
        + 10.1 * ((x[1] - 1) ** 2 + (x[3] - 1) ** 2) + 19.8 * (x[1] - 1) * (x[3] - 1),
        t(-3.0, -1.0, -3.0, -1.0), None, None, (-10.0, 10.0), 0.0,
    ),
    40: (
        lambda x: -x.prod(), full(4, 0.8), None,
        lambda x: torch.stack([x[0] ** 3 + x[1] ** 2 - 1, x[0] ** 2 * x[3] - x[2], x[3] ** 2 - x[1]]), None, -0.25,
    ),
    65: (
        lambda x: (x[0] - x[1]) ** 2 + (x[0] + x[1] - 10) ** 2 / 9 + (x[2] - 5) ** 2, t(-5.0, 5.0, 0.0),
        lambda x: square(x) - 48, None, (t(-4.5, -4.5, -5.0), t(4.5, 4.5, 5.0)), 0.9535288567,
    ),
    78: (lambda x: x.prod(), t(-2.0, 1.5, 2.0, -1.0, -1.0), None, SYSTEM, None, -2.91970041),
    106: (
        lambda x: x[0] + x[1] + x[2], t(5000.0, 5000.0, 5000.0, 200.0, 350.0, 150.0, 225.0, 425.0),
        lambda x: torch.stack(
            [
                0.0025 * (x[3] + x[5]) - 1,
                0.0025 * (x[4] + x[6] - x[3]) - 1,
                0.01 * (x[7] - x[4]) - 1,
                -x[0] * x[5] + 833.33252 * x[3] + 100 * x[0] - 83333.333,
                -x[1] * x[6] + 1250 * x[4] + x[1] * x[3] - 1250 * x[3],
                -x[2] * x[7] + 1250000 + x[2] * x[4] - 2500 * x[4],
            ]
        ),
        None, (t(100, 1000, 1000, 10, 10, 10, 10, 10), t(1e4, 1e4, 1e4, 1e3, 1e3, 1e3, 1e3, 1e3)), 7049.248,
    ),
}  # fmt: skip


@pytest.mark.parametrize("number", PUBLISHED)
def test_more_of_hock_and_schittkowski(number):
    objective, x0, g, h, bounds, least = PUBLISHED[number]
    s = minimize(objective, x0, inequality=g, equality=h, bounds=bounds)
    assert s.status == "converged", s.message
    assert s.objective == pytest.approx(least, rel=1e-6, abs=1e-8)
    assert s.residuals.holds(1e-5)
