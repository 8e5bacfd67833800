"""Points without multipliers, and kinks: where residuals cannot tell the truth.

Multipliers grow without end where the gradients of the binding rows, weighed by their own multipliers, cancel: then
``y . J = 0`` with y >= 0, and no finite multiple of them balances the objective (Fritz John 1948).  Newton's method on
that equation finds the place.  Axes: n variables, C rows, U rows in use, f free variables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .problem._scaled_point import ScaledPoint
from .problem._scaled_problem import Floats, ScaledProblem


@dataclass(frozen=True)
class DegeneracySettings:
    """Numbers of the search for points without multipliers, and of the look for kinks.

    ``test_minimize_verdicts.py`` (no multiplier, a large multiplier, a kink) notices them.

    Attributes:
        small: A weighed gradient below this, of rows whose gradients were 1, may be on its way to zero.
        light: Multipliers below this part of the largest do not grow with it.
        steps: Newton steps at most.
        progress: Share of what was left that may be left after a step.
        zero: Weighed gradient that cancels.
        met: Violation of scaled rows that are met there.
        distance: How far the place may be, in units of 1 + |x|.
        samples: Points around at which gradients are compared.
        sample_radii: How far they lie, in units of 1 + |x|: at about the rounding of a point, and further away.
        jump: Share of the largest gradient by which gradients at a kink differ.
        as_far_away: Share of the difference further away that is left near a kink.
    """

    small: float = 1e-2
    light: float = 3e-2
    steps: int = 80
    progress: float = 0.95
    zero: float = 1e-10
    met: float = 1e-6
    distance: float = 0.5
    samples: int = 8
    sample_radii: tuple[float, ...] = (1e-7, 1e-5)
    jump: float = 1e-2
    as_far_away: float = 0.1


SETTINGS = DegeneracySettings()


def find_point_without_multiplier(problem: ScaledProblem, point: ScaledPoint, lambda_C: Floats) -> ScaledPoint | None:
    """Return the point nearby where rows with a multiplier bind and their gradients cancel; None if there is none.

    Raises RuntimeError if the functions cannot be differentiated twice.
    """
    largest = float(np.abs(lambda_C).max(initial=0.0))
    y_C = np.where(np.abs(lambda_C) > SETTINGS.light * largest, lambda_C, 0.0)
    total = float(np.abs(y_C).sum())
    if total == 0:
        return None
    if float(np.abs(problem.project_gradient(point.jacobian_Cn.T @ y_C, point.x_n)).max()) > SETTINGS.small * total:
        return None
    near, y_C = point, y_C / total
    residual, distance = _fritz_john_residual(problem, point, y_C), SETTINGS.distance * point.length
    for _ in range(SETTINGS.steps):
        step_n, new_y_C = _fritz_john_step(problem, near, y_C)
        new = problem.evaluate_within(near.x_n + step_n)
        new_residual = _fritz_john_residual(problem, new, new_y_C) if new.finite else np.inf
        far = float(np.abs(new.x_n - point.x_n).max()) > distance
        if not new_residual < SETTINGS.progress * residual or far or (new_y_C[: problem.M] < 0).any():
            break
        near, y_C, residual = new, new_y_C, new_residual
    met = float(np.abs(problem.violations(near.c_C)).max()) <= SETTINGS.met
    return near if residual <= SETTINGS.zero and met else None


def _fritz_john_residual(problem: ScaledProblem, point: ScaledPoint, y_C: Floats) -> float:
    """Return what is left of the weighed gradient and of the rows that it weighs."""
    gradient_n = problem.project_gradient(point.jacobian_Cn.T @ y_C, point.x_n)
    return max(float(np.abs(gradient_n).max()), float(np.abs(point.c_C[y_C != 0]).max()))


def _fritz_john_step(problem: ScaledProblem, point: ScaledPoint, y_C: Floats) -> tuple[Floats, Floats]:
    """Return the Newton step for ``y . J = 0, c = 0, sum |y| = 1`` where bounds leave x free, and y after it."""
    gradient_n, used_C = point.jacobian_Cn.T @ y_C, y_C != 0
    free_n = problem.free_variables(gradient_n, point.x_n)
    rows_Uf, sign_U = point.jacobian_Cn[used_C][:, free_n], np.sign(y_C[used_C])
    U, f = rows_Uf.shape
    system = np.zeros((f + U + 1, f + U))
    system[:f, :f] = problem.hessian(point.x_n, y_C, f_weight=0.0)[np.ix_(free_n, free_n)]
    system[:f, f:], system[f:-1, :f], system[-1, f:] = rows_Uf.T, rows_Uf, sign_U
    if not np.isfinite(system).all():
        raise RuntimeError("second derivatives are not finite here")
    right = np.concatenate([-gradient_n[free_n], -point.c_C[used_C], [1 - float(np.abs(y_C).sum())]])
    answer = np.linalg.lstsq(system, right, rcond=1e-12)[0]
    step_n, new_y_C = np.zeros_like(gradient_n), y_C.copy()
    step_n[free_n] = answer[:f]
    new_y_C[used_C] += answer[f:]
    return step_n, new_y_C


def is_kink(problem: ScaledProblem, point: ScaledPoint, lambda_C: Floats, rho: float) -> bool:
    """Say whether the gradient of the objective or of a row jumps within rounding of a point.

    Gradients of a smooth function differ the less the nearer points are, however curved it is; at a kink they differ as
    much at every distance, by a share of the gradients themselves.
    """
    draw = np.random.default_rng(0)
    ways_Sn = draw.uniform(-1, 1, (SETTINGS.samples, len(point.x_n)))
    weight_C = problem.row_weights(lambda_C, point.c_C, rho)
    size = float((np.abs(point.gradient_n) + np.abs(point.jacobian_Cn).T @ np.abs(weight_C)).max())
    spreads = []
    for radius in SETTINGS.sample_radii:
        gradients = []
        for way_n in ways_Sn:
            near = problem.evaluate_within(point.x_n + radius * point.length * way_n)
            if near.finite:
                gradients.append(near.lagrangian_gradient(weight_C))
        if len(gradients) < 2:
            return False
        spreads.append(float(np.ptp(np.array(gradients), axis=0).max()))
    return spreads[0] > SETTINGS.jump * size and spreads[0] > SETTINGS.as_far_away * spreads[-1]
