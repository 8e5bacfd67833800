"""Problems without rows: Newton's method in a trust region, from the start, until a minimum is verified."""

from __future__ import annotations

from .._degenerate import is_kink
from .._loop_settings import SETTINGS as OUTER
from .._newton_kkt import KKTCandidate, largest_residual
from .._outer_loop import OuterLoop
from ..problem._scaled_point import ScaledPoint
from ._bounded_newton import SETTINGS, minimize_within_bounds, polish


def finish_within_bounds(loop: OuterLoop) -> bool:
    """Minimize where there are no rows, from several first radii; True if the search is over.

    False leaves problems with rows, large ones and kinks to the outer loop.
    """
    if len(loop.lambda_C) or len(loop.point.x_n) > SETTINGS.variables:
        return False
    start_n = loop.point.x_n
    ends: list[tuple[ScaledPoint, float]] = []
    for radius in SETTINGS.first_radii:
        if radius == SETTINGS.first_radii[-1]:  # no other way was better: on from the lowest end
            start_n = min((end[0] for end in ends), key=lambda end: end.f).x_n
        loop.point, loop.hidden, loop.saddles, loop.status = loop.problem.evaluate(start_n), 0.0, [], None
        try:
            # a plateau or saddle that was not left may lie on one way only
            if _descend_from(loop, radius) and loop.status != "stationary_unverified":
                return True
        except RuntimeError:  # no second derivatives
            return False
        ends.append((loop.point, loop.hidden))
    if loop.status is not None:
        return True
    loop.point, loop.hidden = min(ends, key=lambda end: end[0].f)
    # smooth ones the outer loop would do worse
    return bool(loop.hidden) or not is_kink(loop.problem, loop.point, loop.lambda_C, loop.rho)


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
