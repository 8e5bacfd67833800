"""The result of tracing a frontier between two objectives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

from ..short_repr import ShortRepr

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True)
class FrontierGap:
    """A part of the frontier without points.

    Attributes:
        left: (constrained, objective) at its end of lower ``constrained``.
        right: (constrained, objective) at its other end.
        message: What was tried there, and what that says.
    """

    left: tuple[float, float]
    right: tuple[float, float]
    message: str


@dataclass(frozen=True, repr=False)
class ParetoFrontier(ShortRepr):
    """The least ``objective`` for each level of ``constrained``; both are minimized.

    Attributes:
        table: One row a target, in the order of targets (mu sweep: of what was reached), with the columns below.
        solutions: x of each row, of x0's shape and dtype; NaN where there is none.
        gaps: Where the frontier has no points.
        method: "epsilon" or "mu".
        message: The whole in words.
        solves: Solves that it cost, ends included.
        evaluations: Points at which the functions were called, ends included.

    Columns of the table::

        target               the level asked for; mu: the weight, in a mu sweep
        objective, constrained, violation   at the answer; the violation is the largest of all rows, target included
        multiplier           the trade-off, minus the directional derivative of the frontier: what one unit of target
                             is worth in units of objective.  At an end, towards the other end; inf where the frontier
                             is vertical; NaN where a solve came to no balance
        penalty, kkt_stationarity, kkt_primal, kkt_dual, kkt_complementarity
                             of the solve that led to the answer (ends: of objective or constrained alone)
        status               that of ``minimize``, or: anchor, an end of the frontier; redundant, answered by the answer
                             to another target, ``warm_from``, whose row is slack here; infeasible, below what can be
                             reached; not_solved, the budget was spent before; unreachable, a gap in a mu sweep
        feasible, nondominated, duplicate (an earlier row has the same point), multiplier_contradicted (the multiplier
        does not fit the neighbors), filled (a target that was not asked for, but set between two of them)
        warm_from            the target whose answer the solve began from; NaN for a cold start
        evaluations          that were spent on this row, all tries together
        message              what speaks for the status
    """

    table: pd.DataFrame
    solutions: list[Tensor] = field(repr=False)
    gaps: list[FrontierGap]
    method: str
    message: str
    solves: int
    evaluations: int

    @property
    def points(self) -> Floats:
        """The nondominated points, (constrained, objective), each once, from left to right, shape (N, 2)."""
        kept = self.table[self.table["nondominated"] & ~self.table["duplicate"]]
        return kept[["constrained", "objective"]].sort_values("constrained").to_numpy(dtype=np.float64)

    def to_csv(self, path: str | Path) -> None:
        """Write the table, numbers with all their digits.

        Args:
            path: File to write; an existing one is replaced.
        """
        self.table.to_csv(path, index=False, float_format="%.17g")
