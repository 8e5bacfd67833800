"""Runs the command line in this process, as a shell would see it."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from safekd.cli import main


@dataclass(frozen=True)
class Ran:
    """Exit code and both streams."""

    code: int
    out: str
    err: str

    def refused(self, *fragments: str) -> bool:
        """Say whether it was refused as bad input: exit code 2, one message holding all fragments, no traceback."""
        text = " ".join(self.err.split())
        return self.code == 2 and "Traceback" not in self.err and all(part in text for part in fragments)


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ran:
    """Call ``safekd`` with arguments."""
    before = sys.argv
    sys.argv = ["safekd", *map(str, arguments)]
    capsys.readouterr()
    try:
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    seen = capsys.readouterr()
    return Ran(code, seen.out, seen.err)
