"""Whether the rows of a problem conflict near a point, by a linear program that cvxpy solves, and whether everywhere.

At a point x the rows, made linear, are  g + J d <= t  and  |h + J d| <= t.  If the least t within the bounds is above
0, no step meets them all; its multipliers y >= 0, summing to 1, are Farkas' proof.  Where ``y . (g, h)`` is convex its
linear form lies below it, and the proof holds everywhere.  Axes: n variables, C rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cvxpy as cp
import numpy as np

from ._point import Floats, Point
from ._problem import Problem

Shape = Literal["affine", "convex", "curved"]
_SAMPLES = 12


@dataclass(frozen=True)
class Conflict:
    """farkas_C: signed weights of scaled rows, magnitudes summing to 1.  least: the violation no step gets below."""

    farkas_C: Floats
    least: float


def conflict_at(problem: Problem, point: Point, slack: float) -> Conflict | None:
    """Return the conflict of the linear rows at a point, or None if steps within the bounds meet them within slack."""
    M, n = problem.M, len(point.x_n)
    d_n, t = cp.Variable(n), cp.Variable()
    step_C = point.c_C + point.jacobian_Cn @ d_n
    upper: Any = step_C <= t
    lower: Any = -step_C[M:] <= t
    rules: list[Any] = [upper, t >= 0]
    if len(point.c_C) > M:
        rules.append(lower)
    x_n = point.x_n + d_n
    low_n, high_n = np.isfinite(problem.lower_n), np.isfinite(problem.upper_n)
    rules += [x_n[low_n] >= problem.lower_n[low_n]] if low_n.any() else []
    rules += [x_n[high_n] <= problem.upper_n[high_n]] if high_n.any() else []
    program = cp.Problem(cp.Minimize(t), rules)
    try:
        program.solve(solver=cp.CLARABEL)  # type: ignore[no-untyped-call]
    except (cp.error.SolverError, ArithmeticError, ValueError):
        return None
    if program.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or t.value is None or not float(t.value) > slack:
        return None
    farkas_C = np.asarray(upper.dual_value, dtype=float).copy()
    farkas_C[:M] = farkas_C[:M].clip(min=0)
    if len(point.c_C) > M:
        farkas_C[M:] -= np.asarray(lower.dual_value, dtype=float)
    weight = float(np.abs(farkas_C).sum())
    return Conflict(farkas_C / weight, float(t.value)) if weight > 0 else None


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
