"""What a trace of the frontier came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gap:
    """A part of the frontier without points.  left, right: (constrained, objective) at its ends.

    message: what was tried there, and what that says.
    """

    left: tuple[float, float]
    right: tuple[float, float]
    message: str


@dataclass(frozen=True)
class Frontier:
    """The least ``objective`` for each level of ``constrained``; both are minimised.

    table: one row a target, in the order of targets (mu sweep: of what was reached), with the columns

        target               the level asked for; mu: the weight, in a mu sweep
        objective, constrained, violation   at the answer; the violation is the largest of all rows, target included
        multiplier           minus the slope of the frontier: what one unit of target is worth in units of objective.
                             At an end, the slope towards the other end; inf where the frontier is vertical; NaN where
                             a solve came to no balance
        penalty, kkt_stationarity, kkt_primal, kkt_dual, kkt_complementarity
                             of the solve that found the answer (anchors: of objective or constrained alone)
        status               that of ``minimize``, or: anchor, an end of the frontier; redundant, answered by the answer
                             to another target, ``warm_from``, whose row is slack here; infeasible, below what can be
                             reached; not_solved, the budget was spent before; unreachable, a gap in a mu sweep
        feasible, nondominated, duplicate (an earlier row has the same point), slope_contradicted (the multiplier does
        not fit the neighbours), filled (a target that was not asked for, but set between two of them)
        warm_from            the target whose answer the solve began from; NaN for a cold start
        evaluations          that were spent on this row, all tries together
        message              what speaks for the status

    solutions: x of each row, of x0's shape and dtype; NaN where there is none.  gaps: where the frontier has no points.
    message: the whole in words.  solves, evaluations: what it cost, anchors included.
    """

    table: pd.DataFrame
    solutions: list[Tensor] = field(repr=False)
    gaps: list[Gap]
    method: str
    message: str
    solves: int
    evaluations: int

    @property
    def points(self) -> Floats:
        """The nondominated points, (constrained, objective), each once, from left to right, (n, 2)."""
        kept = self.table[self.table["nondominated"] & ~self.table["duplicate"]]
        return kept[["constrained", "objective"]].sort_values("constrained").to_numpy(dtype=np.float64)

    def to_csv(self, path: str | Path) -> None:
        """Write the table, numbers with all their digits."""
        self.table.to_csv(path, index=False, float_format="%.17g")


Row = dict[str, Any]


def nondominated(points_N2: Floats, feasible_N: npt.NDArray[np.bool_], slack_2: Floats) -> npt.NDArray[np.bool_]:
    """Say which points no feasible one beats by more than ``slack_2`` without being worse, bool (N,)."""
    kept_N = feasible_N & np.isfinite(points_N2).all(axis=1)
    others_M2 = points_N2[kept_N]
    for i in np.flatnonzero(kept_N):
        no_worse_M = (others_M2 <= points_N2[i] + slack_2).all(axis=1)
        kept_N[i] = not (no_worse_M & (others_M2 < points_N2[i] - slack_2).any(axis=1)).any()
    return kept_N


def repeated(points_N2: Floats, slack_2: Floats) -> npt.NDArray[np.bool_]:
    """Say which points stand in an earlier row as well, bool (N,)."""
    found_N = np.zeros(len(points_N2), dtype=bool)
    for i in range(1, len(points_N2)):
        found_N[i] = (np.abs(points_N2[:i] - points_N2[i]) <= slack_2).all(axis=1).any()
    return found_N
