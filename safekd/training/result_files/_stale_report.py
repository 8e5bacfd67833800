"""The report that may lie beside a result: a page about another run must not be taken for one about this."""

from __future__ import annotations

from pathlib import Path

from ...errors import InvalidInput
from ...io import open_regular_file

REPORT = "report.html"
REPORT_MARK = '<meta name="generator" content="safekd report">'
_HEAD = 1024  # bytes in which the mark stands


def remove_stale_report(folder: Path) -> None:
    """Remove the report of the run that a folder held before; a page of the same name that somebody else wrote stays.

    Args:
        folder: Of the new run.
    """
    try:
        with open_regular_file(folder / REPORT) as stream:
            head = stream.read(_HEAD)
    except (InvalidInput, OSError):
        return
    if REPORT_MARK.encode() in head:
        (folder / REPORT).unlink(missing_ok=True)
