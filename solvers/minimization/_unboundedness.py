"""Does an objective fall without end, with every row met?  A low point is no proof: the way beyond it is looked at.

Axes: n variables, C rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._least_violation import SETTINGS as RESTORATION
from ._least_violation import restore_feasibility
from .problem._scaled_point import ScaledPoint
from .problem._scaled_problem import Floats, ScaledProblem


@dataclass(frozen=True)
class UnboundednessSettings:
    """What counts as a fall without end; ``test_minimize_unbounded.py`` notices them.

    Attributes:
        stretches: Factors on the way from the start to a low point, at which the objective falls on.
        growth: Power of the stretch with which the fall grows at least: a logarithm has no end either, but what slows
            down to nothing has one.
        kept: Share of a low, negative objective that is kept where rows are met again.
        hanging: Rounding of a row far out, in units of eps |J| |x|.
    """

    stretches: tuple[float, ...] = (10.0, 1e3, 1e6, 1e10)
    growth: float = 0.25
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
    for point in _feasible_points(problem, low):
        way_n = point.x_n - start.x_n
        fallen = start.f - point.f
        if point.f > SETTINGS.kept * low.f:
            continue  # what was low missed rows
        for stretch in SETTINGS.stretches:
            x_n = problem.clip(start.x_n + stretch * way_n)
            if np.array_equal(x_n, problem.clip(start.x_n + stretch / 10 * way_n)):
                break  # bounds end the way
            f, c_C = problem.evaluate_values(x_n)
            if f == -np.inf:
                return point
            if not _meets_rows(problem, point, x_n, c_C) or not start.f - f >= fallen * stretch**SETTINGS.growth:
                break
        else:
            return point
    return None


def _feasible_points(problem: ScaledProblem, low: ScaledPoint) -> list[ScaledPoint]:
    if _meets_rows(problem, low, low.x_n, low.c_C):
        return [low]
    with np.errstate(all="ignore"):
        try:
            near = restore_feasibility(problem, low)
        except np.linalg.LinAlgError:
            return []
    return [near] if _meets_rows(problem, near, near.x_n, near.c_C) else []


def _meets_rows(problem: ScaledProblem, point: ScaledPoint, x_n: Floats, c_C: Floats) -> bool:
    """Say whether rows are met in their own scale, to the rounding of what they are summed up from."""
    if not np.isfinite(c_C).all():
        return False
    rounding_C = SETTINGS.hanging * problem.functions.rounding * (np.abs(point.jacobian_Cn) @ np.abs(x_n))
    return bool((np.abs(problem.violations(c_C)) <= RESTORATION.feasible + rounding_C).all())
