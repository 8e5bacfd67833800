"""How thresholds were raised, as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table

from ..trainer import Tightening


def rounds_table(raised: Tightening) -> Table:
    """Return one row a round and constraint: what was posed, what new data showed, whether that cleared."""
    bounded = raised.on != "crossfit"
    judge = "out of fold" if not bounded else raised.on
    table = Table(
        box=box.SIMPLE_HEAD, title=f"Thresholds raised until new data show what was asked for: {raised.status}"
    )
    heads = ["round", "constraint", "asked", "posed", "measured", judge, "cases", *["bound"] * bounded, "loss, nats"]
    for name in (*heads, "training", "kept"):
        table.add_column(name, justify="left" if name in ("constraint", "training") else "right")
    for row in raised.rounds.to_dict("records"):
        shown = f"{row['lower_bound' if bounded else 'judged']:.4f}"
        marked = shown if row["cleared"] else f"[red]{shown}[/red]"
        table.add_row(
            str(row["round"]),
            row["constraint"],
            f"{row['asked']:g}",
            *(f"{row[name]:.4f}" for name in ("posed", "measured")),
            f"{row['judged']:.4f}" if bounded else marked,
            str(row["cases"]),
            *[marked] * bounded,
            f"{row['distillation_loss']:.5f}",
            row["status"],
            "yes" if row["kept"] else "",
        )
    table.caption = (
        f"bound: lower, on the {raised.on} split, each look at level {raised.rounds['level'].max():.6g}, "
        f"{raised.looks} looks; red: below what was asked for"
        if bounded
        else "out of fold: training examples, each by the student of the fold that left it out; an average, not a bound"
    )
    return table
