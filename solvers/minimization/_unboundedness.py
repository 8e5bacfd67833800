"""Does an objective fall without end, with every row met?  A low point is no proof: the way beyond it is looked at.

Axes: n variables, C rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._least_violation import SETTINGS as RESTORATION
from ._least_violation import restore_feasibility
from .problem._scaled_point import ScaledPoint
from .problem._scaled_problem import ScaledProblem


@dataclass(frozen=True)
class UnboundednessSettings:
    """What counts as a fall without end; ``test_minimize_unbounded.py`` notices them.

    Attributes:
        stretches: Factors on the way from the start to a low point, one after the other; rows are met again at each.
        further: Factor by which the objective falls further from one to the next, at least.
        kept: Share of a low, negative objective that is kept where rows are met again.
        hanging: Rounding of a row far out, in units of eps |J| |x|.
    """

    stretches: tuple[float, ...] = (10.0, 1e3, 1e6)
    further: float = 1.7
    kept: float = 1e-3
    hanging: float = 100.0


SETTINGS = UnboundednessSettings()


def falls_without_end(problem: ScaledProblem, start: ScaledPoint, low: ScaledPoint) -> ScaledPoint | None:
    """Return a low point that meets the rows and beyond which the objective falls on; None if there is none to show.

    Args:
        problem: The problem.
        start: Where the search began.
        low: Where the objective is far down.
    """
    point = _meet_rows(problem, low)
    if point is None or point.f > SETTINGS.kept * low.f:
        return None  # what was low missed rows
    fallen, shown = start.f - point.f, point
    for stretch in SETTINGS.stretches:
        x_n = problem.clip(start.x_n + stretch * (shown.x_n - start.x_n))
        if np.array_equal(x_n, shown.x_n):
            return None  # bounds end the way
        f, c_C = problem.evaluate_values(x_n)
        if f == -np.inf and not len(c_C):
            return point
        beyond = problem.evaluate(x_n)
        further = _meet_rows(problem, beyond) if beyond.finite else None
        if further is None or not start.f - further.f >= fallen * SETTINGS.further:
            return None
        fallen, point = start.f - further.f, further
    return shown


def _meet_rows(problem: ScaledProblem, point: ScaledPoint) -> ScaledPoint | None:
    """Return the point if it meets the rows, else one nearby that does, None if there is none."""
    if not _meets_rows(problem, point):
        with np.errstate(all="ignore"):
            try:
                point = restore_feasibility(problem, point)
            except np.linalg.LinAlgError:
                return None
    return point if point.finite and _meets_rows(problem, point) else None


def _meets_rows(problem: ScaledProblem, point: ScaledPoint) -> bool:
    """Say whether rows are met in their own scale, to the rounding of what they are summed up from."""
    rounding_C = SETTINGS.hanging * problem.functions.rounding * (np.abs(point.jacobian_Cn) @ np.abs(point.x_n))
    return bool((np.abs(problem.violations(point.c_C)) <= RESTORATION.feasible + rounding_C).all())
