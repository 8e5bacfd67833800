"""Small quadratics over weights, against cvxpy."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import simplex_qp
from solvers.errors import InvalidInput, SolverFailure
from solvers.simplex_qp import minimize_quadratic


def problem(seed: int, B: int, K: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    root_BKR = torch.randn(B, K, rank, generator=generator, dtype=torch.float64)
    return root_BKR @ root_BKR.transpose(-1, -2), torch.randn(B, K, generator=generator, dtype=torch.float64)


def cost(H_KK, c_K, x_K):
    return 0.5 * x_K @ H_KK @ x_K - c_K @ x_K


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    K=st.integers(1, 9),
    rank=st.integers(1, 9),
    upper=st.floats(1.0, 9.0),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_as_good_as_cvxpy(seed, K, rank, upper, scale):
    """The least cost is compared: where H is singular there may be several ways to it."""
    H_BKK, c_BK = problem(seed, 1, K, rank)
    upper = min(1.0, upper / K)
    x_BK = minimize_quadratic(scale * H_BKK, scale * c_BK, upper=upper)
    assert ((x_BK >= 0) & (x_BK <= upper)).all()
    assert (x_BK.sum(-1) - 1).abs().max() < 1e-9
    for H_KK, c_K, x_K in zip(H_BKK.numpy(), c_BK.numpy(), x_BK.numpy(), strict=True):
        y_K = cvxpy.Variable(K)
        objective = 0.5 * cvxpy.quad_form(y_K, cvxpy.psd_wrap(H_KK)) - c_K @ y_K
        cvxpy.Problem(cvxpy.Minimize(objective), [cvxpy.sum(y_K) == 1, y_K >= 0, y_K <= upper]).solve(
            solver=cvxpy.CLARABEL
        )
        assert cost(H_KK, c_K, x_K) <= cost(H_KK, c_K, np.clip(y_K.value, 0, upper)) + 1e-7


def test_by_hand():
    """The nearest weights to (.9, .3, -1) are (.8, .2, 0), and (.6, .4, 0) under a bound of .6."""
    c_1K = torch.tensor([[0.9, 0.3, -1.0]], dtype=torch.float64)
    eye_1KK = torch.eye(3, dtype=torch.float64).unsqueeze(0)
    assert minimize_quadratic(eye_1KK, c_1K)[0].tolist() == pytest.approx([0.8, 0.2, 0.0])
    assert minimize_quadratic(eye_1KK, c_1K, upper=0.6)[0].tolist() == pytest.approx([0.6, 0.4, 0.0])


def test_bounds_that_leave_no_choice():
    H_BKK, c_BK = problem(1, 2, 4, 2)
    assert minimize_quadratic(H_BKK, c_BK, upper=0.25).numpy() == pytest.approx(0.25)


def test_what_guessing_does_not_prove_goes_to_cvxpy(monkeypatch):
    H_BKK, c_BK = problem(0, 4, 5, 5)
    expected_BK = minimize_quadratic(H_BKK, c_BK)
    monkeypatch.setattr(simplex_qp, "SETTINGS", simplex_qp.QuadraticSettings(guesses=0))
    torch.testing.assert_close(minimize_quadratic(H_BKK, c_BK), expected_BK, atol=1e-5, rtol=0)


def test_nothing_to_minimise():
    zero = torch.zeros(2, 3, 3, dtype=torch.float64)
    x_BK = minimize_quadratic(zero, zero[:, 0])
    assert x_BK.sum(-1).tolist() == pytest.approx([1.0, 1.0])
    assert minimize_quadratic(zero[:0], zero[:0, 0]).shape == (0, 3)


def test_a_matrix_that_is_not_convex_is_named():
    H_1KK = -torch.eye(3, dtype=torch.float64).unsqueeze(0)
    with pytest.raises(InvalidInput, match="H of problem 0 has the eigenvalue -1; it must be positive semidefinite"):
        minimize_quadratic(H_1KK, torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("H", "c", "upper", "message"),
    [
        (torch.zeros(1, 2, 2), torch.zeros(1, 3), 1.0, "H of shape"),
        (torch.full((1, 2, 2), torch.nan), torch.zeros(1, 2), 1.0, "not finite"),
        (torch.zeros(1, 2, 2), torch.zeros(1, 2), 0.4, "`upper` is 0.4; 2 weights need at least 0.5"),
    ],
)
def test_bad_input_is_named(H, c, upper, message):
    with pytest.raises(InvalidInput, match=message):
        minimize_quadratic(H, c, upper=upper)


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (cvxpy.error.SolverError("ill-conditioned"), "No weights were found for a quadratic of 3 weights: ill-cond"),
        (None, "A quadratic of 3 weights was called 'None', but it has a solution"),
    ],
)
def test_a_solver_that_gives_up_is_named(ending, message, monkeypatch):
    """Every such quadratic has a solution, so only a solver that fails gets here."""

    def solve(self, **options):
        if ending is not None:
            raise ending

    monkeypatch.setattr(cvxpy.Problem, "solve", solve)
    monkeypatch.setattr(simplex_qp, "_are_optimal", lambda x_BK, *rest: torch.zeros(len(x_BK), dtype=torch.bool))
    with pytest.raises(SolverFailure, match=message):
        minimize_quadratic(*problem(0, 1, 3, 3))
