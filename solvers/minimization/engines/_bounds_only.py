"""Problems without rows: Newton's method in a trust region, from the start, until a minimum is verified."""

from __future__ import annotations

from .._loop_settings import SETTINGS as OUTER
from .._newton_kkt import KKTCandidate, largest_residual
from .._outer_loop import OuterLoop
from ._bounded_newton import SETTINGS, minimize_within_bounds, polish


def finish_within_bounds(loop: OuterLoop) -> bool:
    """Minimize where there are no rows, from several first radii; True if the search is over.

    False leaves the lowest point to the outer loop.
    """
    if len(loop.lambda_C) or len(loop.point.x_n) > SETTINGS.variables:
        return False
    start_n, ends = loop.point.x_n, []
    for radius in SETTINGS.first_radii:
        loop.point, loop.hidden, loop.saddles = loop.problem.evaluate(start_n), 0.0, []
        try:
            if _descend_from(loop, radius):
                return True
        except RuntimeError:  # no second derivatives
            return False
        ends.append((loop.point, loop.hidden))
    loop.point, loop.hidden = min(ends, key=lambda end: end[0].f)
    return bool(loop.hidden)


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
