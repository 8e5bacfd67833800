"""Multipliers that explain given weights, found without asking who computed them.

Stationarity of the projection reads  descent = sum_m y_m a_m,  with y >= 0 on inequalities and descent = v - w
(euclidean) or log v - log w (kl), the gradient of the cost downhill.  The rules that are tight at w are fitted to it by
nonnegative least squares.  Rows that
share their tight rules share one factorization: where the plain least-squares fit has the right signs it is the answer,
and only the other rows need the walk of nonnegative least squares.

Any y >= 0 proves a bound.  A poor one proves less, never something wrong.  Axes: N rows, K teachers, M rules, W of them
tight, P patterns of tight rules.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from ._scaled_rules import SCALED_RULES, ScaledRules

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_ZERO = 1e-14  # multipliers, relative to the descent, whose sign is rounding


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


def fit_multipliers(descent_NK: Floats, tight_NM: Mask, scaled: ScaledRules) -> Floats:
    """Return y_NM, zero off the tight rules, >= 0 on inequalities, with  y A  nearest to the descent."""
    y_NM = np.zeros(tight_NM.shape)
    for rows, tight_M in group_by_pattern(tight_NM | scaled.equal):
        columns_KW, equal_W = scaled.rows[tight_M].T, scaled.equal[tight_M]
        inverse_WK = np.linalg.pinv(columns_KW, rcond=SCALED_RULES.rank)
        y_NW = descent_NK[rows] @ inverse_WK.T
        y_NW += (descent_NK[rows] - y_NW @ columns_KW.T) @ inverse_WK.T  # the second pass removes what rounding left
        size_N1 = np.abs(descent_NK[rows]).max(axis=1, keepdims=True)
        wrong_NW = ~equal_W & (y_NW < -_ZERO * size_N1)
        y_NW[:, ~equal_W] = np.maximum(y_NW[:, ~equal_W], 0.0)
        for place in np.flatnonzero(wrong_NW.any(axis=1)):
            y_NW[place] = fit_row_multipliers(descent_NK[rows[place]], columns_KW, equal_W)
        y_NM[np.ix_(rows, tight_M)] = y_NW
    return y_NM


def fit_row_multipliers(descent_K: Floats, columns_KW: Floats, equal_W: Mask, weight_K: Floats | None = None) -> Floats:
    """Return y_W >= 0, free on equalities, that minimizes  sum_k weight (descent - columns y)^2."""
    root_K = np.ones_like(descent_K) if weight_K is None else np.sqrt(weight_K)
    size = max(float(np.abs(descent_K).max()), 1e-300)  # the tolerance of nnls is absolute
    target_K, scaled_KW = root_K * descent_K / size, root_K[:, None] * columns_KW
    free_KE, bound_KW = scaled_KW[:, equal_W], scaled_KW[:, ~equal_W]
    left_KK, values, _ = np.linalg.svd(free_KE, full_matrices=True)
    off_KX = left_KK[:, int((values > SCALED_RULES.rank * values[0]).sum()) :]
    y_W = np.zeros(len(equal_W))
    if off_KX.size and bound_KW.size:
        try:
            y_W[~equal_W] = nnls(off_KX.T @ bound_KW, off_KX.T @ target_K)[0]
        except RuntimeError:  # too many steps; without multipliers the row is residuals as it stands
            y_W[:] = 0.0
    rest_K = target_K - bound_KW @ y_W[~equal_W]
    y_W[equal_W] = np.linalg.lstsq(free_KE, rest_K, rcond=SCALED_RULES.rank)[0]
    scaled_W: Floats = y_W * size
    return scaled_W
