"""What neighbours on a frontier tell of each other: where it is open, and whether a multiplier can be right.

The multiplier of ``constrained <= target`` is minus the slope of the frontier: ``lambda = - d objective / d target``.
Between neighbours that slope is the secant's, so lambda lies between the secants to the left and to the right, whether
the frontier bends up, down or has a kink.  Axes: N points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_SAME = 1e-9  # values closer than this, in units of the range, are one
_SIGMAS = 3.0  # how many standard errors a secant may be off
_FLAT = 0.2  # changes below this part of the tolerance are none
_AHEAD = 2.0  # at an end the slope may go on changing as it did, so much of a step


def largest_gaps(points_N2: npt.ArrayLike, count: int, smallest: float) -> list[tuple[int, int]]:
    """Return the pairs of neighbours along a frontier that are farthest apart, the widest first.

    points_N2: objective values in any order, (N, 2); rows that are not finite are left out.  Each column is divided by
    its range, so units do not matter, and neighbours are those in the order of the first column (ties: the second).
    count: how many pairs at most.  smallest: only pairs farther apart than this; 1 is the length of one range.
    Returns indices into ``points_N2``, left neighbour first; of equally wide gaps the left one comes first.
    Raises InvalidInput for another shape.

    >>> largest_gaps([[0.0, 1.0], [1.0, 0.0], [0.2, 0.7]], 1, 0.05)
    [(2, 1)]
    """
    given_N2 = np.asarray(points_N2, dtype=np.float64)
    if given_N2.ndim != 2 or given_N2.shape[1] != 2:
        raise InvalidInput(f"`points_N2` has shape {given_N2.shape}; wanted (N, 2), two objectives a point.")
    kept_N = np.flatnonzero(np.isfinite(given_N2).all(axis=1))
    if len(kept_N) < 2:
        return []
    kept_N = kept_N[np.lexsort((given_N2[kept_N, 1], given_N2[kept_N, 0]))]
    width_2 = np.ptp(given_N2[kept_N], axis=0)
    scaled_N2 = given_N2[kept_N] / np.where(width_2 > 0, width_2, 1.0)
    apart_N = np.linalg.norm(np.diff(scaled_N2, axis=0), axis=1)
    order = np.argsort(-apart_N.round(12), kind="stable")[: max(count, 0)]
    return [(int(kept_N[i]), int(kept_N[i + 1])) for i in order if apart_N[i] > smallest]


def contradicts_slope(
    constrained_N: npt.ArrayLike,
    objective_N: npt.ArrayLike,
    multiplier_N: npt.ArrayLike,
    error_N: npt.ArrayLike | None = None,
    *,
    tolerance: float = 0.05,
) -> Mask:
    """Say which multipliers cannot be minus the slope of the frontier that their neighbours show, bool (N,).

    constrained_N, objective_N: both to be minimised, in any order (of a safety to be maximised, hand in its negative);
    multiplier_N: objective a unit of constrained; inf where the frontier is vertical, NaN is never flagged.  A row
    whose values are not finite is never flagged and is no neighbour; leave out dominated points that way.  error_N:
    standard errors of the objective; three of them are granted.  tolerance: the part of a slope that is granted too.

    Where slopes rise and fall (an inflection, a jump) what the slopes farther out foretell is granted too.  At an end
    only one neighbour speaks: a slope that changes may grow there without limit, as that of a square root does at 0,
    or at the right end fall to nothing, but not turn back.  Negative multipliers are always flagged.
    Raises InvalidInput for columns of different lengths.
    """
    columns = [np.asarray(column, dtype=np.float64).ravel() for column in (constrained_N, objective_N, multiplier_N)]
    N = len(columns[0])
    columns.append(np.zeros(N) if error_N is None else np.asarray(error_N, dtype=np.float64).ravel())
    if any(len(column) != N for column in columns):
        raise InvalidInput(f"The columns have {[len(column) for column in columns]} rows; wanted as many in each.")
    constrained, objective, multiplier, error = columns
    flagged_N = multiplier < 0
    usable_N = np.flatnonzero(np.isfinite(constrained) & np.isfinite(objective))
    if len(usable_N) == 0:
        return flagged_N
    usable_N = usable_N[np.lexsort((objective[usable_N], constrained[usable_N]))]
    place, groups = _places(constrained[usable_N])
    at_G = usable_N[groups]
    slope_S, granted_S = _secants(constrained[at_G], objective[at_G], np.nan_to_num(error[at_G]))
    rough = float(np.abs(slope_S).max(initial=0.0)) * 1e-9
    flagged_N[usable_N] = False
    for i, g in zip(usable_N, place, strict=True):
        low, high = _limits(slope_S, granted_S, int(g), tolerance)
        fits = max(min(low, high), 0.0) - rough <= multiplier[i] <= max(high, 0.0) + rough
        flagged_N[i] = not (fits or np.isnan(multiplier[i]))
    return flagged_N


def _places(sorted_N: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the group of each value, equal ones in one, and the first (the lowest objective) of each group."""
    near = _SAME * float(np.ptp(sorted_N))
    firsts = [0]
    for i in range(1, len(sorted_N)):
        if sorted_N[i] - sorted_N[firsts[-1]] > near:
            firsts.append(i)
    starts = np.array(firsts, dtype=np.intp)
    return np.searchsorted(starts, np.arange(len(sorted_N)), side="right") - 1, starts


