"""Choose the path: which rows go to which polytope, and which engine projects them.

This is the only place that chooses.

    bounds                          orderings               margin    path
    uniform                         any partial order       none      exact (``_projection_autograd``)
    any                             none, or a total order  any       exact (``_bounded_projection``)
    equal inside each tier          tiers                   any       exact (``_bounded_projection``)
    all else, and any linear rows                                     cvxpy, where rows that share a polytope share a
                                                                      compiled problem

On the exact paths rows may have tiers of their own (and bounds, in ``_bounded_projection``), and one call serves them
all.  Axes: B rows, K teachers, N of the rows, R = 1 or B.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from solvers.errors import InvalidInput
from solvers.polytope import WeightPolytope, bounds_within

from ._projection_inputs import COMPUTED, ENGINES, METRICS, read_choice
from ._projection_orders import BoundedOrder, RowOrder, make_own_order, make_partial_order, make_shared_order
from ._row_bounds import read_polytope_bounds
from ._row_feasibility import find_mixed_tiers
from ._row_rules import RowRules, build_row_polytope, group_rows_alike, rank_rows


class RowPart(NamedTuple):
    """Rows that are projected together.

    Attributes:
        rows: Their places, int64, shape (N,); None for all.
        polytope: The polytope onto which they are projected.
        order: For the exact path, of the ``untied`` polytope; None: the general path.
        bounds: For a RowOrder, lower and upper bound, numbers of the weights' dtype.
    """

    rows: Tensor | None
    polytope: WeightPolytope
    order: RowOrder | BoundedOrder | None
    bounds: tuple[float, float] = (0.0, 1.0)


class ProjectionPlan(NamedTuple):
    """Which way each row goes.

    Attributes:
        parts: All rows, those that are projected together in one part.
        kl: Whether the metric is "kl".
        exact: Whether every part takes the exact path, whose kernels look at every score themselves.
        alone: The common case, one exact part for all rows, of a dtype that kernels compute in; or None.
    """

    parts: tuple[RowPart, ...]
    kl: bool
    exact: bool
    alone: RowPart | None


def require_words(metric: object, engine: object) -> None:
    """Refuse a metric or an engine that is none."""
    read_choice("metric", metric, METRICS)
    read_choice("engine", engine, ENGINES)


@lru_cache(maxsize=1024)
def plan_shared_rows(polytope: WeightPolytope, dtype: torch.dtype, metric: str, engine: str) -> ProjectionPlan:
    """Return the plan of rows without rules of their own, which is the same for all, and so for none."""
    return plan_rows(torch.empty(0, polytope.n_teachers, dtype=dtype), RowRules(polytope), metric, engine)


def plan_rows(v_BK: Tensor, rules: RowRules, metric: str, engine: str) -> ProjectionPlan:
    """Return how the rows of ``v_BK`` are projected.

    Args:
        v_BK: Scores, shape (B, K); only their shape, dtype and device count.
        rules: What each row obeys.
        metric: "euclidean" or "kl".
        engine: "auto", "exact" or "cvxpy".

    Returns:
        The plan, with the parts in the order in which they are to be projected.

    Raises:
        InvalidInput: A name is unknown, or engine is "exact" and some rows have no exact path.
        InfeasiblePolytope: A row's own order or bounds leave it no weights.
    """
    require_words(metric, engine)
    parts = _split_rows(v_BK, rules, engine)
    first, single = parts[0] if parts else None, len(parts) == 1 and parts[0].rows is None
    if first is None or not single or first.order is None or first.polytope.tied or v_BK.dtype not in COMPUTED:
        first = None
    return ProjectionPlan(parts, metric == "kl", all(part.order is not None for part in parts), first)


def _split_rows(v_BK: Tensor, rules: RowRules, engine: str) -> tuple[RowPart, ...]:
    """Split the rows into parts, each with its polytope and path."""
    exact = engine != "cvxpy"
    order = _find_own_tiers(v_BK, rules) if exact else None
    if order is not None:
        return (RowPart(None, rules.polytope, order, _round_uniform_bounds(rules.polytope, v_BK.dtype)),)
    parts = tuple((_split_by_row if rules.differ_by_row else _split_by_mask)(v_BK, rules, exact))
    if engine == "exact" and any(part.order is None for part in parts):
        raise InvalidInput(_say_why_not_exact(rules))
    return parts


def _make_part(rows: Tensor | None, polytope: WeightPolytope, dtype: torch.dtype, exact: bool) -> RowPart:
    solved = polytope.untied
    order = find_exact_order(solved) if exact else None
    if order is not None:
        return RowPart(rows, polytope, order, _round_uniform_bounds(solved, dtype))
    return RowPart(rows, polytope, find_bounded_order(solved, dtype) if exact else None)


@lru_cache(maxsize=256)
def _round_uniform_bounds(polytope: WeightPolytope, dtype: torch.dtype) -> tuple[float, float]:
    low_K, high_K = bounds_within(polytope, dtype)
    return float(low_K[0]), float(high_K[0])


def find_exact_order(polytope: WeightPolytope) -> RowOrder | None:
    """Return the order of rows that share the polytope's own orderings, or None where bounds or margins differ."""
    if polytope.tiers is not None:
        return make_shared_order(polytope.tiers)
    return None if polytope.cover is None else make_partial_order(polytope.cover, polytope.n_teachers)


