"""The last digits, by Newton's method on the KKT conditions with a guess of what binds.

    [ H    J' ] [ dx      ]      [ grad L ]        rows guessed active: lambda + rho c > 0
    [ J  -del ] [ dlambda ]  = - [   c    ]        variables guessed held: the slope pushes them beyond their bound

del > 0 shrinks with the residual (stabilised sequential quadratic programming, Wright 1998): steps stay defined where
rows repeat or depend on each other.  Axes: n variables, C rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._point import Floats, Mask, Point
from ._problem import Problem

_STEPS = 30
_PATIENCE = 5  # steps without a better point: guesses may need some to settle
_TRUST = 1e-3  # what a row's value weighs against a multiplier that was given
_PROXIMAL = 1e-10  # keeps a linear objective's steps short where its minimiser is not one point
_FLOOR = 1e-14  # residuals below are rounding


@dataclass(frozen=True)
class Polished:
    """A point with its multipliers.  worst: largest scaled residual.  change: of multipliers in the last step."""

    point: Point
    lambda_C: Floats
    worst: float
    change: float = np.inf


def worst_residual(problem: Problem, point: Point, lambda_C: Floats) -> float:
    """Return the largest of the scaled residuals; infinite for what is not finite."""
    if not point.finite or not np.isfinite(lambda_C).all():
        return np.inf
    return float(max(vars(problem.residuals(point, lambda_C, scaled=True)).values()))


def polish(
    problem: Problem, point: Point, lambda_C: Floats, rho: float, tolerance: float, *, warm: bool = False
) -> Polished:
    """Return the best point that Newton steps reach from here, perhaps where they began.

    warm: the multipliers, more than the values of the rows, tell what binds.
    Raises RuntimeError if the functions cannot be differentiated twice.
    """
    best = Polished(point, lambda_C, worst_residual(problem, point, lambda_C))
    now, waited = best, 0
    for _ in range(_STEPS):
        new = _step(problem, now, rho, _TRUST * rho if warm else rho)
        if new is None:
            break
        # once within tolerance, go on to the last digit: it costs little, and shows whether multipliers stand still
        waited = 0 if new.worst < 0.5 * best.worst else waited + 1
        if new.worst < best.worst or (new.worst <= tolerance and new.change < best.change):
            best = new
        patience = _PATIENCE * (1 + 2 * problem.model.quadratic)  # guesses are all that changes, and cost little
        if best.worst <= _FLOOR or waited >= (2 if best.worst <= tolerance else patience):
            break
        now = new
    return best


def _step(problem: Problem, now: Polished, rho: float, row_rho: float) -> Polished | None:
    point, M = now.point, problem.M
    active_C = (np.arange(len(now.lambda_C)) >= M) | (now.lambda_C + row_rho * point.c_C > 0)
    lambda_C = np.where(active_C, now.lambda_C, 0.0)
    slope_n = point.gradient_n + point.jacobian_Cn.T @ lambda_C
    low_n = slope_n > rho * (point.x_n - problem.lower_n)
    high_n = -slope_n > rho * (problem.upper_n - point.x_n)
    move_n = np.where(low_n, problem.lower_n - point.x_n, np.where(high_n, problem.upper_n - point.x_n, 0.0))
    damping = min(1e-6, max(1e-10, 1e-3 * now.worst)) if np.isfinite(now.worst) else 1e-6
    hessian_nn = problem.model.at(point, lambda_C)
    solved = _solve(hessian_nn, point, slope_n, active_C, ~(low_n | high_n), move_n, damping)
    if solved is None:
        return None
    move_n, lambda_C = solved[0], lambda_C + solved[1]
    lambda_C[:M] = lambda_C[:M].clip(min=0)
    new = problem.at(np.clip(point.x_n + move_n, problem.lower_n, problem.upper_n))
    if not new.finite:
        return None
    change = float(np.abs(lambda_C - now.lambda_C).max(initial=0.0)) / (1 + float(np.abs(lambda_C).max(initial=0.0)))
    return Polished(new, lambda_C, worst_residual(problem, new, lambda_C), change)


def _solve(
    hessian_nn: Floats, point: Point, slope_n: Floats, active_C: Mask, free_n: Mask, move_n: Floats, damping: float
) -> tuple[Floats, Floats] | None:
    """Return the moves of x and of the multipliers, or None where the system is singular."""
    rows_An = point.jacobian_Cn[active_C]
    F, A = int(free_n.sum()), int(active_C.sum())
    system = np.zeros((F + A, F + A))
    system[:F, :F] = hessian_nn[np.ix_(free_n, free_n)] + _PROXIMAL * np.eye(F)
    system[F:, :F] = rows_An[:, free_n]
    system[:F, F:] = rows_An[:, free_n].T
    system[F:, F:] = -damping * np.eye(A)
    right = np.concatenate([-(slope_n + hessian_nn @ move_n)[free_n], -(point.c_C[active_C] + rows_An @ move_n)])
    try:
        answer = np.linalg.solve(system, right)
    except np.linalg.LinAlgError:
        return None
    if not np.isfinite(answer).all():
        return None
    moved_n, raised_C = move_n.copy(), np.zeros(len(active_C))
    moved_n[free_n] = answer[:F]
    raised_C[active_C] = answer[F:]
    return moved_n, raised_C
