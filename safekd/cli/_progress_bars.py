"""Progress bars of all commands, and the list of files at the end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def show_steps(console: Console) -> Progress:
    """Return a progress bar that draws on ``console`` and disappears when done.

    Args:
        console: Where it draws.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def show_rows(console: Console) -> Progress:
    """Return a bar that says how many rows went by and how fast.

    Args:
        console: Where it draws.

    Returns:
        The bar; its tasks have a field ``rows``, the words for how many there were.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]}"), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def show_written(console: Console, paths: Iterable[Path]) -> None:
    """List what was written.

    Args:
        console: Where it is printed.
        paths: Files and folders.
    """
    console.print("written:", *(f"  {path}" for path in paths), sep="\n", markup=False, highlight=False, soft_wrap=True)
