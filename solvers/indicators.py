"""How good a set of points is where every objective is to be minimized.

Points are rows, (N, D): N points, also none, and D objectives, at least one.  An objective that is to be large goes
in with its sign turned.  Nothing is scaled but where it is said: distances mix the units that the columns have.
Dominance, hypervolume, IGD+ and the additive epsilon are computed by moocore (Lopez-Ibanez and others), which is
imported when first used; the rest follows its definition.  Axes: N points, D objectives, M points of another set,
R runs, G places, Q shares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InvalidInput

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_MOST_OBJECTIVES = 31  # what moocore computes a hypervolume of


@dataclass(frozen=True)
class KneeSettings:
    """When a front bends.  tests/solvers/pareto/test_indicators.py would notice.

    Attributes:
        straight: A front that bends by less than this part of its range has no knee: rounding of a straight one.
    """

    straight: float = 1e-9


def nondominated(points: npt.ArrayLike) -> Mask:
    """Say which points no other point dominates.

    A point is dominated by one that is nowhere larger and somewhere smaller.

    Args:
        points: Points, shape (N, D), all objectives to be minimized.

    Returns:
        Whether each point is nondominated, bool (N,); of equal points the first.

    >>> nondominated([[0.0, 1.0], [0.5, 0.5], [0.6, 0.5], [0.5, 0.5]]).tolist()
    [True, True, False, False]
    """
    x_ND = _check_points(points, "points")
    if len(x_ND) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(_import_moocore().is_nondominated(x_ND), dtype=bool)


def hypervolume(points: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Return the volume between points and a reference: all that some point dominates and that dominates the reference.

    Points that are not below the reference in every objective add nothing, so the wrong reference gives 0.

    Args:
        points: Points, shape (N, D), all objectives to be minimized.
        reference: The worst corner, shape (D,), in the same units.

    Returns:
        The volume, in the product of the units.

    Raises:
        InvalidInput: More objectives than 31, or what is no finite number.

    Source: Zitzler and Thiele 1999.

    >>> hypervolume([[0.25, 0.5], [0.5, 0.25]], reference=[1.0, 1.0])
    0.5
    """
    corner_D = _check_row(reference, "reference")
    x_ND = _check_points(points, "points", len(corner_D))
    if len(corner_D) > _MOST_OBJECTIVES:
        raise InvalidInput(f"`points` has {len(corner_D)} objectives; wanted at most {_MOST_OBJECTIVES}.")
    inside_ND = x_ND[(x_ND < corner_D).all(axis=1)]
    return float(_import_moocore().hypervolume(inside_ND, ref=corner_D)) if len(inside_ND) else 0.0


def igd_plus(points: npt.ArrayLike, exact: npt.ArrayLike) -> float:
    """Return how far, on average, the exact points are from being matched: 0 where each is matched or dominated.

    The distance from an exact point z is the least ``|max(x - z, 0)|`` over the points x, so that being better costs
    nothing.

    Args:
        points: Points x, shape (N, D), all objectives to be minimized.
        exact: Points z of an exact front, shape (M, D).

    Returns:
        The mean distance, in the units of the objectives; infinite where there are no points.

    Source: Ishibuchi, Masuda, Tanigaki and Nojima 2015.

    >>> igd_plus([[0.0, 1.5], [1.0, -1.0]], exact=[[0.0, 1.0], [1.0, 0.0]])
    0.25
    """
    x_ND, z_MD = _check_two_sets(points, exact)
    return float(_import_moocore().igd_plus(x_ND, ref=z_MD)) if len(x_ND) else math.inf


def additive_epsilon(points: npt.ArrayLike, exact: npt.ArrayLike) -> float:
    """Return the least e such that every exact point is matched or dominated by some point lowered by e.

    Args:
        points: Points, shape (N, D), all objectives to be minimized.
        exact: Points of an exact front, shape (M, D).

    Returns:
        e, in the units of the objectives; negative where every exact point is dominated in all objectives; infinite
        where there are no points.

    Source: Zitzler, Thiele, Laumanns, Fonseca and Grunert da Fonseca 2003.

    >>> additive_epsilon([[0.0, 1.5], [1.0, -1.0]], exact=[[0.0, 1.0], [1.0, 0.0]])
    0.5
    """
    x_ND, z_MD = _check_two_sets(points, exact)
    return float(_import_moocore().epsilon_additive(x_ND, ref=z_MD)) if len(x_ND) else math.inf


def knee(points: npt.ArrayLike) -> int | None:
    """Return the row where a front bends most: beyond it, a little of one objective costs much of the other.

    Dominated points are left out and both objectives are scaled to [0, 1] over the rest.  The knee is then the point
    farthest below the chord between the two ends; of several the first.

    Args:
        points: Points, shape (N, 2), both objectives to be minimized.

    Returns:
        The row, or None where no point lies below the chord: a straight front, one that bends outward everywhere, fewer
        than three points.

    Source: Das 1999.

    >>> knee([[0.0, 1.0], [0.2, 0.3], [1.0, 0.0]])
    1
    """
    x_N2 = _check_points(points, "points", 2)
    best_M = np.flatnonzero(nondominated(x_N2))
    if len(best_M) < 3:
        return None
    scaled_M2 = (x_N2[best_M] - x_N2[best_M].min(axis=0)) / np.ptp(x_N2[best_M], axis=0)
    below_M = 1.0 - scaled_M2.sum(axis=1)  # the chord runs from (0, 1) to (1, 0)
    place = int(np.argmax(below_M))
    return int(best_M[place]) if below_M[place] > KneeSettings().straight else None


