"""Problems without rows: Newton's method in a trust region, from the start, until a minimum is verified."""

from __future__ import annotations

import numpy as np

from .._degenerate import is_kink
from .._loop_settings import SETTINGS as OUTER
from .._newton_kkt import KKTCandidate, largest_residual
from .._outer_loop import OuterLoop
from ..problem._scaled_problem import Floats
from ._bounded_newton import SETTINGS, minimize_within_bounds, polish


def finish_within_bounds(loop: OuterLoop) -> bool:
    """Minimize where there are no rows, from several first radii; True if the search is over.

    False leaves problems with rows, large ones and kinks to the outer loop.
    """
    if len(loop.lambda_C) or len(loop.point.x_n) > SETTINGS.variables:
        return False
    problem, start_n = loop.problem, loop.point.x_n
    ends: list[tuple[float, Floats, float]] = []  # f in the user's units, x, what is hidden there
    flat: tuple[float, Floats, str, bool] | None = None
    for radius in SETTINGS.first_radii:
        if radius == SETTINGS.first_radii[-1]:  # no other way was better: on from the lowest end
            start_n = min(ends, key=lambda end: end[0])[1]
        loop.point, loop.hidden, loop.saddles, loop.status = problem.evaluate(start_n), 0.0, [], None
        try:
            settled = _descend_from(loop, radius)
            f = loop.point.f * problem.f_scale
            # a plateau or saddle that was not left may lie on one way only
            if settled and _is_on_plateau(loop):
                if flat is None or f < flat[0]:
                    flat = f, loop.point.x_n, loop.cause, loop.by_curvature
            elif settled and loop.status != "stationary_unverified":
                return True
        except RuntimeError:  # no second derivatives
            return False
        ends.append((f, loop.point.x_n, loop.hidden))
    if flat is not None:
        loop.point, loop.status = problem.evaluate(flat[1]), "converged"
        loop.cause, loop.by_curvature = flat[2:]
    if loop.status is not None:
        return True
    _, x_n, loop.hidden = min(ends, key=lambda end: end[0])
    loop.point = problem.evaluate(x_n)
    # smooth ones the outer loop would do worse
    return bool(loop.hidden) or not is_kink(problem, loop.point, loop.lambda_C, loop.rho)


def _is_on_plateau(loop: OuterLoop) -> bool:
    """Say whether f stopped depending on a variable that it curved with at the start; lower ground may lie elsewhere.

    Differences of gradients cost too much for that look.
    """
    problem = loop.problem
    if loop.status != "converged" or problem.by_differences:
        return False
    none_C = np.zeros(0)
    here_n, first_n = (np.abs(np.diag(problem.hessian(x_n, none_C))) for x_n in (loop.point.x_n, problem.start.x_n))
    return bool((here_n <= SETTINGS.plateau * first_n)[first_n > 0].any())


def _descend_from(loop: OuterLoop, radius: float) -> bool:
    """Descend from here, off saddles as well; True if it settled the status."""
    for _ in range(OUTER.escapes + OUTER.rescalings):
        result = minimize_within_bounds(loop.problem, loop.point, loop.tolerance, radius, loop.least_f)
        point = polish(loop.problem, result.point) if result.ended else result.point
        loop.point, loop.gap, loop.change = point, 0.0, 0.0
        loop.record(len(loop.rows))
        if result.unbounded:
            loop.handle_unbounded(result.point)
            if loop.status is not None:
                return True
            continue
        residual = largest_residual(loop.problem, loop.point, loop.lambda_C)
        if result.ended and loop.verify(KKTCandidate(loop.point, loop.lambda_C, residual, 0.0)):
            return True
        if loop.hidden or not result.ended:
            return False
    return False
