"""Feasibility restoration: the point nearby with the least violation, and whether the rows conflict there.

    minimize  1/2 |v(x)|^2,    v = (max(g, 0), h),    within bounds

Projected Levenberg-Marquardt, then Newton's method.  Ending above zero proves nothing beyond its surroundings, so
several starts are tried before anybody speaks of infeasibility.  Axes: n variables, C rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..infeasibility import SETTINGS as INFEASIBILITY
from ..infeasibility import violation_gradient_norm
from ._inner_minimization import solve_shifted
from .problem._scaled_point import ScaledPoint
from .problem._scaled_problem import Floats, ScaledProblem

RowShape = Literal["affine", "convex", "curved"]


@dataclass(frozen=True)
class RestorationSettings:
    """Numbers of the search for a feasible point; ``test_minimize_verdicts.py`` (conflicts) notices them.

    Attributes:
        feasible: Violation of scaled rows that is feasible enough to speak of multipliers.
        steps: Levenberg-Marquardt steps at most.
        newton_steps: Newton steps at a violated end, where least squares alone creep.
        first_damping: Damping of the first step, in units of the largest squared gradient of a row.
        damping_factor: Factor on the damping after a step that did not help, its inverse after one that did.
        largest_damping: Damping at which nothing is left to find.
        least_damping: Least damping.
        radii: How far from the end other starts lie, in units of 1 + |x|.
        samples: Points at which the shape of rows is looked at.
    """

    feasible: float = 1e-6
    steps: int = 200
    newton_steps: int = 8
    first_damping: float = 1e-3
    damping_factor: float = 10.0
    largest_damping: float = 1e12
    least_damping: float = 1e-12
    radii: tuple[float, ...] = (0.1, 1.0, 1.0, 1.0, 10.0, 10.0, 10.0, 100.0)
    samples: int = 12


SETTINGS = RestorationSettings()


def is_feasible(problem: ScaledProblem, point: ScaledPoint) -> bool:
    """Say whether the scaled rows are met closely enough to speak of multipliers."""
    return problem.largest_violation(point) <= SETTINGS.feasible


@np.errstate(over="ignore", invalid="ignore")  # far out, what is not finite ends it
def restore_feasibility(problem: ScaledProblem, point: ScaledPoint) -> ScaledPoint:
    """Return a point where violations are as small as they get near ``point``; ask ``is_feasible`` of it."""
    damping = SETTINGS.first_damping
    for _ in range(SETTINGS.steps):
        v_C = problem.violations(point.c_C)
        # a row that is met and stays met takes no part
        rows_Cn = np.where((v_C != 0)[:, None], point.jacobian_Cn, 0.0)
        gradient_n = rows_Cn.T @ v_C
        free_n = problem.free_variables(gradient_n, point.x_n)
        size = float(v_C @ v_C)
        if size == 0 or float(np.abs(gradient_n[free_n]).max(initial=0.0)) <= 1e-14 * np.sqrt(size):
            break
        while damping < SETTINGS.largest_damping:
            step_n = np.zeros_like(gradient_n)
            step_n[free_n] = _solve_damped(rows_Cn[:, free_n], v_C, damping)
            new_n = problem.clip(point.x_n + step_n)
            new_C = problem.violations(problem.evaluate_values(new_n)[1])
            if np.isfinite(new_C).all() and float(new_C @ new_C) < size * (1 - 1e-12):
                break
            damping *= SETTINGS.damping_factor
        else:
            break
        nearer = problem.evaluate(new_n)
        if not nearer.finite:
            break
        point, damping = nearer, max(damping * (1 / SETTINGS.damping_factor), SETTINGS.least_damping)
    return point if is_feasible(problem, point) else _refine_violated(problem, point)


def _violation_gradient(problem: ScaledProblem, point: ScaledPoint) -> Floats:
    """Return the gradient of ``|v|^2 / 2``, bounds left out."""
    gradient_n: Floats = point.jacobian_Cn.T @ problem.violations(point.c_C)
    return gradient_n


def _refine_violated(problem: ScaledProblem, point: ScaledPoint) -> ScaledPoint:
    """Return the point after Newton steps, taken while they lower the gradient of the violations."""
    for _ in range(SETTINGS.newton_steps):
        v_C, gradient_n = problem.violations(point.c_C), _violation_gradient(problem, point)
        free_n = problem.free_variables(gradient_n, point.x_n)
        if not problem.has_second_derivatives or not free_n.any():
            break
        try:
            hessian_nn = problem.hessian(point.x_n, v_C, f_weight=0.0)
        except RuntimeError:  # no second derivatives
            problem.smooth = False
            break
        rows_Cn = point.jacobian_Cn[v_C != 0]
        step_n = np.zeros_like(gradient_n)
        curved_nn = hessian_nn + rows_Cn.T @ rows_Cn
        step_n[free_n] = -solve_shifted(curved_nn[np.ix_(free_n, free_n)], gradient_n[free_n])
        new = problem.evaluate_within(point.x_n + step_n)
        before, after = (
            float(np.abs(problem.project_gradient(_violation_gradient(problem, p), p.x_n)).max()) for p in (point, new)
        )
        if not new.finite or not after < before:
            break
        point = new
    return point


def _solve_damped(rows_Cf: Floats, v_C: Floats, damping: float) -> Floats:
    """Return the damped least squares step ``-(J'J + shift)^-1 J' v``, by the smaller of the two systems."""
    C, f = rows_Cf.shape
    shift = damping * max(float((rows_Cf**2).sum(axis=1).max(initial=0.0)), 1e-300)
    if f >= C:
        step_f: Floats = -rows_Cf.T @ np.linalg.solve(rows_Cf @ rows_Cf.T + shift * np.eye(C), v_C)
        return step_f
    right_f = -rows_Cf.T @ v_C
    return np.asarray(np.linalg.solve(rows_Cf.T @ rows_Cf + shift * np.eye(f), right_f), dtype=np.float64)


def restore_from_elsewhere(problem: ScaledProblem, point: ScaledPoint) -> ScaledPoint | None:
    """Return a feasible point that is reached from one of several starts around, or None."""
    draw = np.random.default_rng(0)
    for radius in SETTINGS.radii:
        width = radius * point.length
        start = problem.evaluate_within(point.x_n + width * draw.uniform(-1, 1, len(point.x_n)))
        if start.finite:
            restored = restore_feasibility(problem, start)
            if is_feasible(problem, restored):
                return restored
    return None


def is_least_violation(problem: ScaledProblem, point: ScaledPoint) -> bool:
    """Say whether violations cannot be made smaller nearby: their own gradient vanishes at a violated point."""
    v_C = problem.violations(point.c_C)
    gradient_n = problem.project_gradient(_violation_gradient(problem, point), point.x_n)
    steepest = max(1.0, float(np.abs(point.jacobian_Cn).max(initial=0.0)))
    flat = violation_gradient_norm(gradient_n, v_C) <= INFEASIBILITY.flat_gradient * steepest
    return float(np.linalg.norm(v_C)) > SETTINGS.feasible and flat


def classify_rows(problem: ScaledProblem, point: ScaledPoint, weights_C: Floats) -> RowShape:
    """Say what weighed rows look like at points near and far: affine each, convex together, or neither."""
    value, gradient_n = float(weights_C @ point.c_C), point.jacobian_Cn.T @ weights_C
    used_C, affine = weights_C != 0, True
    draw = np.random.default_rng(0)
    for k in range(SETTINGS.samples):
        step_n = point.length * 10.0 ** (k % 4 - 2) * draw.uniform(-1, 1, len(gradient_n))
        other = problem.evaluate_within(point.x_n + step_n)
        if not other.finite:
            return "curved"
        apart_n = other.x_n - point.x_n
        slack = 1e-9 * (float(np.abs(other.c_C).max()) + 1)
        affine &= np.allclose(other.jacobian_Cn[used_C], point.jacobian_Cn[used_C], rtol=0, atol=1e-9)
        above_tangent = value + float(gradient_n @ apart_n) <= float(weights_C @ other.c_C) + slack
        monotone = float((other.jacobian_Cn.T @ weights_C - gradient_n) @ apart_n) >= -slack
        if not (above_tangent and monotone):
            return "curved"
    return "affine" if affine else "convex"
