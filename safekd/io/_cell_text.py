"""What one cell of text says, and the types that tables of both formats share."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput

Floats = NDArray[np.floating[Any]]
Write = Callable[[Any, Floats], None]
FORMULA_SIGNS = "=+-@\t"  # a spreadsheet takes what begins with one of these for a formula

_LONGEST = 60  # characters of a cell that a message spells out
_SHOWN = 20  # names of columns that a message spells out
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*")
_NAMELESS = re.compile(r"\s*|Unnamed: ?\d+(_level_\d+)?|__index_level_\d+__", re.IGNORECASE)
_TRUTHS = {"0": False, "1": True, "false": False, "true": True}


def parse_number(cell: Any, decimal: str = ".") -> float:
    """Return the number that a cell holds, NaN if it holds none.

    Args:
        cell: Its text, or any other value.
        decimal: The decimal sign of the text.
    """
    if decimal != "." and isinstance(cell, str):
        cell = "" if "." in cell else cell.replace(decimal, ".")
    try:
        return math.nan if isinstance(cell, str) and "_" in cell else float(cell)  # Python reads "1_0" as 10
    except (TypeError, ValueError):
        return math.nan


def parse_truths(texts: Sequence[str], which_N: NDArray[Any]) -> tuple[NDArray[np.bool_], int | None]:
    """Read a column of 0, 1, true and false.

    Args:
        texts: The different texts in it.
        which_N: For each row, which of them it holds.

    Returns:
        Which rows are true, (N,), and the first row that holds something else, None where there is none.
    """
    known = [_TRUTHS.get(text.strip().lower()) for text in texts]
    wrong = np.flatnonzero(np.array([value is None for value in known])[which_N])
    true_N: NDArray[np.bool_] = np.array(known, dtype=bool)[which_N]
    return true_N, int(wrong[0]) if len(wrong) else None


def is_formula(cell: str, decimal: str = ".") -> bool:
    """Return whether a spreadsheet would run the cell: it begins with = + - @ or a tab, and is no number.

    Args:
        cell: Its text.
        decimal: The decimal sign of the text.
    """
    return cell[:1] in tuple(FORMULA_SIGNS) and math.isnan(parse_number(cell, decimal))


def has_decimal_comma(cell: object) -> bool:
    """Return whether a cell looks like a number with a decimal comma.

    Args:
        cell: What it holds.
    """
    return isinstance(cell, str) and _DECIMAL_COMMA.fullmatch(cell) is not None


def is_nameless(name: str) -> bool:
    """Return whether a column has no name, or one that stands for none: pandas and R write indices so.

    Args:
        name: As it stands in the header.
    """
    return _NAMELESS.fullmatch(name) is not None


def list_names(names: Sequence[str]) -> str:
    """Return names with commas between them, the first twenty of them and how many more there are.

    Args:
        names: Of columns, say.
    """
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def refuse_cell(place: str, cell: object, wanted: str) -> InvalidInput:
    """Return the error about a cell.

    Args:
        place: Where it is, as messages say it.
        cell: What it holds.
        wanted: What should stand there.
    """
    try:
        text = str(cell)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists
        text = f"a {type(cell).__name__}"
    shown = f"'{text}'" if len(text) <= _LONGEST else f"'{text[:_LONGEST]}...'"
    return InvalidInput(f"{place}: found {shown if text.strip() else 'an empty cell'}, wanted {wanted}.")


def require_distinct_columns(names: list[str], source: Path) -> tuple[str, ...]:
    """Return the names of a table's columns.

    Args:
        names: As they stand in the file.
        source: The file.

    Raises:
        InvalidInput: Two are the same.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InvalidInput(f"{source} has two columns named '{min(twice)}'; give every column a name of its own.")
    return tuple(names)
