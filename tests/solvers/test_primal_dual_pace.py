"""How penalty and multipliers of a scale-free rule follow what a row does: growth at rest, and no windup on the way."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

from solvers.primal_dual import AugmentedLagrangian, PrimalDual


def vec(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_rho_begins_with_a_pull_like_the_objectives_and_grows_while_a_violation_rests():
    """One unit is 1e4, a pull as strong as that of f = x is rho = 10; x is held, so the violation rests."""
    x = vec(0.0).requires_grad_()
    engine = PrimalDual(1)
    seen = {}
    for step in range(1, 257):
        engine.step(x.sum(), 10 - x / 100)
        seen[step] = float(engine.rho)
    assert seen[1] == seen[15] == pytest.approx(10)
    assert (seen[16], seen[31]) == pytest.approx((100, 100))
    assert (seen[32], seen[64], seen[128], seen[256]) == pytest.approx((1e3, 1e4, 3e4, 3e4))  # up to three units


def test_rho_stays_where_a_violation_halves_or_where_it_weighs_nothing():
    x = vec(0.0).requires_grad_()
    falls, late = PrimalDual(1), PrimalDual(1)
    late.multipliers = vec(1e9)
    for step in range(1, 257):
        falls.step(x.sum(), 10 / step - x / 100)
        late.step(x.sum(), 10 - x / 100)
    assert float(falls.rho) == float(late.rho) == pytest.approx(10)


def test_rho_does_not_grow_while_a_row_moves_as_fast_as_ever():
    """A violation that falls by .01 a step from 10 has not halved at any look before step 1,024, and needs no push."""
    x = vec(0.0).requires_grad_()
    engine = PrimalDual(1)
    for step in range(1, 600):
        engine.step(x.sum(), 10 - step / 100 - x / 100)
    assert float(engine.rho) == pytest.approx(10, rel=0.01)


def test_multipliers_follow_at_the_pace_of_their_row():
    """By half the largest share that a step has changed, and at step k at least by 1 / 16 k, of rho e."""
    engine = PrimalDual(1)
    moved = []
    for step, value in enumerate([10.0, 9.9, 9.8, 9.8], start=1):
        before = float(engine.multipliers)
        x = vec(0.0).requires_grad_()
        engine.step(x.sum(), value - x / 10)
        moved.append((float(engine.multipliers) - before) / (float(engine.rho) * value) * step)
    assert moved == pytest.approx([1 / 20, 1 / 16, 1 / 16, 1 / 16])  # never more than a twentieth
    engine.load_state_dict(engine.state_dict() | {"taken": torch.tensor(999)})
    before = float(engine.multipliers)
    engine.step(x.sum(), 9.8 - x / 10)
    assert (float(engine.multipliers) - before) / (float(engine.rho) * 9.8) == pytest.approx(0.5 * 0.1 / 9.9)


def test_multipliers_do_not_wind_up_on_a_long_way():
    """Adam at .01 needs a thousand steps to these minima; the multipliers wait, and do not have to come back."""
    random = np.random.default_rng([0, 10, 5])
    root = random.standard_normal((10, 10))
    P, q = root @ root.T / 10 + 0.1 * np.eye(10), random.standard_normal(10)
    G = random.standard_normal((5, 10)) / 10**0.5
    d = G @ -np.linalg.solve(P, q) + 0.5 * random.standard_normal(5)
    x = cp.Variable(10)
    rows = G @ x <= d
    cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, cp.psd_wrap(P)) + q @ x), [rows]).solve(solver=cp.CLARABEL)
    P, q, G, d = (torch.from_numpy(part) for part in (P, q, G, d))

    def problem(x):
        return {"objective": 0.5 * x @ (P @ x) + q @ x, "inequality": G @ x - d}

    def far_off(method):
        engine = PrimalDual(5, method=method)
        at = torch.zeros(10, dtype=torch.float64, requires_grad=True)
        moving = torch.optim.Adam([at], lr=0.01)
        for _ in range(2400):
            engine.take(lambda: problem(at), moving)
        found = torch.cat([at.detach(), engine.multipliers]).numpy()
        return abs(found - np.concatenate([x.value, rows.dual_value])).max()

    assert far_off(AugmentedLagrangian()) < 5e-3
    assert far_off(AugmentedLagrangian(rho=10.0)) > 0.1  # a step of rho / 20 at any pace


def test_the_unit_grows_where_the_objective_bends_more_later():
    """An objective that is straight at first, and has curvature 100 at the second look: the unit is its curvature."""
    x = vec(0.0).requires_grad_()
    engine = PrimalDual(2)
    for step in range(1, 17):
        bent = 50 * (x**2).sum() if step > 1 else 0.0
        engine.step(x.sum() + bent, torch.cat([1 - x / 10, -1 - x / 10]))
    violated, met = engine.state_dict()["unit"].tolist()
    assert (violated, met) == pytest.approx((100 / 0.1**2, 1 / 0.1**2))  # nobody asks a row that is met


def test_rho_grows_where_a_violation_rises():
    x = vec(0.0).requires_grad_()
    engine = PrimalDual(1)
    for step in range(1, 17):
        engine.step(x.sum(), 1 + step / 10 - x / 100)
    first = 1 / (1.1 * 0.01)
    assert float(engine.rho) == pytest.approx(10 * first)
