"""Multipliers that explain given weights, collected without asking who computed them.

Stationarity of the projection reads  slope = sum_m y_m a_m,  with slope = v - w (euclidean) or log v - log w (kl) and
y >= 0 on inequalities.  The rules that are tight at w are fitted to the slope by nonnegative least squares.  Rows that
share their tight rules share one factorisation: where the plain least-squares fit has the right signs it is the answer,
and only the other rows need the walk of nonnegative least squares.

Any y >= 0 is a witness.  A poor one proves less, never something wrong.  Axes: N rows, K teachers, M rules, W of them
tight, P patterns of tight rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog, nnls

from solvers.polytope import WeightPolytope, stack_rules

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_RANK = 1e-10
_ZERO = 1e-14
_NO_ROOM = 1e-9


@dataclass(frozen=True)
class ScaledRules:
    """The rules as ``rows w <= bounds``, equalities where ``equal``, each row divided by its largest coefficient.

    A slack then is of the size of weights, whatever units a linear row came in.  size: what rows were divided by, (M,).
    """

    names: tuple[str, ...]
    rows: Floats
    bounds: Floats
    equal: Mask
    size: Floats

    def measure_excess(self, w_NK: Floats) -> Floats:
        """Return how far each row lies beyond each rule, (N, M); negative is slack, equalities count both ways."""
        excess_NM: Floats = w_NK @ self.rows.T - self.bounds
        return np.where(self.equal, np.abs(excess_NM), excess_NM)

    def project_onto(self, w_NK: Floats, chosen_M: Mask) -> Floats:
        """Return the points nearest to w at which the chosen rules hold with equality."""
        rows_WK = self.rows[chosen_M]
        inverse_KW = np.linalg.pinv(rows_WK, rcond=_RANK)
        for _ in range(2):  # the second pass removes what rounding left
            w_NK = w_NK - (w_NK @ rows_WK.T - self.bounds[chosen_M]) @ inverse_KW.T
        return w_NK


@dataclass(frozen=True)
class Interior:
    """A point with room to every rule that leaves any.  implied: inequalities that hold with equality everywhere."""

    point: Floats
    implied: Mask


@lru_cache(maxsize=512)
def scale_rules(polytope: WeightPolytope) -> ScaledRules:
    """Return the polytope's rules, brought to a common scale."""
    rows_MK, bounds_M, equal_M = stack_rules(polytope.rules)
    size_M = np.abs(rows_MK).max(axis=1)
    size_M[size_M == 0] = 1.0
    names = tuple(rule.name for rule in polytope.rules)
    return ScaledRules(names, rows_MK / size_M[:, None], bounds_M / size_M, equal_M, size_M)


@lru_cache(maxsize=512)
def find_interior(polytope: WeightPolytope) -> Interior:
    """Return a point of the relative interior: the one with the most room, or a mean of such points."""
    scaled = scale_rules(polytope)
    M = len(scaled.names)
    point_K, room = _most_room(scaled, (~scaled.equal).astype(float))
    implied_M = np.zeros(M, dtype=bool)
    if room <= _NO_ROOM:
        points = [_most_room(scaled, unit_M) for unit_M in np.eye(M)[~scaled.equal]]
        implied_M[~scaled.equal] = [room <= _NO_ROOM for _, room in points]
        point_K = np.mean([point_K for point_K, _ in points], axis=0)
    return Interior(scaled.project_onto(point_K[None], scaled.equal | implied_M)[0], implied_M)


