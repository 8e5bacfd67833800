"""The last digits, by Newton's method on the KKT conditions with a guess of the active set.

    [ H    J' ] [ dx      ]      [ grad L ]        rows guessed active: lambda + rho c > 0
    [ J  -del ] [ dlambda ]  = - [   c    ]        variables guessed held: grad L pushes them beyond their bound

del > 0 shrinks with the residual (stabilized sequential quadratic programming, Wright 1998): steps stay defined where
rows repeat or depend on each other.  Axes: n variables, C rows, F free variables, A active rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from .problem._scaled_point import ScaledPoint
from .problem._scaled_problem import Floats, Mask, ScaledProblem


@dataclass(frozen=True)
class NewtonSettings:
    """Numbers of Newton's method; ``tests/solvers/minimization`` notices them by digits and by Hessians computed.

    Attributes:
        steps: Steps at most.
        patience: Steps without a better point: guesses may need some to settle.
        quadratic_patience: Factor on it where second derivatives do not change, since guesses then cost little.
        warm_row_weight: What a row's value weighs against a multiplier that was given.
        proximal: Shift of the Hessian that keeps a linear objective's steps short where its minimizer is not one point.
        rounding: Scaled residuals below are rounding.
        digits: Share of the tolerance that ends it at once where multipliers have settled as well.
        settled: Relative change of multipliers in a step that is their last one.
        least_damping: Least stabilization del.
        largest_damping: Largest one.
        damping_share: del as a share of the largest residual.
        binding: Value of a scaled row up to which it may bind.
    """

    steps: int = 30
    patience: int = 5
    quadratic_patience: int = 3
    warm_row_weight: float = 1e-3
    proximal: float = 1e-10
    rounding: float = 1e-14
    digits: float = 0.1
    settled: float = 1e-5
    least_damping: float = 1e-10
    largest_damping: float = 1e-6
    damping_share: float = 1e-3
    binding: float = 1e-4


SETTINGS = NewtonSettings()


@dataclass(frozen=True)
class KKTCandidate:
    """A point with its multipliers.

    Attributes:
        point: Where it is.
        lambda_C: Multipliers of the scaled rows, shape (C,).
        residual: Largest scaled residual.
        change: Relative change of the multipliers in the last step.
    """

    point: ScaledPoint
    lambda_C: Floats
    residual: float
    change: float = np.inf


def largest_residual(problem: ScaledProblem, point: ScaledPoint, lambda_C: Floats) -> float:
    """Return the largest of the scaled residuals; infinite for what is not finite."""
    if not point.finite or not np.isfinite(lambda_C).all():
        return np.inf
    return float(max(vars(problem.residuals(point, lambda_C, scaled=True)).values()))


def relative_change(after_C: Floats, before_C: Floats) -> float:
    """Return how much multipliers changed, in units of 1 + the largest of them."""
    return float(np.abs(after_C - before_C).max(initial=0.0)) / (1 + float(np.abs(after_C).max(initial=0.0)))


def refine_by_newton(
    problem: ScaledProblem, point: ScaledPoint, lambda_C: Floats, rho: float, tolerance: float, *, warm: bool = False
) -> KKTCandidate:
    """Return the best point that Newton steps reach from here, perhaps where they began.

    warm: the multipliers, more than the values of the rows, tell what binds.
    Raises RuntimeError if the functions cannot be differentiated twice.
    """
    best = KKTCandidate(point, lambda_C, largest_residual(problem, point, lambda_C))
    now, waited = best, 0
    for _ in range(SETTINGS.steps):
        new = _take_newton_step(problem, now, rho, SETTINGS.warm_row_weight * rho if warm else rho)
        if new is None:
            break
        # once within tolerance, go on to the last digit: it costs little, and shows whether multipliers settle
        waited = 0 if new.residual < 0.5 * best.residual else waited + 1
        if new.residual < best.residual or (new.residual <= tolerance and new.change < best.change):
            best = new
        patience = SETTINGS.patience * (SETTINGS.quadratic_patience if problem.second.quadratic else 1)
        if best.residual <= SETTINGS.digits * tolerance and best.change <= SETTINGS.settled:
            break
        if best.residual <= SETTINGS.rounding or waited >= (2 if best.residual <= tolerance else patience):
            break
        now = new
    return best


def _take_newton_step(problem: ScaledProblem, now: KKTCandidate, rho: float, row_rho: float) -> KKTCandidate | None:
    point, M = now.point, problem.M
    active_C = (np.arange(len(now.lambda_C)) >= M) | (now.lambda_C + row_rho * point.c_C > 0)
    lambda_C = np.where(active_C, now.lambda_C, 0.0)
    gradient_n = point.lagrangian_gradient(lambda_C)
    low_n = gradient_n > rho * (point.x_n - problem.lower_n)
    high_n = -gradient_n > rho * (problem.upper_n - point.x_n)
    step_n = np.where(low_n, problem.lower_n - point.x_n, np.where(high_n, problem.upper_n - point.x_n, 0.0))
    damping = SETTINGS.largest_damping
    if np.isfinite(now.residual):
        damping = min(damping, max(SETTINGS.least_damping, SETTINGS.damping_share * now.residual))
    hessian_nn = problem.second.hessian(point, lambda_C)
    solved = _solve_system(hessian_nn, point, gradient_n, active_C, ~(low_n | high_n), step_n, damping)
    if solved is None:
        return None
    step_n, lambda_C = solved[0], lambda_C + solved[1]
    lambda_C[:M] = lambda_C[:M].clip(min=0)
    new = problem.evaluate_within(point.x_n + step_n)
    if not new.finite:
        return None
    residual = largest_residual(problem, new, lambda_C)
    return KKTCandidate(new, lambda_C, residual, relative_change(lambda_C, now.lambda_C))


def _solve_system(
    hessian_nn: Floats,
    point: ScaledPoint,
    gradient_n: Floats,
    active_C: Mask,
    free_n: Mask,
    held_step_n: Floats,
    damping: float,
) -> tuple[Floats, Floats] | None:
    """Return the steps of x and of the multipliers, or None where the system is singular."""
    rows_An = point.jacobian_Cn[active_C]
    F, A = int(free_n.sum()), int(active_C.sum())
    system = np.zeros((F + A, F + A))
    system[:F, :F] = hessian_nn[np.ix_(free_n, free_n)] + SETTINGS.proximal * np.eye(F)
    system[F:, :F] = rows_An[:, free_n]
    system[:F, F:] = rows_An[:, free_n].T
    system[F:, F:] = -damping * np.eye(A)
    dual_A = point.c_C[active_C] + rows_An @ held_step_n
    right = np.concatenate([-(gradient_n + hessian_nn @ held_step_n)[free_n], -dual_A])
    try:
        answer = np.linalg.solve(system, right)
    except np.linalg.LinAlgError:
        return None
    if not np.isfinite(answer).all():
        return None
    step_n, lambda_step_C = held_step_n.copy(), np.zeros(len(active_C))
    step_n[free_n] = answer[:F]
    lambda_step_C[active_C] = answer[F:]
    return step_n, lambda_step_C


def estimate_multipliers(problem: ScaledProblem, point: ScaledPoint) -> Floats:
    """Return multipliers of the scaled rows that balance the objective best: non-negative least squares."""
    M = problem.M
    low_n, high_n = problem.on_bounds(point.x_n)
    binding_C = (np.arange(len(point.c_C)) >= M) | (point.c_C >= -SETTINGS.binding)
    eye_nn = np.eye(len(point.x_n))
    rows_An = np.concatenate([point.jacobian_Cn[binding_C], -point.jacobian_Cn[M:], -eye_nn[low_n], eye_nn[high_n]])
    lambda_C = np.zeros(len(point.c_C))
    if not len(rows_An):
        return lambda_C
    try:
        weights_A = nnls(rows_An.T, -point.gradient_n, maxiter=50 * len(rows_An))[0]
    except RuntimeError:
        return lambda_C
    bound = int(binding_C.sum())
    lambda_C[binding_C] = weights_A[:bound]
    lambda_C[M:] -= weights_A[bound : bound + len(lambda_C) - M]
    return lambda_C
