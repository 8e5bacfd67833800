"""Whether the rows of a problem conflict near a point.

At a point x the rows, made linear, are  g + J d <= t  and  |h + J d| <= t.  If the least t within the bounds is above
0, no step meets them all; its multipliers are Farkas' proof (``solvers.conflict``).  Where g is convex and h affine the
linear rows lie below the true ones, and the proof holds everywhere.  Axes: n variables, C rows.
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from ..conflict import Conflict, least_violation
from ._problem import Point, Problem


def conflict_at(problem: Problem, point: Point, slack: float) -> Conflict | None:
    """Return the conflict of the linear rows at a point, or None if steps within the bounds meet them within slack."""
    d_n = cp.Variable(len(point.x_n))
    x_n = point.x_n + d_n
    low_n, high_n = np.isfinite(problem.lower_n), np.isfinite(problem.upper_n)
    within = [x_n[low_n] >= problem.lower_n[low_n]] if low_n.any() else []
    within += [x_n[high_n] <= problem.upper_n[high_n]] if high_n.any() else []
    found = least_violation(point.c_C + point.jacobian_Cn @ d_n, problem.M, within, floor=0.0)
    return found if found is not None and found.least > slack else None
