"""Write the picture of a frontier in the format that the file's name asks for."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pandas as pd

from ...errors import InvalidInput
from ...io import write_atomically
from ._layout import lay_out_frontier
from ._web_page import build_page

_WITHOUT = {".png": ["Software"], ".svg": ["Date"], ".pdf": ["CreationDate", "Creator", "Producer"]}


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

    from ._figure import STYLE, build_figure

    ending = Path(path).suffix.lower()
    is_page = ending in (".html", ".htm")
    layout = lay_out_frontier(table, constraint)
    # a page has its own fonts and background
    settings = {"svg.fonttype": "none", "axes.facecolor": "none"} if is_page else {}
    with matplotlib.style.context(["default", STYLE, settings]), write_atomically(path) as temporary:
        figure = build_figure(layout, required)
        if is_page:
            svg = io.StringIO()
            figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
            page = build_page(table, layout, svg.getvalue())
            temporary.write_bytes(page.encode("utf-8", "backslashreplace"))
            return
        # without dates and versions the same frontier gives the same bytes
        metadata: Any = dict.fromkeys(_WITHOUT.get(ending, []))
        try:
            figure.savefig(temporary, dpi=150, metadata=metadata)
        except ValueError as error:
            raise InvalidInput(
                f"Cannot draw {os.fspath(path)}: {error}. Choose a name that ends in .png, .svg, .pdf or .html."
            ) from error
