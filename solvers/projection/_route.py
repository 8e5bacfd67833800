"""Choose the path: which rows go to which polytope, and which engine projects them.

This is the only place that chooses.  Exact where the polytope has uniform bounds and no margin or linear rows, with
any partial order; where the orderings rank the teachers into tiers, rows may have tiers of their own, and one call
serves them all.  Otherwise rows that share a polytope
share a compiled cvxpy problem.  Axes: B rows, K teachers, P distinct safety patterns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.errors import InfeasiblePolytope, InvalidInput
from solvers.polytope import WeightPolytope

from ._order import RowOrder, dag_order, own_order, shared_order


@dataclass(frozen=True)
class Part:
    """Rows that are projected together.  rows: their places, None for all.  order: for the exact path; None: cvxpy."""

    rows: Tensor | None
    polytope: WeightPolytope
    order: RowOrder | None


def plan(
    v_BK: Tensor, polytope: WeightPolytope, critical_B: Tensor | None, safety_BK: Tensor | None, engine: str
) -> list[Part]:
    """Split the rows of ``v_BK`` into parts, each with its polytope and engine."""
    order = None if engine == "cvxpy" else _exact_order(v_BK, polytope, critical_B, safety_BK)
    if order is not None:
        return [Part(None, polytope, order)]
    parts = list(_by_polytope(polytope, critical_B, safety_BK, engine))
    if engine == "exact" and any(part.order is None for part in parts):
        raise InvalidInput(_why_not_exact(polytope, safety_BK is not None))
    return parts


def _exact_order(
    v_BK: Tensor, polytope: WeightPolytope, critical_B: Tensor | None, safety_BK: Tensor | None
) -> RowOrder | None:
    """Return the one order record that serves all rows on the exact path, or None where there is no such path."""
    if safety_BK is None and (critical_B is None or not polytope.orderings):
        return exact_order(polytope)
    if polytope.tiers is None or (safety_BK is not None and polytope.margin):
        return None
    tier_BK = torch.tensor([polytope.tiers], device=v_BK.device) if safety_BK is None else safety_BK
    tier_BK = tier_BK.double().expand(v_BK.shape)
    # rows to which the orderings do not apply are one tier
    return own_order(tier_BK if critical_B is None else torch.where(critical_B[:, None], tier_BK, 0.0))


def _by_polytope(
    polytope: WeightPolytope, critical_B: Tensor | None, safety_BK: Tensor | None, engine: str
) -> Iterator[Part]:
    ordered = bool(polytope.orderings) or safety_BK is not None
    if critical_B is None or not ordered:
        rows = None
    else:
        free = polytope.without_orderings()
        yield Part((~critical_B).nonzero()[:, 0], free, None if engine == "cvxpy" else exact_order(free))
        rows = critical_B.nonzero()[:, 0]
    if safety_BK is None:
        yield Part(rows, polytope, None if engine == "cvxpy" else exact_order(polytope))
    else:
        yield from _by_pattern(polytope, safety_BK, rows)


def exact_order(polytope: WeightPolytope) -> RowOrder | None:
    """Return the order of rows that share the polytope's own orderings, or None where there is no exact path."""
    if polytope.tiers is not None:
        return shared_order(polytope.tiers)
    return None if polytope.cover is None else dag_order(polytope.cover, polytope.n_teachers)


def _by_pattern(polytope: WeightPolytope, safety_BK: Tensor, rows: Tensor | None) -> Iterator[Part]:
    """Yield a part for each distinct order of the safety scores."""
    rows = torch.arange(len(safety_BK), device=safety_BK.device) if rows is None else rows
    scores_BK = safety_BK[rows]
    # how many distinct scores lie below: equal patterns get equal ranks
    below_BK = (scores_BK[:, :, None] > scores_BK[:, None, :]).sum(dim=-1)
    patterns_PK, which_B = torch.unique(below_BK, dim=0, return_inverse=True)
    for number, pattern_K in enumerate(patterns_PK.tolist()):
        chosen = rows[which_B == number]
        try:
            yield Part(chosen, polytope.ordered_by(pattern_K), None)
        except InfeasiblePolytope as cause:
            raise InfeasiblePolytope(f"Row {int(chosen[0])}, ordered by its `safety`: {cause}") from cause


def _why_not_exact(polytope: WeightPolytope, by_safety: bool) -> str:
    reasons = []
    if polytope.uniform_bounds is None:
        reasons.append("bounds that differ between teachers")
    if polytope.margin and (polytope.orderings or by_safety):
        reasons.append(f"margin={polytope.margin:g}")
    if polytope.linear:
        reasons.append("linear rows")
    return (
        f"engine='exact' has no path for this polytope: it has {', '.join(reasons)}. "
        "Use engine='auto', which gives such polytopes to cvxpy."
    )
