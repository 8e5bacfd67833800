"""Sequential quadratic programming (scipy's SLSQP) on the scaled problem, for few variables and rows: a cheap way near.

Its end is a candidate: multipliers come from the gradients there, by non-negative least squares, Newton's method adds
the last digits, and the verdict is that of every other point.  Where it leads nowhere, the outer loop begins anew.
Source: Kraft 1988.  Axes: n variables, C rows, M inequalities first, A rows that bind.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, minimize

from .._newton_kkt import KKTCandidate, estimate_multipliers, largest_residual
from .._outer_loop import OuterLoop
from ..problem._scaled_point import ScaledPoint
from ..problem._scaled_problem import Floats, ScaledProblem


@dataclass(frozen=True)
class SequentialQuadraticSettings:
    """Numbers of the run; ``benchmarks.minimize`` notices them by evaluations.

    Attributes:
        variables: Variables up to which its dense least squares cost little.
        rows: Rows up to which they do.
        steps: Steps at most.
        accuracy: Of objective and rows, scaled, where Newton's method adds the digits.
        accuracy_alone: Where nothing does.
        near: Violation of scaled rows from which Newton's method is tried.
        on_bound: Distance from a bound, in units of 1 + |x|, that is rounding.
        promising: Scaled residual from which the outer loop goes on, instead of from the start.
    """

    variables: int = 100
    rows: int = 200
    steps: int = 200
    accuracy: float = 1e-7
    accuracy_alone: float = 1e-14
    near: float = 1e-3
    on_bound: float = 1e-9
    promising: float = 1e-2


SETTINGS = SequentialQuadraticSettings()


class _NotFiniteAnywhere(Exception):
    """Stops a run at numbers that are not finite."""


def finish_by_sequential_quadratic(loop: OuterLoop) -> bool:
    """Minimize with rows, from the start; True if that settled the status, else the loop is where it was, or nearer."""
    problem, start = loop.problem, loop.point
    C, n = len(loop.lambda_C), len(start.x_n)
    if not C or n > SETTINGS.variables or SETTINGS.rows < C:
        return False
    end = _run(problem, start)
    if end is None or problem.largest_violation(end) > SETTINGS.near:
        return False
    before = start, loop.lambda_C
    loop.point, loop.lambda_C = end, estimate_multipliers(problem, end)
    residual = largest_residual(problem, end, loop.lambda_C)
    loop.change, loop.gap = 0.0, math.inf
    if residual <= loop.tolerance and not problem.has_second_derivatives:
        settled = loop.verify(KKTCandidate(end, loop.lambda_C, residual, 0.0))
    else:
        settled = loop.finish_by_newton(warm=True)
    loop.record(0)
    if not settled and not loop.saddles:
        loop.near = residual <= SETTINGS.promising  # from there the rest is a matter of digits
        if not loop.near:
            loop.point, loop.lambda_C = before
    return settled


def _run(problem: ScaledProblem, start: ScaledPoint) -> ScaledPoint | None:
    """Return where SLSQP ends, None where it meets numbers that are not finite."""
    M, C, last = problem.M, len(problem.c_scale_C), start

    def at(x_n: Floats) -> ScaledPoint:
        nonlocal last
        if not np.array_equal(x_n, last.x_n):
            new = problem.evaluate_within(x_n)
            if not new.finite:
                raise _NotFiniteAnywhere
            last = new
        return last

    rows = [
        {
            "type": kind,
            "fun": lambda x, i=part, s=sign: s * at(x).c_C[i],
            "jac": lambda x, i=part, s=sign: s * at(x).jacobian_Cn[i],
        }
        for kind, part, sign in (("ineq", slice(0, M), -1.0), ("eq", slice(M, C), 1.0))
        if part.stop > part.start
    ]
    accuracy = SETTINGS.accuracy if problem.has_second_derivatives else SETTINGS.accuracy_alone
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            answer = minimize(
                lambda x: at(x).f,
                start.x_n,
                jac=lambda x: at(x).gradient_n,
                method="SLSQP",
                bounds=Bounds(problem.lower_n, problem.upper_n),
                constraints=rows,
                options={"maxiter": SETTINGS.steps, "ftol": accuracy},
            )
    except _NotFiniteAnywhere:
        return None
    if not np.isfinite(answer.x).all():
        return None
    x_n, unit_n = np.asarray(answer.x, dtype=np.float64), SETTINGS.on_bound * (1 + np.abs(answer.x))
    x_n = np.where(x_n - problem.lower_n <= unit_n, problem.lower_n, x_n)
    try:
        return at(np.where(problem.upper_n - x_n <= unit_n, problem.upper_n, x_n))
    except _NotFiniteAnywhere:
        return None
