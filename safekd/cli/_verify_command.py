"""``safekd verify``: files against the hashes that were written beside them."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ..frontier import verify_files


def show_verification(console: Console, path: Path, *, repair: bool) -> int:
    """Print whether every file is as it was written; return the exit code.

    Args:
        console: Where it is printed.
        path: Folder of a run or a sweep, or a frontier's CSV file.
        repair: Whether damaged checkpoints are set aside.
    """
    report = verify_files(path, repair=repair)
    console.print(str(report), markup=False, highlight=False, soft_wrap=True)
    return 0 if report.holds() else 1
