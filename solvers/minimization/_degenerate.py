"""Points without multipliers, and kinks: where residuals cannot tell the truth.

Multipliers grow without end where the gradients of the binding rows, weighed by their own prices, cancel: then
``y . J = 0`` with y >= 0, and no finite multiple of them balances the objective (Fritz John 1948).  Newton's method on
that equation finds the place.  Axes: n variables, C rows.
"""

from __future__ import annotations

import numpy as np

from ._problem import Floats, Point, Problem, weights

_SMALL = 1e-3  # a weighed gradient below this, of rows whose gradients were 1, may be on its way to zero
_STEPS = 80
_GONE = 1e-3  # what may be left of rows and gradients at the place
_SAMPLES = 8


def without_multiplier(problem: Problem, point: Point, lambda_C: Floats) -> Point | None:
    """Return the point nearby where the priced rows bind and their gradients cancel; None if there is none.

    Raises RuntimeError if the functions cannot be differentiated twice.
    """
    total = float(np.abs(lambda_C).sum())
    y_C = lambda_C / total if total > 0 else lambda_C
    first = now = _cancelled(problem, point, y_C)
    if total == 0 or not 0 < first <= _SMALL:
        return None
    near = point
    for _ in range(_STEPS):
        step_n = _step(problem, near, y_C)
        new = problem.at(np.clip(near.x_n + step_n, problem.lower_n, problem.upper_n))
        left = _cancelled(problem, new, y_C) if new.finite else np.inf
        if not left < 0.95 * now:
            break
        near, now = new, left
        if now < 1e-30:
            break
    priced_C = np.abs(y_C) > 1e-6
    rows_before, rows_now = (float(np.abs(p.c_C[priced_C]).max()) for p in (point, near))
    binds = rows_now <= max(_GONE * rows_before, 1e-14)
    met = float(np.abs(problem.missed(near.c_C)).max()) <= 2 * float(np.abs(problem.missed(point.c_C)).max()) + 1e-14
    return near if now <= _GONE * first and binds and met else None


def _cancelled(problem: Problem, point: Point, y_C: Floats) -> float:
    return float(np.abs(problem.projected(point.jacobian_Cn.T @ y_C, point.x_n)).max())


def _step(problem: Problem, point: Point, y_C: Floats) -> Floats:
    """Return the Newton step for ``y . J = 0`` in the variables that bounds leave free."""
    slope_n = point.jacobian_Cn.T @ y_C
    low_n, high_n = problem.on_bounds(point.x_n)
    free_n = ~((low_n & (slope_n > 0)) | (high_n & (slope_n < 0)))
    bent_nn = problem.hessian(point.x_n, y_C, f_weight=0.0)[np.ix_(free_n, free_n)]
    step_n = np.zeros_like(slope_n)
    if free_n.any():
        step_n[free_n] = -np.linalg.lstsq(bent_nn, slope_n[free_n], rcond=1e-8)[0]
    reach = 0.1 * (1 + float(np.abs(point.x_n).max()))
    far = float(np.abs(step_n).max())
    return step_n * min(1.0, reach / far) if far > 0 else step_n


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
