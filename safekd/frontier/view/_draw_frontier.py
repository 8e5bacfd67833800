"""Write the picture of a frontier in the format that the file's name asks for."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pandas as pd

from ..._picture_file import STYLE, write_picture
from ...io import write_atomically
from ._layout import lay_out_frontier
from ._web_page import build_page


def draw_frontier(
    table: pd.DataFrame, constraint: str, path: str | os.PathLike[str], required: float | None = None
) -> None:
    """Write the picture, whole or not at all.  Settings of matplotlib are left as they were.

    Args:
        table: Rows of the frontier.
        constraint: Name of the constraint whose threshold was swept.
        path: File to write; its ending decides the format.
        required: A safety to draw as the threshold asked for, or None.
    """
    import matplotlib.style  # here: a run that draws nothing need not wait for it

    from ._figure import build_figure

    layout = lay_out_frontier(table, constraint)
    if Path(path).suffix.lower() not in (".html", ".htm"):
        write_picture(path, lambda: build_figure(layout, required), ".png, .svg, .pdf or .html")
        return
    # a page has its own fonts and background
    settings = {"svg.fonttype": "none", "axes.facecolor": "none"}
    with matplotlib.style.context(["default", {**STYLE, **settings}]), write_atomically(path) as temporary:
        svg = io.StringIO()
        build_figure(layout, required).savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        page = build_page(table, layout, svg.getvalue())
        temporary.write_bytes(page.encode("utf-8", "backslashreplace"))
