"""What each row obeys, and the polytope that it so has: for rows with a mask, an order or bounds of their own.

Axes: B rows, K teachers, N of the rows, P distinct polytopes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvers.errors import InfeasiblePolytope
from solvers.polytope import WeightPolytope

from ._projection_inputs import name_row
from ._row_bounds import RowBounds


@dataclass(frozen=True)
class RowRules:
    """What each row obeys.

    Attributes:
        polytope: The rules that all rows share.
        critical_B: Booleans, where orderings apply; None: everywhere.
        safety_BK: Scores that order each row, for a polytope without orderings; or None.
        bounds: Bounds in place of the polytope's; or None.
        leading: The axes that B stands for, to name rows by.
    """

    polytope: WeightPolytope
    critical_B: Tensor | None = None
    safety_BK: Tensor | None = None
    bounds: RowBounds | None = None
    leading: torch.Size | None = None

    @property
    def any_ordered(self) -> bool:
        """Tell whether some row is ordered."""
        return bool(self.polytope.orderings) or self.safety_BK is not None

    @property
    def differ_by_row(self) -> bool:
        """Tell whether rows have an order or bounds that are not the polytope's."""
        return self.safety_BK is not None or self.bounds is not None

    def apply_orderings(self, row: int) -> bool:
        """Tell whether the orderings apply to a row."""
        return self.critical_B is None or bool(self.critical_B[row])

    def name_row_at(self, row: int) -> str:
        """Return the words for a row."""
        place = (row,) if not self.leading else np.unravel_index(row, tuple(self.leading))
        by_safety = self.safety_BK is not None and self.apply_orderings(row)
        return f"Row {name_row(tuple(int(i) for i in place))}{', ordered by its `safety`' if by_safety else ''}"


def rank_rows(v_BK: Tensor, rules: RowRules) -> Tensor:
    """Return ranks (B, K), higher above lower; rows to which the orderings do not apply are one tier."""
    ranks = torch.tensor([rules.polytope.ranks], device=v_BK.device) if rules.safety_BK is None else rules.safety_BK
    tier_BK = ranks.double().expand(v_BK.shape)
    return tier_BK if rules.critical_B is None else torch.where(rules.critical_B[:, None], tier_BK, 0.0)


def group_rows_alike(rows_N: Tensor, rules: RowRules) -> Iterator[Tensor]:
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


def build_row_polytope(row: int, rules: RowRules) -> WeightPolytope:
    """Return the polytope of one row; raise InfeasiblePolytope, naming the row, if it holds no weights."""
    polytope, applies = rules.polytope, rules.apply_orderings(row)
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
