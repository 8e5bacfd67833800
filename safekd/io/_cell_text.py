"""What one cell of text says, and the types that tables of both formats share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput

Floats = NDArray[np.floating[Any]]
Write = Callable[[Any, Floats], None]
FORMULA_SIGNS = "=+-@\t"  # a spreadsheet takes what begins with one of these for a formula

_LONGEST = 60  # characters of a cell that a message spells out
_TRUTHS = {"0": False, "1": True, "false": False, "true": True}


def number(cell: Any) -> float:
    """Return the number that a cell holds, NaN if it holds none."""
    try:
        return math.nan if isinstance(cell, str) and "_" in cell else float(cell)  # Python reads "1_0" as 10
    except (TypeError, ValueError):
        return math.nan


def truth(cell: str) -> bool | None:
    """Return what a cell of 0, 1, true or false says, None for any other."""
    return _TRUTHS.get(cell.strip().lower())


def is_formula(cell: str) -> bool:
    """Tell whether a spreadsheet would run the cell: it begins with = + - @ or a tab, and is no number."""
    return cell[:1] in tuple(FORMULA_SIGNS) and math.isnan(number(cell))


def refusal(place: str, cell: object, wanted: str) -> InvalidInput:
    """Return the error about a cell."""
    text = str(cell)
    found = f"'{text}'" if len(text) <= _LONGEST else f"'{text[:_LONGEST]}...'"
    return InvalidInput(f"{place}: found {found if text.strip() else 'an empty cell'}, wanted {wanted}.")


def column_names(names: list[str], source: Path) -> tuple[str, ...]:
    """Return the names of a table's columns; InvalidInput if two are the same."""
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InvalidInput(f"{source} has two columns named '{min(twice)}'; give every column a name of its own.")
    return tuple(names)
