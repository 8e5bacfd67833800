"""What happened to weights in files, as a table for the terminal."""

from __future__ import annotations

from itertools import islice

from rich import box
from rich.table import Table

from ..weight_files import ProjectionSummary
from ._shown_names import show_name

_TEACHERS_SHOWN = 40  # rows of the table: a screen or two


def tabulate_projection(done: ProjectionSummary) -> Table:
    """Return what a projection did to each teacher's column.

    Args:
        done: What was counted while rows went by.
    """
    table = Table(box=box.SIMPLE_HEAD, title=f"{done.rows:,} rows projected")
    for name in ("teacher", "lightest before", "after", "heaviest before", "after"):
        table.add_column(name, justify="left" if name == "teacher" else "right")
    (low_K, high_K), (lowest_K, highest_K) = done.before, done.after
    rows = zip(done.teachers, low_K, lowest_K, high_K, highest_K, strict=True)
    for name, *cells in islice(rows, _TEACHERS_SHOWN):
        table.add_row(show_name(name), *(f"{cell:.4g}" for cell in cells))
    if len(done.teachers) > _TEACHERS_SHOWN:
        table.add_row(f"and {len(done.teachers) - _TEACHERS_SHOWN:,} more")
    table.caption = (
        f"{done.moved / done.rows:.1%} of rows moved, "
        f"by {done.distance / done.rows:.4g} on average and {done.furthest:.4g} at most"
    )
    return table
