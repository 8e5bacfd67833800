"""Choose the path: which rows go to which polytope, and which engine projects them.

This is the only place that chooses.

    bounds                          orderings               margin    path
    uniform                         any partial order       none      exact (``_projection_autograd``)
    any                             none, or a total order  any       exact (``_bounded_projection``)
    equal inside each tier          tiers                   any       exact (``_bounded_projection``)
    all else, and any linear rows                                     cvxpy, where rows that share a polytope share a
                                                                      compiled problem

On the exact paths rows may have tiers of their own (and bounds, in ``_bounded_projection``), and one call serves them
all.
Axes: B rows, K teachers, Q, R = 1 or B, P distinct polytopes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from solvers.errors import InfeasiblePolytope, InvalidInput
from solvers.polytope import WeightPolytope, bounds_within

from ._projection_inputs import name_row
from ._projection_orders import BoundedOrder, RowOrder, make_own_order, make_partial_order, make_shared_order
from ._row_bounds import RowBounds, read_polytope_bounds
from ._row_feasibility import find_mixed_tiers


class RowPart(NamedTuple):
    """Rows that are projected together.

    rows: their places, None for all.  order: for the exact path, of the ``untied`` polytope; None: cvxpy.  bounds: for
    a RowOrder, numbers of the weights' dtype.
    """

    rows: Tensor | None
    polytope: WeightPolytope
    order: RowOrder | BoundedOrder | None
    bounds: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class RowRules:
    """What each row obeys.

    critical_B: where orderings apply; None: everywhere.  safety_BK: scores that order each row, for a polytope without
    orderings.  bounds: in place of the polytope's.  leading: the axes that B stands for, to name rows by.
    """

    polytope: WeightPolytope
    critical_B: Tensor | None = None
    safety_BK: Tensor | None = None
    bounds: RowBounds | None = None
    leading: torch.Size | None = None

    @property
    def ordered(self) -> bool:
        """Tell whether some row is."""
        return bool(self.polytope.orderings) or self.safety_BK is not None

    @property
    def by_row(self) -> bool:
        """Tell whether rows have an order or bounds that are not the polytope's."""
        return self.safety_BK is not None or self.bounds is not None

    def name_row_at(self, row: int) -> str:
        """Return the words for a row."""
        place = (row,) if not self.leading else np.unravel_index(row, tuple(self.leading))
        by_safety = self.safety_BK is not None and (self.critical_B is None or bool(self.critical_B[row]))
        return f"Row {name_row(tuple(int(i) for i in place))}{', ordered by its `safety`' if by_safety else ''}"


def plan_rows(v_BK: Tensor, rules: RowRules, engine: str) -> list[RowPart]:
    """Split the rows of ``v_BK`` into parts, each with its polytope and engine.

    Raises InvalidInput if engine is "exact" and some rows have no exact path, InfeasiblePolytope if a row's own order
    or bounds leave it no weights.
    """
    exact = engine != "cvxpy"
    order = _find_own_tiers(v_BK, rules) if exact else None
    if order is not None:
        return [RowPart(None, rules.polytope, order, _uniform_bounds_within(rules.polytope, v_BK.dtype))]
    parts = list((_split_by_row if rules.by_row else _split_by_mask)(v_BK, rules, exact))
    if engine == "exact" and any(part.order is None for part in parts):
        raise InvalidInput(_why_not_exact(rules))
    return parts


@lru_cache(maxsize=1024)
def plan_shared_rows(polytope: WeightPolytope, dtype: torch.dtype, engine: str) -> tuple[RowPart, ...]:
    """Return the plan of rows without rules of their own, which is the same for all, and so for none."""
    return tuple(plan_rows(torch.empty(0, polytope.n_teachers, dtype=dtype), RowRules(polytope), engine))


def _make_part(rows: Tensor | None, polytope: WeightPolytope, dtype: torch.dtype, exact: bool) -> RowPart:
    solved = polytope.untied
    order = find_exact_order(solved) if exact else None
    if order is not None:
        return RowPart(rows, polytope, order, _uniform_bounds_within(solved, dtype))
    return RowPart(rows, polytope, find_bounded_order(solved, dtype) if exact else None)


@lru_cache(maxsize=256)
def _uniform_bounds_within(polytope: WeightPolytope, dtype: torch.dtype) -> tuple[float, float]:
    low_K, high_K = bounds_within(polytope, dtype)
    return float(low_K[0]), float(high_K[0])


def find_exact_order(polytope: WeightPolytope) -> RowOrder | None:
    """Return the order of rows that share the polytope's own orderings, or None unless ``_projection_autograd`` takes
    them.
    """
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
    return None if find_mixed_tiers(order, 1, math.inf, str)[0] else order.inside(dtype)