def attained_share(runs: Sequence[npt.ArrayLike], at: npt.ArrayLike) -> Floats:
    """Return the share of runs that match or dominate each of some points: the empirical attainment function.

    Args:
        runs: Sets of points, each of shape (N, D), all objectives to be minimized.
        at: The points to be attained, shape (M, D).

    Returns:
        The share for each of them, in [0, 1], shape (M,).

    Source: Grunert da Fonseca, Fonseca and Hall 2001.

    >>> attained_share([[[0.0, 1.0]], [[0.5, 0.5], [0.0, 2.0]]], at=[[0.5, 1.0], [0.5, 0.5]]).tolist()
    [1.0, 0.5]
    """
    z_MD = _check_points(at, "at")
    met_RM = [
        (_check_points(run, f"runs[{r}]", z_MD.shape[1])[:, None] <= z_MD).all(-1).any(0)
        for r, run in _number_runs(runs)
    ]
    share_M: Floats = np.mean(met_RM, axis=0, dtype=np.float64)
    return share_M


def attainment(runs: Sequence[npt.ArrayLike], at: npt.ArrayLike, shares: npt.ArrayLike) -> Floats:
    """Return which second objective is reached, at first objectives up to some levels, by each share of runs.

    Args:
        runs: Sets of points, each of shape (N, 2), both objectives to be minimized.
        at: Levels of the first objective, shape (G,).
        shares: Shares of the runs, above 0 and at most 1, shape (Q,).

    Returns:
        Shape (G, Q): entry (g, q) is the least y such that at least the share q of the runs holds a point with first
        objective <= at[g] and second <= y; infinite where too few runs do.

    Raises:
        InvalidInput: A share is out of range, or a set is none.

    >>> attainment([[[0.0, 3.0]], [[0.0, 1.0]], [[1.0, 0.0]]], at=[0.0, 1.0], shares=[0.5, 1.0]).tolist()
    [[3.0, inf], [1.0, 3.0]]
    """
    at_G, share_Q = _check_row(at, "at"), _check_row(shares, "shares")
    if not ((share_Q > 0) & (share_Q <= 1)).all():
        raise InvalidInput(f"`shares` is {share_Q.tolist()}; wanted shares of the runs, above 0 and at most 1.")
    sets = [_check_points(run, f"runs[{r}]", 2) for r, run in _number_runs(runs)]
    least_GR = np.array(
        [[x_N2[x_N2[:, 0] <= limit, 1].min(initial=math.inf) for x_N2 in sets] for limit in at_G]
    ).reshape(len(at_G), len(sets))
    # the share 0.7 of 10 runs is 7 of them, though 0.7 * 10 rounds above 7
    count_Q = np.ceil(share_Q * len(sets) * (1 - 1e-12)).astype(int)
    reached_GQ: Floats = np.sort(least_GR, axis=1)[:, count_Q - 1]
    return reached_GQ


def _import_moocore() -> Any:
    import moocore  # a tenth of a second that not every user of solvers needs to wait

    return moocore


def _number_runs(runs: Sequence[npt.ArrayLike]) -> Sequence[tuple[int, npt.ArrayLike]]:
    if len(runs) == 0:
        raise InvalidInput("`runs` is empty; wanted at least one set of points.")
    return list(enumerate(runs))


def _check_two_sets(points: npt.ArrayLike, exact: npt.ArrayLike) -> tuple[Floats, Floats]:
    z_MD = _check_points(exact, "exact")
    if len(z_MD) == 0:
        raise InvalidInput("`exact` is empty; wanted at least one point to compare with.")
    return _check_points(points, "points", z_MD.shape[1]), z_MD


def _check_points(points: npt.ArrayLike, name: str, columns: int | None = None) -> Floats:
    """Return points as float64, (N, D), finite."""
    x_ND = _read_numbers(points, name)
    if x_ND.ndim == 1 and len(x_ND) == 0:  # an empty list says nothing of its columns
        x_ND = x_ND.reshape(0, columns or 1)
    if x_ND.ndim != 2 or x_ND.shape[1] != (columns or max(x_ND.shape[1], 1)):
        wanted = f"(N, {columns})" if columns else "(N, D), a row a point and at least one objective"
        raise InvalidInput(f"`{name}` has shape {x_ND.shape}; wanted {wanted}.")
    bad = np.flatnonzero(~np.isfinite(x_ND).all(axis=1))
    if len(bad):
        raise InvalidInput(f"`{name}[{bad[0]}]` is {x_ND[bad[0]].tolist()}; wanted finite numbers. Leave that row out.")
    return np.ascontiguousarray(x_ND)


def _check_row(values: npt.ArrayLike, name: str) -> Floats:
    x_D = _read_numbers(values, name)
    if x_D.ndim != 1 or len(x_D) == 0 or not np.isfinite(x_D).all():
        raise InvalidInput(f"`{name}` is {x_D.tolist()}; wanted a row of finite numbers, for example [1.0, 1.0].")
    return x_D


def _read_numbers(values: npt.ArrayLike, name: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"`{name}` holds what is no number: {error}. Wanted rows of equal length.") from error
