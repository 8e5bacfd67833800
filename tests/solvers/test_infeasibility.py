"""Infeasibility: Farkas' weights against a solver of the primal, refused where they prove nothing; local evidence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from solvers.infeasibility import (
    compute_farkas_bound,
    prove_linearized_infeasible,
    solve_least_violation_on_simplices,
    violation_gradient_norm,
)


def least_by_highs(gain_MGV: np.ndarray, wanted_M: np.ndarray) -> float:
    """Return min t  s.t.  wanted - gain . p <= t,  every p_G a distribution."""
    M, G, V = gain_MGV.shape
    rows = np.hstack([-gain_MGV.reshape(M, -1), -np.ones((M, 1))])
    sums = np.hstack([np.kron(np.eye(G), np.ones((1, V))), np.zeros((G, 1))])
    bounds = [(0, None)] * (G * V) + [(None, None)]
    cost = np.r_[np.zeros(G * V), 1.0]
    return linprog(cost, rows, -wanted_M, sums, np.ones(G), bounds, method="highs").fun


@pytest.mark.parametrize("seed", range(20))
def test_the_proven_violation_is_the_least_there_is(seed):
    draw = np.random.default_rng(seed)
    M, G, V = (int(draw.integers(1, 5)) for _ in range(3))
    gain_MGV = draw.random((M, G, V)) / G
    wanted_M = draw.random(M)
    proof = solve_least_violation_on_simplices(gain_MGV, wanted_M)
    assert proof.least_violation == pytest.approx(least_by_highs(gain_MGV, wanted_M), abs=1e-7)
    assert (proof.weights_C >= 0).all()
    assert proof.weights_C.sum() == pytest.approx(1)
    other_M = draw.dirichlet(np.ones(M))
    assert compute_farkas_bound(other_M, gain_MGV, wanted_M) <= proof.least_violation + 1e-7  # no weights prove more


def test_two_classes_of_one_distribution():
    gain_MGV = np.eye(3)[:2][:, None, :]
    proof = solve_least_violation_on_simplices(gain_MGV, np.array([0.8, 0.7]))
    assert proof.least_violation == pytest.approx(0.25, abs=1e-7)
    assert proof.weights_C == pytest.approx([0.5, 0.5], abs=1e-6)
    assert compute_farkas_bound(np.array([0.5, 0.5]), gain_MGV, np.array([0.8, 0.7])) == pytest.approx(0.25)


def test_what_is_no_proof_proves_nothing():
    gain_MGV, wanted_M = np.eye(3)[:2][:, None, :], np.array([0.8, 0.7])
    for weights_M in ([-1.0, 2.0], [0.0, 0.0], [1.0, 1.0], [np.nan, 1.0]):
        assert compute_farkas_bound(np.array(weights_M), gain_MGV, wanted_M) == -np.inf
    assert compute_farkas_bound(np.array([1.0, 0.0]), gain_MGV, wanted_M) == pytest.approx(
        -0.2
    )  # the first alone has room


def test_rows_made_linear_conflict_by_themselves_or_with_bounds():
    """1 <= x <= -1 within no bounds; then x >= 2 within [-1, 1]."""
    jacobian_C1, none_1 = np.array([[-1.0], [1.0]]), np.array([np.inf])
    x_1 = np.zeros(1)
    proof = prove_linearized_infeasible(np.array([1.0, 1.0]), jacobian_C1, 2, x_1, -none_1, none_1, 1e-6)
    assert proof.weights_C == pytest.approx([0.5, 0.5], abs=1e-6)
    assert proof.least_violation == pytest.approx(1.0, abs=1e-6)
    one_1 = np.ones(1)
    assert prove_linearized_infeasible(np.array([2.0]), -np.ones((1, 1)), 1, x_1, -none_1, none_1, 1e-6) is None
    proof = prove_linearized_infeasible(np.array([2.0]), -np.ones((1, 1)), 1, x_1, -one_1, one_1, 1e-6)
    assert proof.least_violation == pytest.approx(1.0, abs=1e-6)


def test_the_violation_gradient_norm_has_the_units_of_its_rows():
    violation_C, jacobian_Cn = np.array([3.0, 4.0]), np.array([[1.0, 0.0], [0.0, 1.0]])
    gradient_n = jacobian_Cn.T @ violation_C
    assert violation_gradient_norm(gradient_n, violation_C) == pytest.approx(1.0)
    assert violation_gradient_norm(10 * gradient_n * 10, 10 * violation_C) == pytest.approx(10.0)
    assert violation_gradient_norm(np.zeros(2), np.zeros(2)) == 0.0
