"""What points of a frontier say of each other: dominated, duplicate, or with a multiplier that cannot be right.

The multiplier of ``constrained <= target`` is the trade-off, minus the directional derivative of the frontier:
``lambda = - d objective / d target``.  Between neighbors that derivative is the secant's, so lambda lies between the
secants to the left and to the right, whether the frontier bends up, down or has a kink.  Axes: N points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ContradictionSettings:
    """When a multiplier contradicts its neighbors.  tests/solvers/pareto/test_annotations.py would notice.

    Attributes:
        tolerance: The part of a secant that is granted: grids of 20 targets bend by less than this.
        same: Levels closer than this are one, in units of their range: what rounding leaves of equal targets.
        standard_errors: How many standard errors a secant may be off: three leave 1 of 400 points falsely flagged.
        flat: Changes of secants below this part of the tolerance make no inflection: rounding of a straight line.
        ahead: At an end the secant may go on changing as it did, for so much of a step: one behind, one to be safe.
    """

    tolerance: float = 0.05
    same: float = 1e-9
    standard_errors: float = 3.0
    flat: float = 0.2
    ahead: float = 2.0


def annotate_nondominated(points_N2: Floats, feasible_N: Mask, slack_2: Floats) -> Mask:
    """Say which points no feasible one beats by more than a slack without being worse.

    Args:
        points_N2: Two objectives to be minimized, shape (N, 2).
        feasible_N: Which points may stand on a frontier, bool (N,); points that are not finite never do.
        slack_2: Differences that count as none, in units of each objective, shape (2,).

    Returns:
        Whether each point is nondominated, bool (N,).
    """
    kept_N = feasible_N & np.isfinite(points_N2).all(axis=1)
    others_M2 = points_N2[kept_N]
    for i in np.flatnonzero(kept_N):
        no_worse_M = (others_M2 <= points_N2[i] + slack_2).all(axis=1)
        kept_N[i] = not (no_worse_M & (others_M2 < points_N2[i] - slack_2).any(axis=1)).any()
    return kept_N


def annotate_duplicates(points_N2: Floats, slack_2: Floats) -> Mask:
    """Say which points stand in an earlier row as well.

    Args:
        points_N2: Values of two objectives, shape (N, 2).
        slack_2: Differences that count as none, in units of each objective, shape (2,).

    Returns:
        Whether each point is a duplicate, bool (N,).
    """
    duplicate_N = np.zeros(len(points_N2), dtype=bool)
    for i in range(1, len(points_N2)):
        duplicate_N[i] = (np.abs(points_N2[:i] - points_N2[i]) <= slack_2).all(axis=1).any()
    return duplicate_N


def contradicts_neighbors(
    constrained_N: npt.ArrayLike,
    objective_N: npt.ArrayLike,
    multiplier_N: npt.ArrayLike,
    error_N: npt.ArrayLike | None = None,
    *,
    settings: ContradictionSettings = ContradictionSettings(),
) -> Mask:
    """Say which multipliers cannot be the trade-off that their neighbors on the frontier show.

    Where secants rise and fall (an inflection, a jump) what the secants farther out foretell is granted too.  At an end
    only one neighbor speaks: a trade-off that changes may grow there without limit, as that of a square root does at 0,
    or at the right end fall to nothing, but not turn back.  Negative multipliers are always flagged.

    Args:
        constrained_N: The objective that targets bound, to be minimized, in any order (of a safety to be maximized,
            hand in its negative), shape (N,).  A row whose values are not finite is never flagged and is no neighbor;
            leave out dominated points that way.
        objective_N: The other objective, to be minimized, shape (N,).
        multiplier_N: Objective a unit of constrained, shape (N,); inf where the frontier is vertical, NaN is never
            flagged.
        error_N: Standard errors of the objective, shape (N,), in its unit; some of them are granted.  None for none.
        settings: What is granted.

    Returns:
        Whether each multiplier is contradicted, bool (N,).

    Raises:
        InvalidInput: The columns differ in length.
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
    group_N, first_G = _group_levels(constrained[usable_N], settings.same)
    first_G = usable_N[first_G]
    secant_S, granted_S = _measure_secants(
        constrained[first_G], objective[first_G], np.nan_to_num(error[first_G]), settings
    )
    rough = float(np.abs(secant_S).max(initial=0.0)) * 1e-9
    flagged_N[usable_N] = False
    for i, g in zip(usable_N, group_N, strict=True):
        low, high = _bound_multiplier(secant_S, granted_S, int(g), settings)
        fits = max(min(low, high), 0.0) - rough <= multiplier[i] <= max(high, 0.0) + rough
        flagged_N[i] = not (fits or np.isnan(multiplier[i]))
    return flagged_N


