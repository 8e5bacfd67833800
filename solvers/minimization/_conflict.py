"""Whether the rows of a problem conflict near a point, by a linear program that cvxpy solves.

At a point x the rows, made linear, are  g + J d <= t  and  |h + J d| <= t.  If the least t within the bounds is above
0, no step meets them all; its multipliers y >= 0, summing to 1, are Farkas' proof.  Where g is convex and h affine the
linear rows lie below the true ones, and the proof holds everywhere.  Axes: n variables, C rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from ._problem import Floats, Point, Problem


@dataclass(frozen=True)
class Conflict:
    """farkas_C: signed weights of rows, magnitudes summing to 1.  least: the violation that no step gets below."""

    farkas_C: Floats
    least: float


def conflict_at(problem: Problem, point: Point, slack: float) -> Conflict | None:
    """Return the conflict of the linear rows at a point, or None if steps within the bounds meet them within slack."""
    M, n = problem.M, len(point.x_n)
    d_n, t = cp.Variable(n), cp.Variable()
    c_C, jacobian_Cn = point.c_C, point.jacobian_Cn
    step_C = c_C + jacobian_Cn @ d_n
    upper: Any = step_C <= t
    lower: Any = -step_C[M:] <= t
    rules: list[Any] = [upper, t >= 0]
    if len(c_C) > M:
        rules.append(lower)
    x_n = point.x_n + d_n
    finite = [(np.isfinite(side), side) for side in (problem.lower_n, problem.upper_n)]
    rules += [x_n[finite[0][0]] >= finite[0][1][finite[0][0]]] if finite[0][0].any() else []
    rules += [x_n[finite[1][0]] <= finite[1][1][finite[1][0]]] if finite[1][0].any() else []
    problem_ = cp.Problem(cp.Minimize(t), rules)
    try:
        problem_.solve(solver=cp.CLARABEL)  # type: ignore[no-untyped-call]
    except (cp.error.SolverError, ArithmeticError, ValueError):
        return None
    if problem_.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or t.value is None or not float(t.value) > slack:
        return None
    farkas_C = np.asarray(upper.dual_value, dtype=float).copy()
    if len(c_C) > M:
        farkas_C[M:] -= np.asarray(lower.dual_value, dtype=float)
    weight = np.abs(farkas_C).sum()
    return Conflict(farkas_C / weight, float(t.value)) if weight > 0 else None
