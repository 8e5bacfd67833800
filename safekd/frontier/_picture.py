"""What a picture of a frontier shows, whatever draws it: kinds of rows, series of points, gaps between them.

Axes: N rows of the table, F points of a series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ._schema import parts, setting_columns

if TYPE_CHECKING:
    from ._frontier import Frontier

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

FRONT, BEATEN, AGAIN, UNMET, NOWHERE = "frontier", "dominated", "redundant or again", "infeasible", "no point"
KINDS = {
    FRONT: "on the frontier",
    BEATEN: "dominated",
    AGAIN: "redundant, or the same point again",
    UNMET: "infeasible",
    NOWHERE: "target without a point",
}
GAP_STATUSES = ("gap", "unreachable")
_POINTLESS = ("diverged", "failed", *GAP_STATUSES)  # what they hold, if anything, is no answer to their target

# Okabe and Ito 2008: told apart by colour-blind eyes too; the dark ones first
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")


@dataclass(frozen=True)
class Series:
    """The points of one seed, method and set of held thresholds.

    label: what tells it from the others, empty where there are none.  rows: its rows in the table.  front: those on the
    frontier, by safety, (F,).  pieces: these, cut at gaps.  gaps: the ends of each gap, as safeties.
    """

    label: str
    rows: Rows
    front: Rows
    pieces: list[Rows]
    gaps: list[tuple[float, float]]


@dataclass(frozen=True)
class Picture:
    """All that is drawn.  error_N: half the length of the bars.  kind_N: one of KINDS a row."""

    constraint: str
    split: str
    safety_N: Floats
    loss_N: Floats
    price_N: Floats
    error_N: Floats
    target_N: Floats
    contradicted_N: NDArray[np.bool_]
    kind_N: NDArray[np.object_]
    series: list[Series]

    def of(self, kind: str, rows: Rows) -> Rows:
        """Return those of ``rows`` that are of a kind."""
        found: Rows = rows[self.kind_N[rows] == kind]
        return found

    @property
    def kinds(self) -> list[str]:
        """The kinds that occur; targets in a gap are shown as the gap."""
        return [kind for kind in KINDS if (self.kind_N == kind).any()]

    @property
    def has_bars(self) -> bool:
        """Whether some point has a standard error."""
        return bool((self.error_N[self.kind_N == FRONT] > 0).any())


def picture(frontier: Frontier) -> Picture:
    """Return what is to be drawn."""
    table, name = frontier.table, frontier.constraint

    def numbers(column: str) -> Floats:
        return np.asarray(table[column].to_numpy(), dtype=np.float64)

    safety_N, loss_N, target_N = numbers(f"safety_{name}"), numbers("distillation_loss"), numbers("target")
    status = table["status"].astype(str)
    front_N = table["nondominated"].to_numpy(bool)
    kind_N = np.select(
        [
            ~(np.isfinite(safety_N) & np.isfinite(loss_N)),
            front_N,
            status.isin(_POINTLESS).to_numpy(bool),
            ~table["feasible"].to_numpy(bool),
            (status == "redundant").to_numpy(bool) | table["duplicate"].to_numpy(bool),
        ],
        [NOWHERE, FRONT, NOWHERE, UNMET, AGAIN],
        BEATEN,
    ).astype(object)
    gap_N = status.isin(GAP_STATUSES).to_numpy(bool)
    kind_N[gap_N & (kind_N == NOWHERE)] = "gap"
    series = []
    for rows in parts(table, "method"):
        front = rows[kind_N[rows] == FRONT]
        front = front[np.lexsort((loss_N[front], safety_N[front]))]
        cuts = _gaps(safety_N[front], target_N[rows[gap_N[rows]]])
        ends = [(float(safety_N[front[i]]), float(safety_N[front[i + 1]])) for i in cuts]
        pieces = np.split(front, np.asarray(cuts, dtype=int) + 1)
        series.append(Series(_label(table, rows), rows, front, pieces, ends))
    return Picture(
        name,
        ", ".join(dict.fromkeys(table["split"].astype(str))),
        safety_N,
        loss_N,
        numbers(f"lambda_{name}"),
        np.nan_to_num(numbers(f"se_{name}"), posinf=0.0),
        target_N,
        table["slope_contradicted"].to_numpy(bool),
        kind_N,
        series,
    )


def _gaps(safety_F: Floats, open_targets: Floats) -> list[int]:
    """Return after which points a gap begins: where a target stands that nothing was found for."""
    after = np.searchsorted(safety_F, open_targets, side="right") - 1
    return sorted({int(i) for i in after if 0 <= i < len(safety_F) - 1})


def _label(table: pd.DataFrame, rows: Rows) -> str:
    said = []
    for column in setting_columns(table, "method"):
        if len(table[column].drop_duplicates()) > 1:
            value = table[column].iloc[rows[0]]
            what = f"{value:g}" if isinstance(value, float) else str(value)
            held = column.startswith("held_")
            name = column.removeprefix("held_")
            said.append(f"{name} at {what}" if held else what if column == "method" else f"{name} {what}")
    return ", ".join(said)
