"""Points without multipliers, and kinks: where residuals cannot tell the truth.

Multipliers grow without end where the gradients of the binding rows, weighed by their own prices, cancel: then
``y . J = 0`` with y >= 0, and no finite multiple of them balances the objective (Fritz John 1948).  Newton's method on
that equation finds the place.  Axes: n variables, C rows.
"""

from __future__ import annotations

import numpy as np

from ._point import Floats, Point, weights
from ._problem import Problem

_SMALL = 1e-2  # a weighed gradient below this, of rows whose gradients were 1, may be on its way to zero
_LIGHT = 3e-2  # prices below this part of the largest do not grow with it
_STEPS = 80
_ZERO, _MET = 1e-10, 1e-6
_REACH = 0.5  # how far the place may be, in units of 1 + |x|
_SAMPLES = 8


def without_multiplier(problem: Problem, point: Point, lambda_C: Floats) -> Point | None:
    """Return the point nearby where the priced rows bind and their gradients cancel; None if there is none.

    Raises RuntimeError if the functions cannot be differentiated twice.
    """
    largest = float(np.abs(lambda_C).max(initial=0.0))
    y_C = np.where(np.abs(lambda_C) > _LIGHT * largest, lambda_C, 0.0)
    total = float(np.abs(y_C).sum())
    if total == 0 or float(np.abs(problem.projected(point.jacobian_Cn.T @ y_C, point.x_n)).max()) > _SMALL * total:
        return None
    near, y_C = point, y_C / total
    left, reach = _left(problem, point, y_C), _REACH * (1 + float(np.abs(point.x_n).max()))
    for _ in range(_STEPS):
        step_n, turned_C = _step(problem, near, y_C)
        new = problem.at(np.clip(near.x_n + step_n, problem.lower_n, problem.upper_n))
        still = _left(problem, new, turned_C) if new.finite else np.inf
        far = float(np.abs(new.x_n - point.x_n).max())
        if not still < 0.95 * left or far > reach or (turned_C[: problem.M] < 0).any():
            break
        near, y_C, left = new, turned_C, still
    met = float(np.abs(problem.missed(near.c_C)).max()) <= _MET
    return near if left <= _ZERO and met else None


def _left(problem: Problem, point: Point, y_C: Floats) -> float:
    """Return what is left of the weighed gradient and of the rows that it weighs."""
    slope_n = problem.projected(point.jacobian_Cn.T @ y_C, point.x_n)
    return max(float(np.abs(slope_n).max()), float(np.abs(point.c_C[y_C != 0]).max()))


def _step(problem: Problem, point: Point, y_C: Floats) -> tuple[Floats, Floats]:
    """Return the Newton step for ``y . J = 0, c = 0, sum |y| = 1`` where bounds leave x free, and y after it."""
    slope_n, used_C = point.jacobian_Cn.T @ y_C, y_C != 0
    low_n, high_n = problem.on_bounds(point.x_n)
    free_n = ~((low_n & (slope_n > 0)) | (high_n & (slope_n < 0)))
    rows_Uf, sign_U = point.jacobian_Cn[used_C][:, free_n], np.sign(y_C[used_C])
    U, f = rows_Uf.shape
    system = np.zeros((f + U + 1, f + U))
    system[:f, :f] = problem.hessian(point.x_n, y_C, f_weight=0.0)[np.ix_(free_n, free_n)]
    system[:f, f:], system[f:-1, :f], system[-1, f:] = rows_Uf.T, rows_Uf, sign_U
    if not np.isfinite(system).all():
        raise RuntimeError("second derivatives are not finite here")
    right = np.concatenate([-slope_n[free_n], -point.c_C[used_C], [1 - float(np.abs(y_C).sum())]])
    answer = np.linalg.lstsq(system, right, rcond=1e-12)[0]
    step_n, turned_C = np.zeros_like(slope_n), y_C.copy()
    step_n[free_n] = answer[:f]
    turned_C[used_C] += answer[f:]
    return step_n, turned_C


def is_kink(problem: Problem, point: Point, lambda_C: Floats, rho: float) -> bool:
    """Say whether the gradient of the objective or of a row jumps within rounding of a point."""
    draw, reach = np.random.default_rng(0), 1e-7 * (1 + float(np.abs(point.x_n).max()))
    weight_C, slopes = weights(lambda_C, point.c_C, rho, problem.M), []
    for _ in range(_SAMPLES):
        step_n = reach * draw.uniform(-1, 1, len(point.x_n))
        near = problem.at(np.clip(point.x_n + step_n, problem.lower_n, problem.upper_n))
        if near.finite:
            slopes.append(near.gradient_n + near.jacobian_Cn.T @ weight_C)
    if not slopes:
        return False
    spread = np.ptp(np.array(slopes), axis=0)
    return float(spread.max()) > 1e-2 * float(np.abs(slopes).max())