@lru_cache(maxsize=256)
def find_bounded_order(polytope: WeightPolytope, dtype: torch.dtype) -> BoundedOrder | None:
    """Return the tiers and bounds of rows that share the polytope's own, or None where they have no exact path."""
    if polytope.ranks is None or polytope.linear:
        return None
    bounds, rank_1K = read_polytope_bounds(polytope), torch.tensor([polytope.ranks], dtype=torch.float64)
    order = BoundedOrder(rank_1K, bounds.low_QK, bounds.high_QK, polytope.margin)
    # that the polytope has room is known
    return None if find_mixed_tiers(order, 1, math.inf, str)[0] else order.round_bounds(dtype)


def _find_own_tiers(v_BK: Tensor, rules: RowRules) -> RowOrder | None:
    """Return the record of rows with tiers of their own under uniform bounds, or None where that is not so."""
    polytope, by_mask = rules.polytope, rules.critical_B is not None and bool(rules.polytope.orderings)
    if rules.bounds is not None or polytope.tiers is None or not (rules.safety_BK is not None or by_mask):
        return None
    return None if polytope.margin else make_own_order(rank_rows(v_BK, rules))


def _split_by_mask(v_BK: Tensor, rules: RowRules, exact: bool) -> Iterator[RowPart]:
    """Yield the rows to which the polytope's orderings do not apply, then those to which they do."""
    polytope, critical_B = rules.polytope, rules.critical_B
    if critical_B is None or not polytope.orderings:
        yield _make_part(None, polytope, v_BK.dtype, exact)
    else:
        without = polytope.without_orderings()
        yield _make_part((~critical_B).nonzero()[:, 0], without, v_BK.dtype, exact)
        yield _make_part(critical_B.nonzero()[:, 0], polytope, v_BK.dtype, exact)


def _split_by_row(v_BK: Tensor, rules: RowRules, exact: bool) -> Iterator[RowPart]:
    """Yield the rows that the exact path takes, with tiers and bounds of their own, then the others by polytope."""
    left_N = torch.arange(len(v_BK))
    order = _find_order_by_row(v_BK, rules) if exact else None
    if order is not None:
        left_B = find_mixed_tiers(order, len(v_BK), torch.finfo(v_BK.dtype).eps, rules.name_row_at)
        if rules.polytope.ranks is None and rules.critical_B is not None:
            left_B |= rules.critical_B.cpu().numpy()
        taken_N, left_N = (torch.from_numpy(np.flatnonzero(chosen_B)) for chosen_B in (~left_B, left_B))
        order = order.round_bounds(v_BK.dtype)
        if not len(left_N):
            yield RowPart(None, rules.polytope, order)
            return
        yield RowPart(taken_N.to(v_BK.device), rules.polytope, order.take_rows(taken_N))
    for rows_N in group_rows_alike(left_N, rules):
        yield RowPart(rows_N.to(v_BK.device), build_row_polytope(int(rows_N[0]), rules), None)


def _find_order_by_row(v_BK: Tensor, rules: RowRules) -> BoundedOrder | None:
    """Return tiers and bounds of all rows; of a partial order, only rows without it count.  None: no row has a path."""
    polytope = rules.polytope
    if polytope.linear or (polytope.ranks is None and rules.critical_B is None):
        return None
    bounds = rules.bounds or read_polytope_bounds(polytope)
    if polytope.ranks is None or not rules.any_ordered:
        tier_RK = torch.zeros(1, polytope.n_teachers, dtype=torch.float64)
    else:
        tier_RK = rank_rows(v_BK, rules).cpu()
        if rules.safety_BK is None and rules.critical_B is None:
            tier_RK = tier_RK[:1]
    return BoundedOrder(tier_RK, bounds.low_QK, bounds.high_QK, polytope.margin)


def _say_why_not_exact(rules: RowRules) -> str:
    polytope, reasons = rules.polytope, []
    if polytope.linear:
        reasons.append("linear rows")
    elif polytope.ranks is not None:
        reasons.append("bounds that differ between teachers of one tier, beside other tiers")
    else:
        if rules.bounds is not None or polytope.uniform_bounds is None:
            reasons.append("bounds that differ")
        if polytope.margin:
            reasons.append(f"margin={polytope.margin:g}")
        reasons.append("orderings that do not rank all teachers")
    return (
        f"engine='exact' has no path for a polytope with {' and '.join(reasons)}. "
        "Use engine='auto', which gives such rows to cvxpy."
    )