def _most_room(scaled: ScaledRules, share_M: Floats) -> tuple[Floats, float]:
    """Return the point with the largest slack that all rules with share 1 have at once, and that slack."""
    K = scaled.rows.shape[1]
    result = linprog(
        np.r_[np.zeros(K), -1.0],
        A_ub=np.column_stack([scaled.rows, share_M])[~scaled.equal],
        b_ub=scaled.bounds[~scaled.equal],
        A_eq=np.column_stack([scaled.rows, np.zeros(len(share_M))])[scaled.equal],
        b_eq=scaled.bounds[scaled.equal],
        bounds=[(None, None)] * K + [(0, 1)],
    )
    if result.status != 0:  # no room that linear programming can see: the caller will find its point infeasible
        return np.full(K, 1 / K), 0.0
    return result.x[:K], float(result.x[K])


def group_by_pattern(mask_NM: Mask) -> Iterator[tuple[npt.NDArray[np.intp], Mask]]:
    """Yield the rows that share a pattern, and the pattern."""
    if not len(mask_NM):
        return
    packed_NX = np.ascontiguousarray(np.packbits(mask_NM, axis=1))
    keys_N = packed_NX.view(np.dtype((np.void, packed_NX.shape[1])))[:, 0]
    _, first_P, which_N, count_P = np.unique(keys_N, return_index=True, return_inverse=True, return_counts=True)
    groups = np.split(np.argsort(which_N, kind="stable"), np.cumsum(count_P)[:-1])
    for first, rows in zip(first_P, groups, strict=True):
        yield rows, mask_NM[first]


def fit_multipliers(slope_NK: Floats, tight_NM: Mask, scaled: ScaledRules) -> Floats:
    """Return y_NM, zero off the tight rules, >= 0 on inequalities, with  y A  nearest to the slope."""
    y_NM = np.zeros(tight_NM.shape)
    for rows, tight_M in group_by_pattern(tight_NM | scaled.equal):
        columns_KW, equal_W = scaled.rows[tight_M].T, scaled.equal[tight_M]
        inverse_WK = np.linalg.pinv(columns_KW, rcond=_RANK)
        y_NW = slope_NK[rows] @ inverse_WK.T
        y_NW += (slope_NK[rows] - y_NW @ columns_KW.T) @ inverse_WK.T  # the second pass removes what rounding left
        size_N1 = np.abs(slope_NK[rows]).max(axis=1, keepdims=True)
        wrong_NW = ~equal_W & (y_NW < -_ZERO * size_N1)
        y_NW[:, ~equal_W] = np.maximum(y_NW[:, ~equal_W], 0.0)
        for place in np.flatnonzero(wrong_NW.any(axis=1)):
            y_NW[place] = fit_row_multipliers(slope_NK[rows[place]], columns_KW, equal_W)
        y_NM[np.ix_(rows, tight_M)] = y_NW
    return y_NM


def fit_row_multipliers(slope_K: Floats, columns_KW: Floats, equal_W: Mask, weight_K: Floats | None = None) -> Floats:
    """Return y_W >= 0, free on equalities, that minimises  sum_k weight (slope - columns y)^2."""
    root_K = np.ones_like(slope_K) if weight_K is None else np.sqrt(weight_K)
    size = max(float(np.abs(slope_K).max()), 1e-300)  # the tolerance of nnls is absolute
    target_K, scaled_KW = root_K * slope_K / size, root_K[:, None] * columns_KW
    free_KE, bound_KW = scaled_KW[:, equal_W], scaled_KW[:, ~equal_W]
    left_KK, values, _ = np.linalg.svd(free_KE, full_matrices=True)
    off_KX = left_KK[:, int((values > _RANK * values[0]).sum()) :]
    y_W = np.zeros(len(equal_W))
    if off_KX.size and bound_KW.size:
        try:
            y_W[~equal_W] = nnls(off_KX.T @ bound_KW, off_KX.T @ target_K)[0]
        except RuntimeError:  # too many steps; without multipliers the row is residuals as it stands
            y_W[:] = 0.0
    rest_K = target_K - bound_KW @ y_W[~equal_W]
    y_W[equal_W] = np.linalg.lstsq(free_KE, rest_K, rcond=_RANK)[0]
    scaled_W: Floats = y_W * size
    return scaled_W
