"""``safekd report``: runs as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..report import write_report
from ._exit_codes import ExitCode
from .terminal import show_written


def show_report(console: Console, runs: Sequence[Path], output: Path | None, frontier: Path | None) -> int:
    """Write a report and say where it is; return the exit code.

    Args:
        console: Where it is printed.
        runs: Run folders.
        output: The file to write; None for report.html in the folder of the one run.
        frontier: CSV file of a frontier to show, or None.
    """
    show_written(console, [write_report(runs, output, frontier=frontier)])
    return ExitCode.DONE
