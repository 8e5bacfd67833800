"""What every sweep over a frontier decides in the same way, whoever solves its points.

    spread_targets            where the targets lie
    RunBudget                 how many solves are left
    measure_extrapolation     how far a warm start goes along the line through two points
    list_largest_gaps              between which neighbors the rest of the budget goes
    explain_fall              whether the multipliers at its ends explain a gap, and so whether a pass back may gain
    is_better, Standing       which of two points answers a target
    find_balancing_weight     the weight that looks into a jump of a weighted sum; if it finds nothing, no weight does
    lies_inside               whether a point closes a gap, or lies at one of its ends

Both objectives are to be minimized: ``constrained`` is what targets bound, ``objective`` what is least at each target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput


class BudgetSpent(Exception):
    """No solve is left."""


@dataclass
class RunBudget:
    """How many solves, or training runs, may be spent, and how many were.

    Attributes:
        limit: Runs at most.
        spent: Runs so far.
    """

    limit: int
    spent: int = 0

    @property
    def left(self) -> int:
        """Runs that may still be spent, at least 0."""
        return max(self.limit - self.spent, 0)

    def spend(self) -> None:
        """Count one run.  Raises BudgetSpent where none is left."""
        if self.left == 0:
            raise BudgetSpent
        self.spent += 1


def spread_targets(lowest: float, highest: float, count: int) -> list[float]:
    """Return evenly spread targets, both ends included to the last bit.

    Args:
        lowest: First target, in units of ``constrained``.
        highest: Last target, in the same units.
        count: How many, at least 2.

    Returns:
        The targets, ascending.
    """
    targets = np.linspace(lowest, highest, count)
    targets[0], targets[-1] = lowest, highest
    values: list[float] = targets.tolist()
    return values


def measure_extrapolation(before: float, last: float, target: float) -> float:
    """Return which part of the step from ``before`` to ``last`` leads on from ``last`` to ``target``.

    Points of neighboring targets lie on a smooth path; a warm start goes so far along the line through the last two.

    Args:
        before: Level of the point before the last.
        last: Level of the last point.
        target: Level that is asked for next.

    Returns:
        The part, without unit; infinite where the two levels are one.
    """
    step = last - before
    return (target - last) / step if step else math.inf


def list_largest_gaps(
    points_N2: npt.ArrayLike, count: int, smallest: float, ranges: Sequence[float] | None = None
) -> list[tuple[int, int]]:
    """Return the pairs of neighbors along a frontier that are farthest apart, the widest first.

    Neighbors are those in the order of the first column (ties: the second).

    Args:
        points_N2: Values of two objectives in any order, shape (N, 2); rows that are not finite are left out.
        count: How many pairs at most.
        smallest: Only pairs farther apart than this; 1 is the length of one range.
        ranges: What each column is divided by, so that units do not matter; None for the range of its values.

    Returns:
        Pairs of indices into ``points_N2``, the left neighbor first; of equally wide gaps the left one comes first.

    Raises:
        InvalidInput: The points have another shape.

    >>> list_largest_gaps([[0.0, 1.0], [1.0, 0.0], [0.2, 0.7]], 1, 0.05)
    [(2, 1)]
    """
    given_N2 = np.asarray(points_N2, dtype=np.float64)
    if given_N2.ndim != 2 or given_N2.shape[1] != 2:
        raise InvalidInput(f"`points_N2` has shape {given_N2.shape}; wanted (N, 2), two objectives a point.")
    kept_N = np.flatnonzero(np.isfinite(given_N2).all(axis=1))
    if len(kept_N) < 2:
        return []
    kept_N = kept_N[np.lexsort((given_N2[kept_N, 1], given_N2[kept_N, 0]))]
    width_2 = np.ptp(given_N2[kept_N], axis=0) if ranges is None else np.asarray(ranges, dtype=np.float64)
    step_N2 = np.diff(given_N2[kept_N], axis=0) / np.where(width_2 > 0, width_2, 1.0)
    distance_N = np.hypot(step_N2[:, 0], step_N2[:, 1])
    order = np.argsort(-distance_N.round(12), kind="stable")[: max(count, 0)]
    return [(int(kept_N[i]), int(kept_N[i + 1])) for i in order if distance_N[i] > smallest]


def explain_fall(
    step: float, multipliers: tuple[float, float], *, relative: float, absolute: float
) -> tuple[float, float]:
    """Return between what the objective falls over a step if the multipliers at both its ends are right.

    Along one branch of a frontier the secant lies between the multipliers at its ends.  A larger fall hides points
    between them, or shows a better branch; a smaller one says that the branch of the tight end passes below the loose.

    Args:
        step: From the tight end to the loose one, in units of ``constrained``, above 0.
        multipliers: Those of both ends, objective a unit of constrained; may be infinite.
        relative: The part of a multiplier that is granted.
        absolute: What is granted besides, in units of the objective.

    Returns:
        The least and the largest fall, in units of the objective.
    """
    low, high = min(multipliers), max(multipliers)
    return (1 - relative) * low * step - absolute, (1 + relative) * high * step + absolute


@dataclass(frozen=True)
class Standing:
    """How a point stands as the answer to one target.

    Attributes:
        objective: Its objective, to be minimized.
        violation: The largest violation, target included; in units of the rows.
        feasible: Whether that counts as met.
        converged: Whether its residuals speak for it.
    """

    objective: float
    violation: float
    feasible: bool
    converged: bool = True


def is_better(new: Standing, old: Standing, slack: float = 0.0) -> bool:
    """Say whether a point answers a target better than another: feasible first, then the lower objective.

    Args:
        new: The point that may take the place.
        old: The point that has it.
        slack: Objectives that differ by no more count as equal; then the converged one is better.

    Returns:
        Whether ``new`` is to replace ``old``.
    """
    if new.feasible != old.feasible:
        return new.feasible
    if not new.feasible:
        return new.violation < old.violation
    if abs(new.objective - old.objective) > slack:
        return new.objective < old.objective
    return new.converged and not old.converged


def find_balancing_weight(left: tuple[float, float], right: tuple[float, float]) -> float:
    """Return the weight mu at which ``objective + mu constrained`` is the same at both ends of a jump.

    It is the trade-off along the chord.  A point below the chord, if there is one, is worth less at this weight, so one
    solve that finds nothing lower settles the matter: what lies between is concave, straight or missing.

    Args:
        left: (constrained, objective) at the end of lower ``constrained``.
        right: The same at the other end.

    Returns:
        The weight, objective a unit of constrained.

    Source: Cohon 1978; Aneja and Nair 1979.
    """
    return (left[1] - right[1]) / (right[0] - left[0])


def lies_inside(value: float, left: float, right: float, margin: float) -> bool:
    """Say whether a value lies between two others, farther from each than a part of their distance.

    Args:
        value: Level of a point.
        left: Level of the lower end of a gap.
        right: Level of its upper end.
        margin: The part of the gap next to each end that counts as that end, from 0 to below 0.5.

    Returns:
        Whether the point closes the gap.
    """
    room = margin * (right - left)
    return left + room < value < right - room
