"""Progress bars of all commands, and the list of files at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ...errors import escape_controls
from ._plain_text import print_plain


class _TextColumn(TextColumn):
    """Words of a bar as they are, whatever names stand in them."""

    def __init__(self, text_format: str) -> None:
        super().__init__(text_format, markup=False)

    def render(self, task: Task) -> Text:
        """Return what the bar says of a task."""
        return Text(escape_controls(super().render(task).plain))


def show_steps(console: Console) -> Progress:
    """Return a progress bar that draws on ``console`` and disappears when done.

    Args:
        console: Where it draws.
    """
    columns = (
        SpinnerColumn(),
        _TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def show_rows(console: Console) -> Progress:
    """Return a bar that says how many rows went by and how fast.

    Args:
        console: Where it draws.

    Returns:
        The bar; its tasks have a field ``rows``, the words for how many there were.
    """
    columns = (
        _TextColumn("{task.description}"),
        BarColumn(),
        _TextColumn("{task.fields[rows]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True)


@contextmanager
def report_rows(console: Console, what: str) -> Iterator[Callable[[int, int, int | None], None]]:
    """Show a bar while rows go by.

    Args:
        console: Where it is drawn.
        what: What is done to them.

    Yields:
        What is told of the rows done, and how much was read of how much.
    """
    with show_rows(console) as progress:
        task = progress.add_task(what, total=None, rows="")

        def report(rows: int, done: int, total: int | None) -> None:
            elapsed = progress.tasks[0].elapsed or 0.0
            rate = f", {rows / elapsed:,.0f} a second" if elapsed else ""
            progress.update(task, completed=done, total=total, rows=f"{rows:,} rows{rate}")

        yield report


def show_written(console: Console, paths: Iterable[Path]) -> None:
    """List what was written.

    Args:
        console: Where it is printed.
        paths: Files and folders.
    """
    print_plain(console, "\n".join(["written:", *(f"  {path}" for path in paths)]))
