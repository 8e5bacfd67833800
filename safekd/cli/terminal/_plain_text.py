"""Text that commands print as it is, whatever names stand in it."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.text import Text

from ...errors import escape_controls


class PlainConsole(Console):
    """A console on which text is data: no markup, no emoji codes; only a ``Text`` of our own has a style."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Go on in silence when nobody reads any more: the exit code is the answer's, and files are still written."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, (sys.stderr if self.stderr else sys.stdout).fileno())


def print_plain(console: Console, text: object, style: str = "") -> None:
    """Print text: no markup, no emoji codes, no terminal escapes, and lines no shorter than they are.

    Args:
        console: Where it is printed.
        text: What is printed.
        style: How, for all of it.
    """
    console.print(Text(escape_controls(text, keep="\n\t"), style=style), soft_wrap=True)
