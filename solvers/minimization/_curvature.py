"""Does a stationary point have a direction of descent along its constraints?  Second derivatives say so.

Zero residuals are necessary, not sufficient: the maximiser of a linear function on a circle has them too.
Axes: n variables, A active rows.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import null_space

from ._problem import Floats, Point, Problem

MOST = 300  # variables: beyond, second derivatives in full cost more than the solve
_ACTIVE = 1e-6
_FLAT = 1e-7  # curvature above minus this counts as none


def falling_direction(problem: Problem, point: Point, lambda_C: Floats) -> Floats | None:
    """Return a unit direction along the active rows in which the Lagrangian curves down, or None if there is none.

    Raises RuntimeError if the functions cannot be differentiated twice, ValueError for more than ``MOST`` variables.
    """
    n = len(point.x_n)
    if n > MOST:
        raise ValueError(f"{n} variables")
    hessian_nn = _hessian(problem, point, lambda_C)
    equal = np.arange(len(lambda_C)) >= problem.M
    active = equal | (lambda_C > _ACTIVE) | (np.abs(point.c_C) <= _ACTIVE)
    low_n, high_n = problem.on_bounds(point.x_n)
    rows = [point.jacobian_Cn[active], np.eye(n)[low_n | high_n]]
    tangent_nt = null_space(np.concatenate(rows), rcond=1e-8) if any(len(r) for r in rows) else np.eye(n)
    if not tangent_nt.shape[1]:
        return None
    curvature_t, vectors_tt = np.linalg.eigh(tangent_nt.T @ hessian_nn @ tangent_nt)
    if curvature_t[0] >= -_FLAT * max(1.0, float(np.abs(hessian_nn).max())):
        return None
    direction_n: Floats = tangent_nt @ vectors_tt[:, 0]
    return direction_n


def _hessian(problem: Problem, point: Point, lambda_C: Floats) -> Floats:
    price_C = torch.from_numpy(problem.user_multipliers(lambda_C))

    def lagrangian(x: torch.Tensor) -> torch.Tensor:
        f, g_M, h_E = problem.values(x)
        rows_C = torch.cat([g_M, h_E]).double()
        return (f.double() + (price_C.to(rows_C) * rows_C).sum()) / problem.f_scale

    n = len(point.x_n)
    found: Floats = (
        torch.autograd.functional.hessian(lagrangian, problem.tensor(point.x_n))  # type: ignore[no-untyped-call]
        .reshape(n, n)
        .double()
        .cpu()
        .numpy()
    )
    return (found + found.T) / 2
