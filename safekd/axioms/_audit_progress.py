"""How far an audit is: a line on stderr, where that is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@contextmanager
def show_lines() -> Iterator[Callable[[int], None]]:
    """Show how many lines were searched for jumps, until the block ends; nothing stays.

    Yields:
        To be called with how many more there are.
    """
    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task, count = progress.add_task("audit", total=None), 0

        def advance(lines: int) -> None:
            nonlocal count
            count += lines
            progress.update(task, description=f"audit: {count} lines searched for jumps")

        yield advance
