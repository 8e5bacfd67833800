"""``safekd verify``: files against the hashes that were written beside them."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ..errors import InvalidInput
from ..frontier import verify_files
from ..language.cache import is_cache
from ._cache_command import show_cache_verification
from ._exit_codes import ExitCode
from .terminal import print_json, print_plain


def show_verification(console: Console, path: Path, *, repair: bool, as_json: bool) -> int:
    """Print whether every file is as it was written; return the exit code.

    Args:
        console: Where it is printed.
        path: Folder of a run, a sweep or a teacher cache, or a frontier's CSV file.
        repair: Whether damaged checkpoints are set aside.
        as_json: Whether it is for a machine.
    """
    if is_cache(path) or is_cache(path.absolute().parent):  # of one teacher in it
        if repair:
            raise InvalidInput(
                f"{path} is a teacher cache, which needs no --repair: built again, what was damaged is asked anew."
            )
        return show_cache_verification(console, path, as_json=as_json)
    report = verify_files(path, repair=repair)
    if as_json:
        found = {
            "kind": report.kind,
            "checked": report.checked,
            "wrong": dict(report.wrong),
            "notes": list(report.notes),
        }
        print_json({"path": path, "holds": report.holds(), **found})
    else:
        print_plain(console, str(report))
    return ExitCode.DONE if report.holds() else ExitCode.CHECK_FAILED
