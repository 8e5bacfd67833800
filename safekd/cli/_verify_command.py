"""``safekd verify``: files against the hashes that were written beside them."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ..frontier import verify_files
from ._plain_text import print_plain


def show_verification(console: Console, path: Path, *, repair: bool) -> int:
    """Print whether every file is as it was written; return the exit code.

    Args:
        console: Where it is printed.
        path: Folder of a run or a sweep, or a frontier's CSV file.
        repair: Whether damaged checkpoints are set aside.
    """
    report = verify_files(path, repair=repair)
    print_plain(console, str(report))
    return 0 if report.holds() else 1
