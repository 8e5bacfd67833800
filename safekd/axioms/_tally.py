"""How often one rule was broken, and where worst.  Axes: B rows, K teachers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Numbers = tuple[float, ...]


@dataclass
class Tally:
    """Counts the rows that break a rule and keeps the worst of them; a NaN is worse than any number.

    rows: how many.  first: the lowest row number.  worst: the largest excess.  row: where; weights_K, safety_K: what
    stood there.  rule: which rule, where a tally is about several.
    """

    rows: int = 0
    first: int = 0
    worst: float = 0.0
    row: int = 0
    weights_K: Numbers = ()
    safety_K: Numbers = ()
    rule: str = ""

    def see(
        self,
        excess_B: Tensor,
        fine_B: Tensor,
        w_KB: Tensor,
        first_row: int,
        rows_B: Tensor | None = None,
        safety_KB: Tensor | None = None,
    ) -> None:
        """Count the rows that are not fine.  rows_B: their places in the chunk, None if it holds them all."""
        count = int((~fine_B).sum())
        if not count:
            return
        at = int(excess_B.masked_fill(fine_B, -torch.inf).argmax())  # which points at a NaN before any number
        first = int((~fine_B).to(torch.uint8).argmax())
        at_row, first_of = (place if rows_B is None else int(rows_B[place]) for place in (at, first))
        scores = () if safety_KB is None else tuple(safety_KB[:, at].tolist())
        place = first_row + at_row
        self._keep(count, float(excess_B[at]), place, first_row + first_of, tuple(w_KB[:, at].tolist()), scores)

    def add(self, amount: float, rows: int, row: int, first_row: int, weights_K: Numbers, rule: str) -> None:
        """Count what somebody else has judged; ``first`` is then the worst row of the chunk."""
        if rows and self._keep(rows, amount, first_row + row, first_row + row, weights_K, ()):
            self.rule = rule

    def _keep(self, count: int, worst: float, row: int, first: int, weights_K: Numbers, safety_K: Numbers) -> bool:
        self.first = min(self.first, first) if self.rows else first
        worse = not self.rows or (not math.isnan(self.worst) and not worst <= self.worst)
        self.rows += count
        if worse:
            self.worst, self.row, self.weights_K, self.safety_K = worst, row, weights_K, safety_K
        return worse
