"""Many rows at once: the euclidean optimum on proposed rules, accepted only where it proves to be the projection.

The same arithmetic and the same limits as a step of the active-set walk (``_active_set``), stacked over
rows.  A row
is accepted if its rules are independent, no multiplier is negative, no other rule is broken, and none is touched that
does not follow from them (there the walk decides which rules count as active, on which the derivative
depends).

Axes: B rows, K teachers, M rules, W of them active.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ._active_set import ACTIVE_SET, ActiveSetRules

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class PolishedRows:
    """Weights (B, K) and which of them are proven to be the projection (B,)."""

    w: Floats
    proven: Mask


def polish_rows(v_BK: Floats, start_BK: Floats, active_BM: Mask, rules: ActiveSetRules) -> PolishedRows:
    """Project centered scores onto the active rules; start: anywhere near the polytope.

    Distant scores are then drawn in along the normal they left by, which keeps the answer, and projected again.
    """
    first = _project_onto_active(v_BK, start_BK, active_BM, rules)
    distance_B = np.abs(v_BK - first.w).max(axis=1, initial=0.0)
    far_B = first.proven & (distance_B > ACTIVE_SET.far)
    if not far_B.any():
        return first
    w_BK, proven_B = first.w.copy(), first.proven.copy()
    near_BK = w_BK[far_B] + (v_BK - w_BK)[far_B] / distance_B[far_B, None]
    second = _project_onto_active(near_BK, w_BK[far_B], active_BM[far_B], rules)
    w_BK[far_B], proven_B[far_B] = second.w, second.proven
    return PolishedRows(w_BK, proven_B)


def _project_onto_active(v_BK: Floats, start_BK: Floats, active_BM: Mask, rules: ActiveSetRules) -> PolishedRows:
    w_BK, proven_B = start_BK.copy(), np.zeros(len(v_BK), dtype=bool)
    count_B = active_BM.sum(axis=1)
    for count in np.unique(count_B[count_B <= v_BK.shape[1]]):
        rows = np.flatnonzero(count_B == count)
        place_BW = np.nonzero(active_BM[rows])[1].reshape(len(rows), count)
        free_B = _are_independent(rules.rows[place_BW])
        rows, place_BW = rows[free_B], place_BW[free_B]
        point_BK, multiplier_BW = _solve_equalities(
            v_BK[rows], start_BK[rows], rules.rows[place_BW], rules.bounds[place_BW]
        )
        size_B1 = np.maximum(np.abs(v_BK[rows]).max(axis=1, keepdims=True, initial=0.0), 1.0)
        signs_B = (rules.equal[place_BW] | (multiplier_BW >= -64 * _EPS * size_B1)).all(axis=1)
        slack_BM = rules.bounds - point_BK @ rules.rows.T
        follows_BM = (slack_BM >= -8 * _EPS * size_B1) & _lie_in_span(rules.rows, rules.rows[place_BW])
        clear_BM = active_BM[rows] | ~rules.eligible | (slack_BM > ACTIVE_SET.near) | follows_BM
        w_BK[rows], proven_B[rows] = point_BK, signs_B & clear_BM.all(axis=1)
    return PolishedRows(w_BK, proven_B)


def _are_independent(rows_BWK: Floats) -> Mask:
    if not len(rows_BWK):
        return np.zeros(0, dtype=bool)
    corner_BWW = np.linalg.qr(rows_BWK.mT, mode="r")
    pivot_BW = np.abs(np.diagonal(corner_BWW, axis1=1, axis2=2))
    clear: Mask = (pivot_BW > ACTIVE_SET.independent * np.maximum(np.linalg.norm(rows_BWK, axis=2), 1e-300)).all(axis=1)
    return clear


def _lie_in_span(rows_MK: Floats, basis_BWK: Floats) -> Mask:
    """Return which rules, (B, M), depend on a row's active rules."""
    units_BKW = np.linalg.qr(basis_BWK.mT)[0]
    rest_BMK = rows_MK - (rows_MK @ units_BKW) @ units_BKW.mT
    inside: Mask = np.linalg.norm(rest_BMK, axis=2) <= ACTIVE_SET.independent * np.linalg.norm(rows_MK, axis=1)
    return inside


def _solve_equalities(v_BK: Floats, start_BK: Floats, rows_BWK: Floats, bounds_BW: Floats) -> tuple[Floats, Floats]:
    """Return the points of the equalities nearest to v, and their multipliers; see ``EuclideanTarget``."""
    basis_BKW, triangle_BWW = np.linalg.qr(rows_BWK.mT)
    off_BK1 = (v_BK - start_BK)[:, :, None]
    inside_BK1 = start_BK[:, :, None] + (off_BK1 - basis_BKW @ (basis_BKW.mT @ off_BK1))
    missing_BW1 = np.linalg.solve(triangle_BWW.mT, bounds_BW[:, :, None] - rows_BWK @ inside_BK1)
    point_BK1 = inside_BK1 + basis_BKW @ missing_BW1
    multiplier_BW1 = np.linalg.solve(triangle_BWW, basis_BKW.mT @ (v_BK[:, :, None] - point_BK1))
    return point_BK1[:, :, 0], multiplier_BW1[:, :, 0]
