"""What a picture of a frontier shows, in every format: kinds of rows, series of points, gaps between them.

Axes: N rows of the table, F points of a series.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..table import list_setting_columns, split_slices

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

FRONT, DOMINATED, DUPLICATE, INFEASIBLE, NO_POINT, GAP = (
    "frontier",
    "dominated",
    "duplicate",
    "infeasible",
    "no point",
    "gap",
)
KINDS = {
    FRONT: "on the frontier",
    DOMINATED: "dominated",
    DUPLICATE: "redundant or duplicate",
    INFEASIBLE: "infeasible",
    NO_POINT: "target without a point",
}
_GAP_STATUSES = ("gap", "unreachable")
_POINTLESS_STATUSES = ("diverged", "failed", *_GAP_STATUSES)  # what they hold, if anything, answers no target


@dataclass(frozen=True)
class FrontierSeries:
    """The points of one seed, method and set of held thresholds.

    Attributes:
        label: What tells it from the others, empty where there are none.
        rows: Its rows in the table.
        front: Those on the frontier, by safety, (F,).
        pieces: These, cut at gaps.
        gaps: The ends of each gap, as safeties.
    """

    label: str
    rows: Rows
    front: Rows
    pieces: list[Rows]
    gaps: list[tuple[float, float]]


@dataclass(frozen=True)
class FrontierLayout:
    """All that is drawn.

    Attributes:
        constraint: Name of the constraint whose threshold was swept.
        split: Where it is posed.
        safety_N: Of each row.
        loss_N: Of each row, nats.
        multiplier_N: Of each row, nats a unit.
        error_N: Half the length of the bars, in units of safety.
        target_N: Of each row.
        contradicted_N: Whether the multiplier contradicts its neighbors.
        kind_N: One of KINDS, or GAP, a row.
        series: What lines connect.
    """

    constraint: str
    split: str
    safety_N: Floats
    loss_N: Floats
    multiplier_N: Floats
    error_N: Floats
    target_N: Floats
    contradicted_N: NDArray[np.bool_]
    kind_N: NDArray[np.object_]
    series: list[FrontierSeries]

    @property
    def kinds(self) -> list[str]:
        """The kinds that occur; targets in a gap are shown as the gap."""
        return [kind for kind in KINDS if (self.kind_N == kind).any()]

    @property
    def has_bars(self) -> bool:
        """Whether some point has a standard error."""
        return bool((self.error_N[self.kind_N == FRONT] > 0).any())

    def list_marks(self, rows: Rows) -> list[int]:
        """Return those of ``rows`` that have a mark, by safety; those without a point by their target."""
        place_N = np.where(self.kind_N == NO_POINT, self.target_N, self.safety_N)
        order = rows[np.argsort(place_N[rows], kind="stable")]
        return [int(i) for i in order if self.kind_N[i] != GAP and np.isfinite(place_N[i])]

    def describe_row(self, i: int) -> str:
        """Return what a mark says of its row."""
        words = f"row {i}, {KINDS[self.kind_N[i]]}: target {self.target_N[i]:.6g}"
        if self.kind_N[i] == NO_POINT:
            return words
        numbers = f"safety {self.safety_N[i]:.6g}, loss {self.loss_N[i]:.6g} nats"
        return f"{words}, {numbers}, multiplier {self.multiplier_N[i]:.4g}"


def lay_out_frontier(table: pd.DataFrame, constraint: str) -> FrontierLayout:
    """Return what is to be drawn."""

    def numbers(column: str) -> Floats:
        return np.asarray(table[column].to_numpy(), dtype=np.float64)

    safety_N, loss_N, target_N = numbers(f"safety_{constraint}"), numbers("distillation_loss"), numbers("target")
    status = table["status"].astype(str)
    gap_N = status.isin(_GAP_STATUSES).to_numpy(bool)
    kind_N = np.select(
        [
            ~(np.isfinite(safety_N) & np.isfinite(loss_N)),
            table["nondominated"].to_numpy(bool),
            status.isin(_POINTLESS_STATUSES).to_numpy(bool),
            ~table["feasible"].to_numpy(bool),
            (status == "redundant").to_numpy(bool) | table["duplicate"].to_numpy(bool),
        ],
        [NO_POINT, FRONT, NO_POINT, INFEASIBLE, DUPLICATE],
        DOMINATED,
    ).astype(object)
    kind_N[gap_N & (kind_N == NO_POINT)] = GAP
    series = []
    for rows in split_slices(table, "method"):
        front = rows[kind_N[rows] == FRONT]
        front = front[np.lexsort((loss_N[front], safety_N[front]))]
        cuts = find_gap_starts(safety_N[front], target_N[rows[gap_N[rows]]])
        ends = [(float(safety_N[front[i]]), float(safety_N[front[i + 1]])) for i in cuts]
        pieces = np.split(front, np.asarray(cuts, dtype=int) + 1)
        series.append(FrontierSeries(_label_series(table, rows), rows, front, pieces, ends))
    return FrontierLayout(
        constraint,
        ", ".join(dict.fromkeys(table["split"].astype(str))),
        safety_N,
        loss_N,
        numbers(f"lambda_{constraint}"),
        np.nan_to_num(numbers(f"se_{constraint}"), posinf=0.0),
        target_N,
        table["multiplier_contradicted"].to_numpy(bool),
        kind_N,
        series,
    )


def find_gap_starts(safety_F: Floats, open_targets: Floats) -> list[int]:
    """Return after which points a gap begins: where a target stands that has no answer."""
    after = np.searchsorted(safety_F, open_targets, side="right") - 1
    return sorted({int(i) for i in after if 0 <= i < len(safety_F) - 1})


def _label_series(table: pd.DataFrame, rows: Rows) -> str:
    labels = []
    for column in list_setting_columns(table, "method"):
        if len(table[column].drop_duplicates()) > 1:
            value = table[column].iloc[rows[0]]
            text = f"{value:g}" if isinstance(value, float) else str(value)
            held = column.startswith("held_")
            name = column.removeprefix("held_")
            labels.append(f"{name} at {text}" if held else text if column == "method" else f"{name} {text}")
    return ", ".join(labels)