def _find_own_tiers(v_BK: Tensor, rules: RowRules) -> RowOrder | None:
    """Return the record of rows with tiers of their own under uniform bounds, or None where that is not so."""
    polytope, by_mask = rules.polytope, rules.critical_B is not None and bool(rules.polytope.orderings)
    if rules.bounds is not None or polytope.tiers is None or not (rules.safety_BK is not None or by_mask):
        return None
    return None if polytope.margin else make_own_order(_rank_rows(v_BK, rules))


def _rank_rows(v_BK: Tensor, rules: RowRules) -> Tensor:
    """Return ranks (B, K), higher above lower; rows to which the orderings do not apply are one tier."""
    known = torch.tensor([rules.polytope.ranks], device=v_BK.device) if rules.safety_BK is None else rules.safety_BK
    tier_BK = known.double().expand(v_BK.shape)
    return tier_BK if rules.critical_B is None else torch.where(rules.critical_B[:, None], tier_BK, 0.0)


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
    order = _order_by_row(v_BK, rules) if exact else None
    if order is not None:
        left_B = find_mixed_tiers(order, len(v_BK), torch.finfo(v_BK.dtype).eps, rules.name_row_at)
        if rules.polytope.ranks is None and rules.critical_B is not None:
            left_B |= rules.critical_B.cpu().numpy()
        taken_N, left_N = (torch.from_numpy(np.flatnonzero(chosen_B)) for chosen_B in (~left_B, left_B))
        order = order.inside(v_BK.dtype)
        if not len(left_N):
            yield RowPart(None, rules.polytope, order)
            return
        yield RowPart(taken_N.to(v_BK.device), rules.polytope, order.taken(taken_N))
    for rows_N in _group_alike(left_N, rules):
        yield RowPart(rows_N.to(v_BK.device), _find_polytope(int(rows_N[0]), rules), None)


def _order_by_row(v_BK: Tensor, rules: RowRules) -> BoundedOrder | None:
    """Return tiers and bounds of all rows; of a partial order, only rows without it count.  None: no row has a path."""
    polytope = rules.polytope
    if polytope.linear or (polytope.ranks is None and rules.critical_B is None):
        return None
    bounds = rules.bounds or read_polytope_bounds(polytope)
    if polytope.ranks is None or not rules.ordered:
        tier_RK = torch.zeros(1, polytope.n_teachers, dtype=torch.float64)
    else:
        tier_RK = _rank_rows(v_BK, rules).cpu()
        if rules.safety_BK is None and rules.critical_B is None:
            tier_RK = tier_RK[:1]
    return BoundedOrder(tier_RK, bounds.low_QK, bounds.high_QK, polytope.margin)


def _group_alike(rows_N: Tensor, rules: RowRules) -> Iterator[Tensor]:
    """Split rows into those that share all their rules."""
    applies_N1 = torch.ones(len(rows_N), 1, dtype=torch.float64)
    if rules.critical_B is not None:
        applies_N1 = rules.critical_B.cpu()[rows_N, None].double()
    columns = [applies_N1]
    if rules.safety_BK is not None:
        scores_NK = rules.safety_BK.cpu()[rows_N]
        # how many scores lie below: equal patterns get equal ranks
        columns.append(applies_N1 * (scores_NK[:, :, None] > scores_NK[:, None, :]).sum(dim=-1))
    if rules.bounds is not None:
        bounds = (rules.bounds.low_QK, rules.bounds.high_QK)
        columns += [x.expand(len(rows_N), -1) if len(x) == 1 else x[rows_N] for x in bounds]
    patterns_P, which_N = torch.unique(torch.cat(columns, dim=1), dim=0, return_inverse=True)
    for number in range(len(patterns_P)):
        yield rows_N[which_N == number]


def _find_polytope(row: int, rules: RowRules) -> WeightPolytope:
    """Return the polytope of one row."""
    polytope = rules.polytope
    applies = rules.critical_B is None or bool(rules.critical_B[row])
    try:
        if rules.bounds is not None:
            at = row if len(rules.bounds.low_QK) > 1 else 0
            low_K, high_K = rules.bounds.low_QK[at].tolist(), rules.bounds.high_QK[at].tolist()
            polytope = polytope.without_orderings().with_bounds(low_K, high_K)
        if not applies:
            return polytope.without_orderings()
        if rules.safety_BK is not None:
            return polytope.ordered_by(rules.safety_BK[row].tolist())
        return polytope.with_orderings(rules.polytope.orderings)
    except InfeasiblePolytope as cause:
        raise InfeasiblePolytope(f"{rules.name_row_at(row)}: {cause}") from cause


def _why_not_exact(rules: RowRules) -> str:
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
