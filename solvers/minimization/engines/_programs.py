"""Linear and convex quadratic programs: recognized, and handed to solvers made for them.

Rows whose gradients are the same at several points count as affine, an objective whose gradient moves as its Hessian
says as quadratic.  HiGHS solves linear programs; of quadratic ones Newton's method guesses the active set, else
Clarabel finds it.  Their answers are candidates: the verdict is that of every other point.
Axes: n variables, C rows, M inequalities first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cholesky
from scipy.optimize import linprog

from .._newton_kkt import KKTCandidate, largest_residual, refine_by_newton
from .._outer_loop import OuterLoop
from ..problem._scaled_point import ScaledPoint
from ..problem._scaled_problem import Floats, ScaledProblem


@dataclass(frozen=True)
class ProgramSettings:
    """When a problem counts as a program; ``test_minimize_programs.py`` and ``benchmarks.minimize`` notice them.

    Attributes:
        radii: Distances of the points that are compared, in units of 1 + |x|.
        same: Share of the largest entry by which gradients that are the same may differ.
        variables: Variables up to which a quadratic program is handed over.
        convex: Shift, in units of the largest second derivative, that makes a convex Hessian positive definite.
    """

    radii: tuple[float, ...] = (0.7, 20.0)
    same: float = 1e-9
    variables: int = 1000
    convex: float = 1e-10


SETTINGS = ProgramSettings()
_UNBOUNDED = 3  # status of scipy's linprog


def finish_program(loop: OuterLoop) -> bool:
    """Solve the problem if it is a linear or a convex quadratic program; True if that settled the status."""
    problem, start = loop.problem, loop.point
    if not len(loop.lambda_C):
        return False
    others = _look_around(problem, start)
    if others is None:
        return False
    if all(_same(start.gradient_n, other.gradient_n) for other in others):
        return _solve_linear(loop, start)
    if len(start.x_n) > SETTINGS.variables or not problem.has_second_derivatives:
        return False
    try:
        hessian_nn = problem.second.hessian(start, loop.lambda_C)
        if not all(_moves_as(hessian_nn, start, other) for other in others) or not _is_convex(hessian_nn):
            return False
        if loop.finish_by_newton():
            loop.record(0)
            return True
    except RuntimeError:
        return False
    if loop.saddles:
        return False
    loop.point, loop.lambda_C = start, np.zeros_like(loop.lambda_C)
    solved = _solve_quadratic(problem, start, hessian_nn)
    return solved is not None and _settle(loop, *solved)


def _look_around(problem: ScaledProblem, start: ScaledPoint) -> list[ScaledPoint] | None:
    """Return points at which the rows have the gradients of the start; None if they have others."""
    draw, points = np.random.default_rng(0), []
    if problem.near is not None and not _same(start.jacobian_Cn, problem.near.jacobian_Cn):
        return None
    for radius in SETTINGS.radii:
        other = problem.evaluate_within(
            start.x_n + radius * (1 + np.abs(start.x_n)) * draw.uniform(-1, 1, len(start.x_n))
        )
        if not other.finite or not _same(start.jacobian_Cn, other.jacobian_Cn):
            return None
        points.append(other)
    return points


def _same(one: Floats, other: Floats) -> bool:
    return float(np.abs(one - other).max(initial=0.0)) <= SETTINGS.same * float(np.abs(one).max(initial=0.0))


def _moves_as(hessian_nn: Floats, start: ScaledPoint, other: ScaledPoint) -> bool:
    """Say whether the gradient moved as second derivatives say."""
    change_n = other.gradient_n - start.gradient_n
    error = float(np.abs(change_n - hessian_nn @ (other.x_n - start.x_n)).max())
    return error <= 1e-7 * float(np.abs(change_n).max())


def _is_convex(hessian_nn: Floats) -> bool:
    try:
        cholesky(hessian_nn + SETTINGS.convex * float(np.abs(hessian_nn).max()) * np.eye(len(hessian_nn)))
    except LinAlgError:
        return False
    return True


def _solve_linear(loop: OuterLoop, start: ScaledPoint) -> bool:
    """Settle the status by what HiGHS answers, if it does: a minimum, or a way down without end."""
    problem, M, J_Cn = loop.problem, loop.problem.M, start.jacobian_Cn
    bounds = np.stack([problem.lower_n, problem.upper_n], axis=1)
    answer = _run_highs(start.gradient_n, J_Cn, J_Cn @ start.x_n - start.c_C, M, bounds)
    if answer.status == _UNBOUNDED:
        reachable = np.where(np.isfinite(bounds), 0.0, np.array([-1.0, 1.0]))
        way = _run_highs(start.gradient_n, J_Cn, np.zeros(len(J_Cn)), M, reachable)
        inside = _run_highs(np.zeros_like(start.x_n), J_Cn, J_Cn @ start.x_n - start.c_C, M, bounds)
        if way.status == 0 and inside.status == 0 and way.fun < 0:
            loop.handle_unbounded(problem.evaluate_within(inside.x + 2 * loop.least_f / way.fun * way.x))
        loop.record(0)
        return loop.status is not None
    if answer.status != 0:
        return False
    marginals = [part for part, rows in ((answer.ineqlin, M), (answer.eqlin, len(J_Cn) - M)) if rows]
    lambda_C = -np.concatenate([part.marginals for part in marginals])
    lambda_C[:M] = lambda_C[:M].clip(min=0)
    return _settle(loop, problem.evaluate_within(answer.x), lambda_C)


def _run_highs(gradient_n: Floats, rows_Cn: Floats, right_C: Floats, M: int, bounds: Floats) -> Any:
    equalities = len(rows_Cn) > M
    return linprog(
        gradient_n,
        A_ub=rows_Cn[:M] if M else None,
        b_ub=right_C[:M] if M else None,
        A_eq=rows_Cn[M:] if equalities else None,
        b_eq=right_C[M:] if equalities else None,
        bounds=bounds,
        method="highs",
    )


def _solve_quadratic(
    problem: ScaledProblem, start: ScaledPoint, hessian_nn: Floats
) -> tuple[ScaledPoint, Floats] | None:
    """Return the answer of Clarabel and its multipliers; None where it has none."""
    import cvxpy as cp  # it takes a second, and most problems need none of it

    M, J_Cn = problem.M, start.jacobian_Cn
    step_n = cp.Variable(len(start.x_n))
    rows: list[Any] = [J_Cn[:M] @ step_n + start.c_C[:M] <= 0] if M else []
    rows += [J_Cn[M:] @ step_n + start.c_C[M:] == 0] if len(J_Cn) > M else []
    low_n, high_n = np.isfinite(problem.lower_n), np.isfinite(problem.upper_n)
    room_low_n, room_high_n = problem.lower_n - start.x_n, problem.upper_n - start.x_n
    within: list[Any] = [step_n[low_n] >= room_low_n[low_n]] if low_n.any() else []
    within += [step_n[high_n] <= room_high_n[high_n]] if high_n.any() else []
    objective = start.gradient_n @ step_n + cp.quad_form(step_n, cp.psd_wrap(hessian_nn)) / 2  # type: ignore[attr-defined]
    program = cp.Problem(cp.Minimize(objective), [*rows, *within])
    try:
        program.solve(solver=cp.CLARABEL)  # type: ignore[no-untyped-call]
    except (cp.error.SolverError, ArithmeticError, ValueError):
        return None
    if program.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or step_n.value is None:
        return None
    lambda_C = np.concatenate([np.asarray(row.dual_value, dtype=float).reshape(-1) for row in rows])
    lambda_C[:M] = lambda_C[:M].clip(min=0)
    return problem.evaluate_within(start.x_n + step_n.value), lambda_C


def _settle(loop: OuterLoop, point: ScaledPoint, lambda_C: Floats) -> bool:
    """Refine an answer by Newton's method, and verify it; True if that settled the status, else back to the start."""
    problem, before = loop.problem, (loop.point, loop.lambda_C)
    candidate = KKTCandidate(point, lambda_C, largest_residual(problem, point, lambda_C), 0.0)
    if candidate.residual > loop.tolerance and problem.has_second_derivatives:
        try:
            candidate = refine_by_newton(problem, point, lambda_C, loop.rho, loop.tolerance, warm=True)
        except RuntimeError:
            return False
    loop.point, loop.lambda_C, loop.change, loop.gap = candidate.point, candidate.lambda_C, candidate.change, math.inf
    settled = candidate.residual <= loop.tolerance and loop.verify(candidate)
    loop.record(0)
    if not settled:
        loop.point, loop.lambda_C = before
    return settled