def _secants(constrained_G: Floats, objective_G: Floats, error_G: Floats) -> tuple[Floats, Floats]:
    """Return minus the slopes between neighbours, and what their standard errors grant each."""
    width_S = np.diff(constrained_G)
    spread_S = np.hypot(error_G[:-1], error_G[1:])
    return -np.diff(objective_G) / width_S, _SIGMAS * spread_S / width_S


def _limits(slope_S: Sequence[float] | Floats, granted_S: Floats, g: int, tolerance: float) -> tuple[float, float]:
    """Return between what the multiplier of group g must lie."""
    S = len(slope_S)
    left, right = (g - 1 if g > 0 else None), (g if g < S else None)
    if left is None and right is None:
        return 0.0, np.inf
    if left is None or right is None:
        return _at_end(slope_S, granted_S, 0 if left is None else left, tolerance)
    around = slope_S[max(left - 1, 0) : right + 2]
    turns = np.diff(around)
    seen = [float(slope_S[left]), float(slope_S[right])]
    small = _FLAT * tolerance * max(abs(seen[0]), abs(seen[1]))  # rounding makes no inflection of a straight line
    if (turns > small).any() and (turns < -small).any():
        seen += [float(slope_S[i] + (slope_S[i] - slope_S[j]) / 2) for i, j in ((left, left - 1), (right, right + 1))
                 if 0 <= j < S]  # fmt: skip
    slack = tolerance * max(abs(seen[0]), abs(seen[1])) + float(max(granted_S[left], granted_S[right]))
    return min(seen) - slack, max(seen) + slack


def _at_end(slope_S: Sequence[float] | Floats, granted_S: Floats, near: int, tolerance: float) -> tuple[float, float]:
    """Return the limits where only one secant, number ``near``, touches the point."""
    S = len(slope_S)
    if S == 1:
        return 0.0, np.inf
    beyond = 1 if near == 0 else S - 2
    change = float(slope_S[near] - slope_S[beyond])
    slack = tolerance * abs(float(slope_S[near])) + float(granted_S[near] + _AHEAD * granted_S[beyond])
    if change > slack:
        return float(slope_S[near]) - slack, np.inf
    if change < -slack and near > 0:
        return 0.0, float(slope_S[near]) + slack  # the same with the two objectives' parts exchanged
    return float(slope_S[near]) - slack - _AHEAD * max(-change, 0.0), float(slope_S[near]) + slack + max(change, 0.0)