def _group_levels(sorted_N: Floats, same: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the group of each value, equal ones in one, and the first (the lowest objective) of each group."""
    near = same * float(np.ptp(sorted_N))
    firsts = [0]
    for i in range(1, len(sorted_N)):
        if sorted_N[i] - sorted_N[firsts[-1]] > near:
            firsts.append(i)
    starts = np.array(firsts, dtype=np.intp)
    return np.searchsorted(starts, np.arange(len(sorted_N)), side="right") - 1, starts


def _measure_secants(
    constrained_G: Floats, objective_G: Floats, error_G: Floats, settings: ContradictionSettings
) -> tuple[Floats, Floats]:
    """Return minus the secants between neighbors, and what their standard errors grant each."""
    width_S = np.diff(constrained_G)
    spread_S = np.hypot(error_G[:-1], error_G[1:])
    return -np.diff(objective_G) / width_S, settings.standard_errors * spread_S / width_S


def _bound_multiplier(
    secant_S: Floats, granted_S: Floats, g: int, settings: ContradictionSettings
) -> tuple[float, float]:
    """Return between what the multiplier of group g must lie."""
    S = len(secant_S)
    left, right = (g - 1 if g > 0 else None), (g if g < S else None)
    if left is None and right is None:
        return 0.0, np.inf
    if left is None or right is None:
        return _bound_at_end(secant_S, granted_S, 0 if left is None else left, settings)
    around = secant_S[max(left - 1, 0) : right + 2]
    turns = np.diff(around)
    secants = [float(secant_S[left]), float(secant_S[right])]
    # rounding makes no inflection of a straight line
    small = settings.flat * settings.tolerance * max(abs(secants[0]), abs(secants[1]))
    if (turns > small).any() and (turns < -small).any():
        for i, j in ((left, left - 1), (right, right + 1)):
            if 0 <= j < S:
                secants.append(float(secant_S[i] + (secant_S[i] - secant_S[j]) / 2))
    slack = settings.tolerance * max(abs(secants[0]), abs(secants[1])) + float(max(granted_S[left], granted_S[right]))
    return min(secants) - slack, max(secants) + slack


def _bound_at_end(
    secant_S: Floats, granted_S: Floats, near: int, settings: ContradictionSettings
) -> tuple[float, float]:
    """Return the limits where only one secant, number ``near``, touches the point."""
    S = len(secant_S)
    if S == 1:
        return 0.0, np.inf
    beyond = 1 if near == 0 else S - 2
    change = float(secant_S[near] - secant_S[beyond])
    slack = settings.tolerance * abs(float(secant_S[near])) + float(
        granted_S[near] + settings.ahead * granted_S[beyond]
    )
    if change > slack:
        return float(secant_S[near]) - slack, np.inf
    if change < -slack and near > 0:
        return 0.0, float(secant_S[near]) + slack  # the same with the two objectives' parts exchanged
    return float(secant_S[near]) - slack - settings.ahead * max(-change, 0.0), float(secant_S[near]) + slack + max(
        change, 0.0
    )
