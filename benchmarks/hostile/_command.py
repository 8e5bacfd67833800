"""``safekd`` called in this process, and what no command line may do."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from dataclasses import dataclass

from safekd.cli import main
from safekd.cli._app import FAULT

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Ran:
    """Exit code and both streams."""

    code: int
    out: str
    err: str

    def find_faults(self) -> list[str]:
        """Return what no run may do, whatever it was given."""
        faults = [] if self.code in (0, 1, 2) else [f"exit code {self.code}"]
        if "Traceback" in self.out + self.err or FAULT in self.err:
            faults.append(f"broke: {self.err.strip()[-400:]}")
        if self.code == 2 and not self.err.strip():
            faults.append("refused without a word")
        if _OBEYED.search(self.out + self.err):
            faults.append("printed what a terminal obeys")
        return faults


def run_here(arguments: tuple[str, ...]) -> Ran:
    """Call ``safekd`` in this process."""
    before = sys.argv
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n") for _ in range(2))
    sys.argv = ["safekd", *arguments]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # what would have been a traceback
        err.write(f"Traceback: {type(error).__name__}: {error}")
        code = -1
    finally:
        sys.argv = before
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return Ran(code, *texts)
