"""Whether the rows of a problem conflict near a point, and whether everywhere.

At a point x the rows, made linear, are  g + J d <= t  and  |h + J d| <= t.  If the least t within the bounds is above
0, no step meets them all; its multipliers y are Farkas' proof (``solvers.conflict``).  Where ``y . (g, h)`` is convex
its linear form lies below it, and the proof holds everywhere.  Axes: n variables, C rows.
"""

from __future__ import annotations

from typing import Literal

import cvxpy as cp
import numpy as np

from ..conflict import Conflict, least_violation
from ._point import Floats, Point
from ._problem import Problem

Shape = Literal["affine", "convex", "curved"]
_SAMPLES = 12


def conflict_at(problem: Problem, point: Point, slack: float) -> Conflict | None:
    """Return the conflict of the linear rows at a point, or None if steps within the bounds meet them within slack."""
    d_n = cp.Variable(len(point.x_n))
    x_n = point.x_n + d_n
    low_n, high_n = np.isfinite(problem.lower_n), np.isfinite(problem.upper_n)
    within = [x_n[low_n] >= problem.lower_n[low_n]] if low_n.any() else []
    within += [x_n[high_n] <= problem.upper_n[high_n]] if high_n.any() else []
    found = least_violation(point.c_C + point.jacobian_Cn @ d_n, problem.M, within, floor=0.0)
    return found if found is not None and found.least > slack else None


def shape_of(problem: Problem, point: Point, farkas_C: Floats) -> Shape:
    """Say what the weighed rows look like at points near and far: affine each, convex together, or neither."""
    value, slope_n = float(farkas_C @ point.c_C), point.jacobian_Cn.T @ farkas_C
    used_C, affine = farkas_C != 0, True
    draw, reach = np.random.default_rng(0), 1 + float(np.abs(point.x_n).max())
    for k in range(_SAMPLES):
        step_n = reach * 10.0 ** (k % 4 - 2) * draw.uniform(-1, 1, len(slope_n))
        other = problem.at(np.clip(point.x_n + step_n, problem.lower_n, problem.upper_n))
        if not other.finite:
            return "curved"
        moved_n = other.x_n - point.x_n
        far = float(np.abs(other.c_C).max()) + 1
        affine &= np.allclose(other.jacobian_Cn[used_C], point.jacobian_Cn[used_C], rtol=0, atol=1e-9)
        below = value + float(slope_n @ moved_n) <= float(farkas_C @ other.c_C) + 1e-9 * far
        turned = float((other.jacobian_Cn.T @ farkas_C - slope_n) @ moved_n) >= -1e-9 * far
        if not (below and turned):
            return "curved"
    return "affine" if affine else "convex"
