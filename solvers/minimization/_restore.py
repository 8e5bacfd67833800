"""The nearest thing to a feasible point: least squares of what rows are missed by, within bounds.

    minimise  1/2 |missed(x)|^2,    missed = (max(g, 0), h)

Projected Levenberg-Marquardt.  Ending above zero proves nothing beyond its surroundings, so several starts are tried
before anybody speaks of infeasibility.  Axes: n variables, C rows.
"""

from __future__ import annotations

import numpy as np

from ._augmented import DENSE, downhill
from ._point import Floats, Point
from ._problem import Problem

FEASIBLE = 1e-6  # violations below this, of scaled rows, are feasible enough to speak of multipliers
_STEPS, _LAST = 200, 8
_RADII = (0.1, 1.0, 1.0, 1.0, 10.0, 10.0, 10.0, 100.0)


def violation(problem: Problem, point: Point) -> float:
    """Return the largest violation of the scaled rows."""
    return float(np.abs(problem.missed(point.c_C)).max(initial=0.0))


def restore(problem: Problem, point: Point) -> Point:
    """Return a point where violations are as small as they get near ``point``; look at ``violation`` of it."""
    damping = 1e-3
    for _ in range(_STEPS):
        missed_C = problem.missed(point.c_C)
        # a row that is met and stays met takes no part
        rows_Cn = np.where((missed_C != 0)[:, None], point.jacobian_Cn, 0.0)
        slope_n = rows_Cn.T @ missed_C
        low_n, high_n = problem.on_bounds(point.x_n)
        free_n = ~((low_n & (slope_n > 0)) | (high_n & (slope_n < 0)))
        size = float(missed_C @ missed_C)
        if size == 0 or float(np.abs(slope_n[free_n]).max(initial=0.0)) <= 1e-14 * np.sqrt(size):
            break
        while damping < 1e12:
            step_n = np.zeros_like(slope_n)
            step_n[free_n] = _step(rows_Cn[:, free_n], missed_C, damping)
            new_n = np.clip(point.x_n + step_n, problem.lower_n, problem.upper_n)
            _, c_C = problem.values(new_n)
            new = problem.missed(c_C)
            if np.isfinite(new).all() and float(new @ new) < size * (1 - 1e-12):
                break
            damping *= 10
        else:
            break
        nearer = problem.at(new_n)
        if not nearer.finite:
            break
        point, damping = nearer, max(damping * 0.1, 1e-12)
    return _settled(problem, point) if violation(problem, point) > FEASIBLE else point


def _settled(problem: Problem, point: Point) -> Point:
    """Return the point after Newton steps: where violations stay, least squares alone creep."""
    for _ in range(_LAST):
        missed_C = problem.missed(point.c_C)
        slope_n = point.jacobian_Cn.T @ missed_C
        low_n, high_n = problem.on_bounds(point.x_n)
        free_n = ~((low_n & (slope_n > 0)) | (high_n & (slope_n < 0)))
        if not problem.smooth or len(slope_n) > DENSE or not free_n.any():
            break
        try:
            bent_nn = problem.hessian(point.x_n, missed_C, f_weight=0.0)
        except RuntimeError:  # no second derivatives
            problem.smooth = False
            break
        rows_Cn = point.jacobian_Cn[missed_C != 0]
        step_n = np.zeros_like(slope_n)
        step_n[free_n] = -downhill((bent_nn + rows_Cn.T @ rows_Cn)[np.ix_(free_n, free_n)], slope_n[free_n])
        new = problem.at(np.clip(point.x_n + step_n, problem.lower_n, problem.upper_n))
        steep = [np.abs(problem.projected(p.jacobian_Cn.T @ problem.missed(p.c_C), p.x_n)).max() for p in (point, new)]
        if not new.finite or not steep[1] < steep[0]:
            break
        point = new
    return point


def _step(rows_Cf: Floats, missed_C: Floats, damping: float) -> Floats:
    """Return the damped least squares step ``-(J'J + shift)^-1 J' missed``, by the smaller of the two systems."""
    C, f = rows_Cf.shape
    shift = damping * max(float((rows_Cf**2).sum(axis=1).max(initial=0.0)), 1e-300)
    if f >= C:
        found: Floats = -rows_Cf.T @ np.linalg.solve(rows_Cf @ rows_Cf.T + shift * np.eye(C), missed_C)
        return found
    right_f = -rows_Cf.T @ missed_C
    return np.asarray(np.linalg.solve(rows_Cf.T @ rows_Cf + shift * np.eye(f), right_f), dtype=np.float64)


def restore_from_elsewhere(problem: Problem, point: Point) -> Point | None:
    """Return a feasible point that is reached from one of several starts around, or None."""
    draw = np.random.default_rng(0)
    for radius in _RADII:
        reach = radius * (1 + float(np.abs(point.x_n).max()))
        step_n = reach * draw.uniform(-1, 1, len(point.x_n))
        start = problem.at(np.clip(point.x_n + step_n, problem.lower_n, problem.upper_n))
        if start.finite:
            found = restore(problem, start)
            if violation(problem, found) <= FEASIBLE:
                return found
    return None


def is_stationary(problem: Problem, point: Point) -> bool:
    """Say whether violations cannot be made smaller nearby: their own gradient vanishes at a violated point."""
    missed_C = problem.missed(point.c_C)
    slope_n = problem.projected(point.jacobian_Cn.T @ missed_C, point.x_n)
    size, steepest = float(np.linalg.norm(missed_C)), max(1.0, float(np.abs(point.jacobian_Cn).max(initial=0.0)))
    return size > FEASIBLE and float(np.linalg.norm(slope_n)) <= 1e-3 * size * steepest
