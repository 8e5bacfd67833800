"""Pictures in files: the same style everywhere, the same bytes for the same picture, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidInput
from .io import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito 2008: told apart by colour-blind eyes too; the dark ones first
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
INK, GRID_COLOUR = "#333333", "#e5e5e5"
STYLE: Mapping[str, Any] = {
    "svg.hashsalt": "safekd",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "grid.color": GRID_COLOUR,
}
_WITHOUT = {".png": ["Software"], ".svg": ["Date"], ".pdf": ["CreationDate", "Creator", "Producer"]}


def write_picture(path: str | os.PathLike[str], build: Callable[[], Figure], endings: str) -> None:
    """Write a picture, whole or not at all.  Settings of matplotlib are left as they were.

    Args:
        path: File to write; its ending decides the format.
        build: Makes the figure, in our style.
        endings: Which there are, for the message.

    Raises:
        InvalidInput: The ending is none of a picture, or the file cannot be written.
    """
    import matplotlib.style  # here: a run that draws nothing need not wait for it

    ending = Path(path).suffix.lower()
    # without dates and versions the same picture gives the same bytes
    metadata: Any = dict.fromkeys(_WITHOUT.get(ending, []))
    with matplotlib.style.context(["default", dict(STYLE)]), write_atomically(path) as temporary:
        try:
            build().savefig(temporary, dpi=150, metadata=metadata)
        except ValueError as error:
            raise InvalidInput(
                f"Cannot draw {os.fspath(path)}: {error}. Choose a name that ends in {endings}."
            ) from error
