"""The general path: a solver proposes, and what it proposes is made exact.

Where Moreau is installed it proposes all rows at once, and most are proven at once too (``_batch_polish``).  Every
other row
takes its start from Moreau or cvxpy and walks to the optimum (``_active_set``).  Axes: B rows, K teachers, M rules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ._active_set import ACTIVE_SET, ActiveSetResult, ActiveSetRules, pick_independent, walk_active_set
from ._batch_polish import polish_rows
from ._canonical_form import CanonicalForm
from ._equality_targets import EuclideanTarget, KullbackLeiblerTarget

Floats = npt.NDArray[np.float64]

_FEASIBLE = 1e-9  # excess of a rule that solvers leave


@dataclass(frozen=True)
class Answers:
    """The projection of each row, shape (B, K), and the independent rules that are active there, (B, M)."""

    w: Floats
    active: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RowAnswer:
    """The projection of one row, shape (K,), and the independent rules that are active there."""

    w: Floats
    active: list[int]


def solve_rows(v_BK: Floats, form: CanonicalForm) -> Answers:
    """Return the projections of finite scores (positive for KL).  Raises SolverFailure if no back end has a start."""
    w_BK, active_BM = np.empty_like(v_BK), np.zeros((len(v_BK), len(form.bounds)), dtype=bool)
    starts: dict[int, Floats] = {}
    left = np.arange(len(v_BK))
    if form.batch is not None and len(v_BK):
        centered_BK = v_BK - v_BK.mean(axis=1, keepdims=True)
        proposed = form.batch.solve(centered_BK)
        starts = {int(row): proposed.w[row] for row in np.flatnonzero(proposed.solved)}
        polished = polish_rows(centered_BK, proposed.w, proposed.active, _to_active_set_rules(form))
        done_B = proposed.solved & polished.proven
        w_BK[done_B], active_BM[done_B] = polished.w[done_B], proposed.active[done_B]
        left = np.flatnonzero(~done_B)
    for row in left:
        answer = solve_row(v_BK[row], form, starts.get(int(row)))
        w_BK[row] = answer.w
        active_BM[row, answer.active] = True
    return Answers(w_BK, active_BM)


def solve_row(v_K: Floats, form: CanonicalForm, start_K: Floats | None = None) -> RowAnswer:
    """Return the projection of one row, by cvxpy if no nearly feasible start is given."""
    start_K = form.model.solve(v_K) if start_K is None else start_K
    rules = _to_active_set_rules(form)
    corner = _walk_euclidean(v_K, start_K, rules) if form.metric == "euclidean" else _walk_kl(v_K, start_K, form)
    if corner.finished or _is_better(corner.w, start_K, v_K, form):
        return RowAnswer(corner.w, corner.active)
    touching_M = form.equal | (form.eligible & (form.bounds - form.rows @ start_K < ACTIVE_SET.near))
    return RowAnswer(start_K, pick_independent([int(m) for m in np.flatnonzero(touching_M)], rules.rows))


def _to_active_set_rules(form: CanonicalForm) -> ActiveSetRules:
    return ActiveSetRules(form.rows * form.support, form.bounds, form.equal, form.eligible)


def _walk_euclidean(v_K: Floats, start_K: Floats, rules: ActiveSetRules) -> ActiveSetResult:
    """Walk; then draw distant scores in along the normal they left by, which keeps the answer, and walk
    again.

    From scores of size 1e8 the walk is accurate to 1e-8 only; from scores beside the polytope, to the last
    digits.
    """
    v_K = v_K - v_K.mean()
    corner = walk_active_set(start_K, rules, EuclideanTarget(v_K), float(np.abs(v_K).max()))
    distance = float(np.abs(v_K - corner.w).max())
    if corner.finished and distance > ACTIVE_SET.far:
        near_K = corner.w + (v_K - corner.w) / distance
        corner = walk_active_set(corner.w, rules, EuclideanTarget(near_K), 1.0)
    return corner


def _walk_kl(v_K: Floats, start_K: Floats, form: CanonicalForm) -> ActiveSetResult:
    """Walk on the teachers that can weigh anything; the others have weight zero."""
    alive_K = form.support > 0
    rules = ActiveSetRules(form.rows[:, alive_K], form.bounds, form.equal, form.eligible)
    log_v_K = np.log(v_K[alive_K])
    log_v_K = log_v_K - log_v_K.max()
    inside_K = np.maximum(start_K[alive_K], 1e-12)
    corner = walk_active_set(inside_K, rules, KullbackLeiblerTarget(log_v_K), float(np.abs(log_v_K).max()))
    w_K = np.zeros_like(v_K)
    w_K[alive_K] = corner.w
    return ActiveSetResult(w_K, corner.active, corner.finished)


def _is_better(w_K: Floats, start_K: Floats, v_K: Floats, form: CanonicalForm) -> bool:
    excess_M = form.rows @ w_K - form.bounds
    feasible = np.where(form.equal, np.abs(excess_M), excess_M).max() <= _FEASIBLE
    return bool(feasible and _measure_cost(w_K, v_K, form.metric) <= _measure_cost(start_K, v_K, form.metric))


def _measure_cost(w_K: Floats, v_K: Floats, metric: str) -> float:
    if metric == "euclidean":
        return float(((w_K - v_K) ** 2).sum())
    alive_K = w_K > 0
    return float((w_K[alive_K] * (np.log(w_K[alive_K]) - np.log(v_K[alive_K]))).sum())
