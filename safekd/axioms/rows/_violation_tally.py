"""How often one rule was broken, and where worst.  Axes: B rows, K teachers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from solvers.polytope import WeightPolytope

from .._axiom_list import Axiom, Kind

JUDGED: tuple[Kind, ...] = ("normalization", "positivity", "bounds", "ordering", "linear")

Numbers = tuple[float, ...]


@dataclass
class Tally:
    """Counts the rows that break a condition and keeps the worst of them; a NaN is worse than any number.

    Attributes:
        rows: How many.
        first: The lowest row number.
        worst: The largest excess.
        row: Where.
        weights_K: What weights stood there, K of them.
        safety_K: What scores stood there, none if there were none.
        condition: Which condition, where a tally is about several.
    """

    rows: int = 0
    first: int = 0
    worst: float = 0.0
    row: int = 0
    weights_K: Numbers = ()
    safety_K: Numbers = ()
    condition: str = ""

    def count_rows(
        self,
        excess_B: Tensor,
        fine_B: Tensor,
        w_KB: Tensor,
        number_B: Tensor,
        safety_KB: Tensor | None = None,
    ) -> None:
        """Count the rows that are not fine.

        Args:
            excess_B: By how much each row breaks the condition, (B,).
            fine_B: Which rows keep it, bool, (B,).
            w_KB: Weights, (K, B).
            number_B: Numbers of the rows, for the report, (B,), ascending.
            safety_KB: Scores, (K, B).
        """
        count = int((~fine_B).sum())
        if not count:
            return
        worst_column = int(excess_B.masked_fill(fine_B, -torch.inf).argmax())  # which points at a NaN before any number
        first = int((~fine_B).to(torch.uint8).argmax())
        scores = () if safety_KB is None else tuple(safety_KB[:, worst_column].tolist())
        self._keep_worst(
            count,
            float(excess_B[worst_column]),
            int(number_B[worst_column]),
            int(number_B[first]),
            tuple(w_KB[:, worst_column].tolist()),
            scores,
        )

    def add(self, amount: float, rows: int, row: int, weights_K: Numbers, condition: str) -> None:
        """Count what somebody else has judged; ``first`` is then the worst row of the chunk."""
        if rows and self._keep_worst(rows, amount, row, row, weights_K, ()):
            self.condition = condition

    def _keep_worst(
        self, count: int, worst: float, row: int, first: int, weights_K: Numbers, safety_K: Numbers
    ) -> bool:
        self.first = min(self.first, first) if self.rows else first
        worse = not self.rows or (not math.isnan(self.worst) and not worst <= self.worst)
        self.rows += count
        if worse:
            self.worst, self.row, self.weights_K, self.safety_K = worst, row, weights_K, safety_K
        return worse


@dataclass
class RowCounts:
    """What a row audit knows: whom it judges by what, and what it has counted so far.

    Attributes:
        axioms: The five axioms of the scale, by kind.
        polytope: Bounds, orderings and linear rows; None if nothing is promised.
        subject: What the report calls the weights.
        names: Of the teachers, as far as they are known.
        lead: Shape of the positions, where rows are positions of a batch; None where rows are just numbered.
        tallies: Violations by kind of condition.
        rows: How many rows were judged.
        ordered: On how many of them orderings apply.
        has_orderings: Whether any ordering was given.
        lightest: Smallest weight seen.
        heaviest: Largest weight seen.
    """

    axioms: dict[Kind, Axiom]
    polytope: WeightPolytope | None
    subject: str
    names: tuple[str, ...]
    lead: tuple[int, ...] | None
    tallies: dict[Kind, Tally] = field(default_factory=lambda: {kind: Tally() for kind in JUDGED})
    rows: int = 0
    ordered: int = 0
    has_orderings: bool = False
    lightest: float = float("inf")
    heaviest: float = float("-inf")
