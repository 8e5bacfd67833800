"""Names in tables: data, whatever they hold, and numbers whose color says that they miss what was asked for."""

from __future__ import annotations

from rich.text import Text

from ..errors import escape_controls


def show_name(name: object) -> Text:
    """Return a name as a cell or a head that shows every character: no markup, no emoji codes, no terminal escapes.

    Args:
        name: Of a constraint, a teacher, a class, a context, a column.
    """
    return Text(escape_controls(name), overflow="fold")


def show_number(text: str, missed: bool) -> Text:
    """Return a number as a cell, in red where it misses what was asked for.

    Args:
        text: The number, formatted.
        missed: Whether it does.
    """
    return Text(text, style="red" if missed else "")
