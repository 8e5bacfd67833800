"""Choose the path: which rows go to which polytope, and which engine projects them.

This is the only place that chooses.  Exact where the polytope has uniform bounds and its orderings rank the teachers
into tiers; rows may then have tiers of their own, and one call serves them all.  Otherwise rows that share a polytope
share a compiled cvxpy problem.  Axes: B rows, K teachers, P distinct safety patterns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.errors import InfeasiblePolytope, InvalidInput
from solvers.polytope import WeightPolytope


@dataclass(frozen=True)
class Part:
    """Rows that are projected together.  rows: their places, None for all.  tier: ranks (B, K), if orders apply."""

    rows: Tensor | None
    polytope: WeightPolytope
    exact: bool
    tier: Tensor | None = None


def plan(
    v_BK: Tensor, polytope: WeightPolytope, critical_B: Tensor | None, safety_BK: Tensor | None, engine: str
) -> list[Part]:
    """Split the rows of ``v_BK`` into parts, each with its polytope and engine."""
    tier_BK = None if engine == "cvxpy" else _tiers(v_BK, polytope, safety_BK)
    if tier_BK is not None:
        # no tiers where the orderings do not apply
        masked_BK = tier_BK if critical_B is None else torch.where(critical_B[:, None], tier_BK, 0)
        one_tier = safety_BK is None and not polytope.orderings
        return [Part(None, polytope, True, None if one_tier else masked_BK)]
    parts = list(_by_polytope(polytope, critical_B, safety_BK, engine))
    if engine == "exact" and not all(part.exact for part in parts):
        raise InvalidInput(_why_not_exact(polytope, safety_BK is not None))
    return parts


def _tiers(v_BK: Tensor, polytope: WeightPolytope, safety_BK: Tensor | None) -> Tensor | None:
    if polytope.tiers is None or (safety_BK is not None and polytope.margin):
        return None
    if safety_BK is not None:
        return safety_BK
    return torch.tensor(polytope.tiers, device=v_BK.device).expand(v_BK.shape)


def _by_polytope(
    polytope: WeightPolytope, critical_B: Tensor | None, safety_BK: Tensor | None, engine: str
) -> Iterator[Part]:
    ordered = bool(polytope.orderings) or safety_BK is not None
    if critical_B is None or not ordered:
        rows = None
    else:
        free = polytope.without_orderings()
        yield Part((~critical_B).nonzero()[:, 0], free, free.tiers is not None and engine != "cvxpy")
        rows = critical_B.nonzero()[:, 0]
    if safety_BK is None:
        yield Part(rows, polytope, polytope.tiers is not None and engine != "cvxpy")
    else:
        yield from _by_pattern(polytope, safety_BK, rows)


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
            yield Part(chosen, polytope.ordered_by(pattern_K), exact=False)
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
    if not reasons:
        reasons.append("orderings that do not rank the teachers into tiers")
    return (
        f"engine='exact' has no path for this polytope: it has {', '.join(reasons)}. "
        "Use engine='auto', which gives such polytopes to cvxpy."
    )
