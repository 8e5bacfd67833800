"""The weights of the augmented Lagrangian against autograd of the function written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solvers.lagrangian import bounded_weights, equality_weights, inequality_weights, lagrangian, penalty_term


def normal(seed: int, size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("seed", range(3))
def test_inequality_weights_are_the_gradient_of_the_phr_term(seed, scale):
    g_M = (scale * normal(seed, 50)).requires_grad_()
    lambda_M, rho_M = normal(seed + 10, 50).abs(), normal(seed + 20, 50).abs() + 0.1
    phr = (((lambda_M + rho_M * g_M).clamp_min(0) ** 2 - lambda_M**2) / (2 * rho_M)).sum()
    (gradient_M,) = torch.autograd.grad(phr, g_M)
    weights_M = inequality_weights(lambda_M, g_M.detach(), rho_M)
    torch.testing.assert_close(weights_M, gradient_M, rtol=1e-12, atol=0)
    assert (weights_M > 0).any()
    assert (weights_M == 0).any() or scale < 1  # some constraints are slack enough to be free


def test_equality_weights_are_the_gradient_of_the_quadratic_term():
    h_E, mu_E, rho_E = normal(0, 20).requires_grad_(), normal(1, 20), normal(2, 20).abs()
    (gradient_E,) = torch.autograd.grad((mu_E * h_E).sum() + (rho_E / 2 * h_E**2).sum(), h_E)
    torch.testing.assert_close(equality_weights(mu_E, h_E.detach(), rho_E), gradient_E, rtol=1e-14, atol=0)


def test_the_penalty_term_is_what_the_weights_are_the_gradient_of():
    """One row of each kind, by arrays as by numbers, against the formulas written out."""
    lambda_M, g_M, rho = normal(0, 9).abs().numpy(), normal(1, 9).numpy(), 3.0
    weight_M = inequality_weights(lambda_M, g_M, rho)
    by_hand = sum((max(x + rho * g, 0.0) ** 2 - x**2) / (2 * rho) for x, g in zip(lambda_M, g_M, strict=True))
    assert penalty_term(lambda_M, weight_M, rho) == pytest.approx(by_hand, rel=1e-12)
    mu, h = -0.7, 0.4
    assert penalty_term(mu, mu + rho * h, rho) == pytest.approx(mu * h + rho / 2 * h**2, rel=1e-12)


def test_bounded_weights_are_those_of_both_kinds_of_row():
    lambda_C, value_C, rho_C = normal(0, 8).abs(), normal(1, 8), normal(2, 8).abs()
    floor_C = torch.tensor([0.0] * 5 + [-torch.inf] * 3, dtype=torch.float64)
    M = slice(0, 5), slice(5, None)
    apart = [
        kind(lambda_C[rows], value_C[rows], rho_C[rows])
        for kind, rows in zip((inequality_weights, equality_weights), M, strict=True)
    ]
    torch.testing.assert_close(bounded_weights(lambda_C, value_C, rho_C, floor_C), torch.cat(apart), rtol=1e-14, atol=0)


def test_no_penalty_gives_the_multipliers_themselves_without_nan():
    lambda_M, g_M, none = normal(0, 9).abs(), normal(1, 9) * 1e6, torch.zeros(9, dtype=torch.float64)
    assert torch.equal(inequality_weights(lambda_M, g_M, none), lambda_M)
    assert torch.equal(equality_weights(-lambda_M, g_M, none), -lambda_M)


def test_the_lagrangian_is_the_sum_and_carries_every_gradient():
    x = normal(0, 3).requires_grad_()
    f, g_M, h_E = (x**2).sum(), torch.stack([x[0], x[1] * x[2]]), x.sum().reshape(1)
    lambda_M, mu_E = torch.tensor([2.0, 3.0], dtype=torch.float64), torch.tensor([-5.0], dtype=torch.float64)
    value = lagrangian(f, g_M, h_E, lambda_M, mu_E)
    a, b, c = x.tolist()
    assert value.item() == pytest.approx(a * a + b * b + c * c + 2 * a + 3 * b * c - 5 * (a + b + c), rel=1e-12)
    (gradient,) = torch.autograd.grad(value, x)
    assert gradient.tolist() == pytest.approx([2 * a + 2 - 5, 2 * b + 3 * c - 5, 2 * c + 3 * b - 5], rel=1e-12)


def test_float32_problems_keep_their_type():
    f, g_M = torch.ones((), dtype=torch.float32), torch.ones(2, dtype=torch.float32)
    value = lagrangian(f, g_M, torch.zeros(0), torch.ones(2, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
    assert value.dtype == torch.float32
    assert float(value) == 3
