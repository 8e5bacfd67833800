"""The second-order check: Hessians in full and Lanczos' method against eigenvalues on the tangent space."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import null_space

from solvers.second_order import (
    estimate_curvature,
    is_convex_along,
    orthonormal_rows,
    project_on_tangent,
    reduced_curvature,
    span_tangent,
)


def problem(seed, n=12, rows=3):
    draw = np.random.default_rng(seed)
    square_nn = draw.standard_normal((n, n))
    return square_nn + square_nn.T, draw.standard_normal((rows, n))


def estimate(hessian_nn, rows_An, steps=12):
    H, normals_An = torch.from_numpy(hessian_nn), orthonormal_rows(torch.from_numpy(rows_An))

    def multiply(v_n):
        return project_on_tangent(H @ v_n, normals_An)

    return estimate_curvature(multiply, normals_An, len(H), steps, torch.device("cpu"))


@pytest.mark.parametrize("seed", range(5))
def test_both_ways_find_the_least_curvature_on_the_tangent_space(seed):
    hessian_nn, rows_An = problem(seed)
    basis_nt = null_space(rows_An)
    exact_t = np.linalg.eigvalsh(basis_nt.T @ hessian_nn @ basis_nt)
    curvature_t, _ = reduced_curvature(hessian_nn, span_tangent(rows_An))
    assert curvature_t == pytest.approx(exact_t)
    seen = estimate(hessian_nn, rows_An)
    assert (seen.least, seen.largest) == pytest.approx((exact_t[0], exact_t[-1]))
    direction_n = seen.direction_n.numpy()
    assert rows_An @ direction_n == pytest.approx(np.zeros(3), abs=1e-9)
    assert direction_n @ hessian_nn @ direction_n == pytest.approx(exact_t[0])
    assert seen.negative_direction_n is seen.direction_n
    assert not is_convex_along(hessian_nn, rows_An, 1e-6)


def test_negative_curvature_across_the_rows_is_none():
    """-x^2 + y^2 is a saddle, and a minimum along x = 0."""
    hessian_nn, rows_An = np.diag([-1.0, 1.0]), np.array([[1.0, 0.0]])
    assert is_convex_along(hessian_nn, rows_An, 1e-3)
    assert not is_convex_along(hessian_nn, rows_An[:0], 1e-3)
    assert estimate(hessian_nn, rows_An).negative_direction_n is None
    assert estimate(hessian_nn, rows_An[:0]).negative_direction_n is not None


def test_repeated_rows_span_nothing_more_and_rows_may_leave_no_direction():
    rows_An = np.array([[1.0, 0.0], [2.0, 0.0]])
    assert span_tangent(rows_An).shape == (2, 1)
    assert len(orthonormal_rows(torch.from_numpy(rows_An))) == 1
    fixed = estimate(-np.eye(2), np.eye(2))
    assert (fixed.direction_n, fixed.negative_direction_n) == (None, None)


def test_products_of_no_symmetric_matrix_and_numbers_that_are_not_finite_are_seen():
    none = torch.zeros(0, 6, dtype=torch.float64)
    lopsided = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 6)))
    with pytest.raises(RuntimeError, match="not those of a symmetric matrix"):
        estimate_curvature(lambda v_n: lopsided @ v_n, none, 6, 6, torch.device("cpu"))
    assert not estimate_curvature(lambda v_n: v_n * torch.nan, none, 6, 6, torch.device("cpu")).finite
