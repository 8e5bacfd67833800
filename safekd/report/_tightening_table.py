"""How thresholds were raised, as a table for the terminal."""

from __future__ import annotations

import math

from rich import box
from rich.table import Table

from ..training import Tightening
from ._shown_names import show_name, show_number

_OUT_OF_FOLD = (
    "out of fold: training examples, each by the student of the fold that left it out, and splits that count too; "
    "bound: lower, approximate, no certificate"
)


def tabulate_tightening(raised: Tightening) -> Table:
    """Return one row a round and constraint: what was posed, what new data showed, whether that cleared.

    Args:
        raised: The rounds of a run.
    """
    judged = raised.on if raised.on != "crossfit" else "out of fold"
    table = Table(
        box=box.SIMPLE_HEAD,
        title=show_name(f"Thresholds raised until new data show what was asked for: {raised.status}"),
    )
    heads = ["round", "constraint", "asked", "posed", "measured", judged, "cases", "bound", "loss, nats"]
    for name in (*heads, "training", "kept"):
        table.add_column(show_name(name), justify="left" if name in ("constraint", "training") else "right")
    for row in raised.rounds.to_dict("records"):
        table.add_row(
            str(row["round"]),
            show_name(row["constraint"]),
            f"{row['asked']:g}",
            *(_format_number(row[name]) for name in ("posed", "measured", "judged")),
            str(row["cases"]),
            show_number(_format_number(row["lower_bound"]), not row["cleared"]),
            f"{row['distillation_loss']:.5f}",
            row["status"],
            "yes" if row["kept"] else "",
        )
    level = raised.rounds["level"].max()
    what = _OUT_OF_FOLD if raised.on == "crossfit" else f"bound: lower, on the {raised.on} split, {raised.looks} looks"
    table.caption = show_name(f"{what}; at confidence {level:g}; red: below what was asked for")
    return table


def _format_number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
