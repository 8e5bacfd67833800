"""The four KKT residuals of given weights, and how far they can be from the true projection.

The bound.  Write f for the cost, D for its Bregman divergence (half the squared distance, or KL), A w <= b for the
rules and L(u, y) = f(u) + y . (A u - b).  Multipliers y >= 0 give the point x = argmin L(., y): v - A^T y, or
v exp(-A^T y) scaled to sum to one.  Let w* be the projection and p any point of the polytope.  Then

    f(p) >= f(w*) >= L(w*, y) = L(x, y) + D(w*, x)            (w* is optimal; y >= 0 and A w* <= b; x minimizes)
    f(p)  = L(p, y) + y . (b - A p) = L(x, y) + D(p, x) + y . (b - A p)
    so      1/2 |w* - x|^2 <= D(w*, x) <= D(p, x) + y . (b - A p)    (1-strongly convex; KL: Pinsker)
    and     |w* - w| <= |w - x| + sqrt(2 D(p, x) + 2 y . (b - A p)).

Nothing here trusts w, y or p.  For p we take the point nearest to w on the rules with y > 0, where  y . (b - A p) = 0;
where that leaves the polytope, it is drawn towards an interior point until it is inside again.  What rounding may
cost is added.  Axes: N rows, K teachers, M rules.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from solvers.polytope import WeightPolytope

from ..general._canonical_form import find_support
from ._multiplier_recovery import fit_multipliers, fit_row_multipliers, group_by_pattern
from ._scaled_rules import ScaledRules, find_interior, scale_rules

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_EPS = float(np.finfo(np.float64).eps)
_TINY = 1e-300


@dataclass(frozen=True)
class ResidualSettings:
    """When rules count as tight; `python -m benchmarks.conformance` and the certificate's tests notice a change.

    Attributes:
        tight: Slack, in units of weights, up to which a rule counts as tight at first.
        near: Slacks for those whose bound is still poor: as generous as approximate answers need.
        good: Distance bound, in units of weights, that needs no second look.
    """

    tight: float = 1e-12
    near: tuple[float, ...] = (1e-6, 1e-3)
    good: float = 1e-11


_SETTINGS = ResidualSettings()


@dataclass(frozen=True)
class Residuals:
    """What was found for N rows.  Residuals and the bound (N,); multipliers y (N, M); gap x - w or its log (N,
    K).
    """

    stationarity: Floats
    primal: Floats
    dual: Floats
    complementarity: Floats
    distance_bound: Floats
    y: Floats
    gap: Floats


def compute_residuals(v_NK: Floats, w_NK: Floats, polytope: WeightPolytope, metric: str, eps: float) -> Residuals:
    """Return residuals and bounds.  v: finite, positive for KL.  w: anything.  eps: of the dtype that w came in."""
    scaled = scale_rules(polytope)
    collected = _unknown(len(w_NK), scaled)
    finite_N = np.isfinite(w_NK).all(axis=1)
    case = _RowsUnderRules(v_NK[finite_N], w_NK[finite_N], polytope, metric)
    residuals = case.compute(fit_multipliers(case.descent, case.tight(max(_SETTINGS.tight, 4 * eps)), scaled))
    for near in _SETTINGS.near:
        again_N = residuals.distance_bound > _SETTINGS.good + 4 * case.rounding
        if again_N.any():
            other = case.only(again_N)
            second = other.compute(other.fit_weighted(max(near, 8 * eps)))
            closer_N = second.distance_bound < residuals.distance_bound[again_N]
            _overwrite(residuals, np.flatnonzero(again_N)[closer_N], second, closer_N)
    _overwrite(collected, np.flatnonzero(finite_N), residuals, np.ones(len(residuals.primal), dtype=bool))
    return collected


def _unknown(n_rows: int, scaled: ScaledRules) -> Residuals:
    nan_N, (M, K) = np.full(n_rows, np.nan), scaled.rows.shape
    nan_NM, nan_NK = np.full((n_rows, M), np.nan), np.full((n_rows, K), np.nan)
    return Residuals(nan_N, nan_N.copy(), nan_N.copy(), nan_N.copy(), nan_N.copy(), nan_NM, nan_NK)


def _overwrite(into: Residuals, places: npt.NDArray[np.intp], source: Residuals, chosen: Mask) -> None:
    for field in fields(Residuals):
        getattr(into, field.name)[places] = getattr(source, field.name)[chosen]


class _RowsUnderRules:
    """Rows of finite weights under one polytope, with what both attempts at multipliers share."""

    def __init__(self, v_NK: Floats, w_NK: Floats, polytope: WeightPolytope, metric: str) -> None:
        self.v, self.w, self.polytope, self.metric = v_NK, w_NK, polytope, metric
        self.scaled = scale_rules(polytope)
        self.alive = _find_alive(w_NK, polytope, metric)
        scores_NK = v_NK if metric == "euclidean" else np.log(v_NK)
        # the sum rule takes up a shift; scores near their median then keep the digits that weights need
        self.shift = np.median(scores_NK, axis=1, keepdims=True) if len(scores_NK) else np.empty((0, 1))
        self.scores = scores_NK - self.shift
        position_NK = w_NK if metric == "euclidean" else np.log(np.maximum(w_NK, _TINY))
        self.descent = np.where(self.alive, self.scores - position_NK, 0.0)
        size_N = np.abs(self.descent).max(axis=1, initial=1.0)
        self.rounding = 4 * _EPS * w_NK.shape[1] * size_N

    def only(self, chosen_N: Mask) -> _RowsUnderRules:
        return _RowsUnderRules(self.v[chosen_N], self.w[chosen_N], self.polytope, self.metric)

    def tight(self, near: float) -> Mask:
        """Return the rules that may carry a multiplier, (N, M)."""
        tight_NM = self.scaled.measure_excess(self.w) >= -near
        if self.metric == "kl":  # the answer is positive wherever it can be, so `w >= 0` is free of charge
            at_zero_M = ~self.scaled.equal & (self.scaled.bounds == 0) & (self.scaled.rows <= 0).all(axis=1)
            tight_NM &= ~at_zero_M
        return tight_NM

    def fit_weighted(self, near: float) -> Floats:
        """Return multipliers row by row, in the norm in which the cost is curved at w."""
        chosen_NM = self.tight(near) | self.scaled.equal
        y_NM = np.zeros(chosen_NM.shape)
        for row, chosen_M in enumerate(chosen_NM):
            weight_K = None if self.metric == "euclidean" else np.clip(self.w[row], 0, 1) * self.alive
            columns_KW, equal_W = self.scaled.rows[chosen_M].T, self.scaled.equal[chosen_M]
            y_NM[row, chosen_M] = fit_row_multipliers(self.descent[row], columns_KW, equal_W, weight_K)
        return y_NM

    def compute(self, y_NM: Floats) -> Residuals:
        scaled, inequality_M = self.scaled, ~self.scaled.equal
        excess_NM = scaled.measure_excess(self.w)
        gap_NK, x_NK, log_x_NK = self._point_of(y_NM)
        bound_N = self._bound(y_NM, x_NK, log_x_NK)
        tight_NM = np.abs(np.minimum(y_NM, -excess_NM))[:, inequality_M]
        return Residuals(
            stationarity=np.maximum(np.abs(gap_NK).max(axis=1, initial=0.0) - self.rounding, 0.0),
            primal=np.maximum(excess_NM.max(axis=1), 0.0),
            dual=np.maximum(-y_NM[:, inequality_M], 0.0).max(axis=1, initial=0.0),
            complementarity=tight_NM.max(axis=1, initial=0.0),
            distance_bound=bound_N,
            y=y_NM + self.shift * np.eye(len(inequality_M))[0],  # the sum is the first rule
            gap=gap_NK,
        )

    def _point_of(self, y_NM: Floats) -> tuple[Floats, Floats, Floats]:
        """Return x - w (kl: log x - log w), x and log x, where x is the point of the multipliers."""
        if self.metric == "euclidean":
            gap_NK = self.descent - y_NM @ self.scaled.rows
            return gap_NK, self.w + gap_NK, np.empty(0)
        log_x_NK = np.where(self.alive, self.scores - y_NM @ self.scaled.rows, -np.inf)
        log_x_NK = log_x_NK - log_x_NK.max(axis=1, keepdims=True, initial=-1e300)
        log_x_NK = log_x_NK - np.log(np.exp(log_x_NK).sum(axis=1, keepdims=True))
        x_NK = np.exp(log_x_NK)
        with np.errstate(divide="ignore", invalid="ignore"):  # log 0, and weights below zero, which are infinitely off
            gap_NK = log_x_NK - np.where(self.w >= 0, np.log(np.abs(self.w)), -np.inf)
        return np.where((self.w == x_NK) | ~self.alive, 0.0, gap_NK), x_NK, log_x_NK

    def _bound(self, y_NM: Floats, x_NK: Floats, log_x_NK: Floats) -> Floats:
        p_NK, cost_N = find_nearby_point(self.w, y_NM, self.polytope)
        if self.metric == "euclidean":
            twice_N = ((p_NK - x_NK) ** 2).sum(axis=1)
        else:
            twice_N = 2 * _divergence(np.where(self.alive, np.maximum(p_NK, 0.0), 0.0), x_NK, log_x_NK)
        bound_N = np.linalg.norm(self.w - x_NK, axis=1) + np.sqrt(twice_N + 2 * cost_N) + self.rounding
        # no weights are further away than a corner of the simplex
        corner_N = np.sqrt(np.maximum((self.w**2).sum(axis=1) + 1 - 2 * self.w.min(axis=1, initial=np.inf), 0.0))
        nearest_N: Floats = np.fmin(bound_N, corner_N + self.rounding)
        return nearest_N


def _find_alive(w_NK: Floats, polytope: WeightPolytope, metric: str) -> Mask:
    """Return the teachers that can weigh anything, (K,); the KL cost has no derivative in the others."""
    if metric == "euclidean" or (w_NK > 0).all():
        return np.ones(polytope.n_teachers, dtype=bool)
    return _support_of(polytope)


@lru_cache(maxsize=512)
def _support_of(polytope: WeightPolytope) -> Mask:
    scaled = scale_rules(polytope)
    support: Mask = find_support(scaled.rows, scaled.bounds, scaled.equal) > 0
    return support


def find_nearby_point(w_NK: Floats, y_NM: Floats, polytope: WeightPolytope) -> tuple[Floats, Floats]:
    """Return a point p of the polytope near each row, and  y . (b - A p) there, infinite if no such point was
    collected.
    """
    scaled = scale_rules(polytope)
    rounding = 4 * _EPS * w_NK.shape[1]
    p_NK, cost_N = (
        _project_onto_used_rules(w_NK, y_NM, scaled, np.zeros(len(scaled.names), dtype=bool)),
        np.zeros(len(w_NK)),
    )
    outside_N = scaled.measure_excess(p_NK).max(axis=1) > rounding
    if outside_N.any():
        p_NK[outside_N], cost_N[outside_N] = _draw_inside(w_NK[outside_N], y_NM[outside_N], polytope, rounding)
    # tight rules that contradict each other, by their slacks of 1e-6, leave some slack even there
    slack_NM = np.where(scaled.equal, 0.0, scaled.bounds - p_NK @ scaled.rows.T)
    return p_NK, np.maximum(cost_N, (y_NM * np.where(slack_NM > rounding, slack_NM, 0.0)).sum(axis=1))


def _draw_inside(w_NK: Floats, y_NM: Floats, polytope: WeightPolytope, rounding: float) -> tuple[Floats, Floats]:
    """Do the same for rows where the nearest point on the used rules breaks another rule."""
    scaled = scale_rules(polytope)
    interior = find_interior(polytope)
    p_NK = _project_onto_used_rules(w_NK, y_NM, scaled, interior.implied)
    room_M = np.maximum(-(scaled.rows @ interior.point - scaled.bounds), 0.0)
    room_M[scaled.equal | interior.implied] = 0.0
    excess_NM = np.where(room_M > 0, np.maximum(scaled.measure_excess(p_NK), 0.0), 0.0)
    share_N1 = (excess_NM / np.where(room_M > 0, excess_NM + room_M, 1.0)).max(axis=1, keepdims=True)
    p_NK = p_NK + share_N1 * (interior.point - p_NK)
    cost_N = share_N1[:, 0] * (y_NM @ room_M)
    cost_N[scaled.measure_excess(p_NK).max(axis=1) > 4 * rounding] = np.inf
    return p_NK, cost_N


def _project_onto_used_rules(w_NK: Floats, y_NM: Floats, scaled: ScaledRules, implied_M: Mask) -> Floats:
    p_NK = np.empty_like(w_NK)
    for rows, used_M in group_by_pattern((y_NM > 0) | scaled.equal | implied_M):
        p_NK[rows] = scaled.project_onto(w_NK[rows], used_M)
    return p_NK


def _divergence(p_NK: Floats, x_NK: Floats, log_x_NK: Floats) -> Floats:
    """Return KL(p || x) of rows that sum to one, with all its digits where p and x nearly agree."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        off_NK = (p_NK - x_NK) / x_NK
        close_NK = np.abs(off_NK) < 1e-3
        off_NK = np.where(close_NK, off_NK, 0.0)
        series_NK = x_NK * off_NK**2 * (1 / 2 - off_NK / 6 + off_NK**2 / 12 - off_NK**3 / 20 + off_NK**4 / 30)
        plain_NK = np.where(p_NK > 0, p_NK * (np.log(p_NK) - log_x_NK), 0.0) - p_NK + x_NK
    total_N: Floats = np.where(close_NK, series_NK, plain_NK).sum(axis=1)
    return np.maximum(total_N, 0.0)
