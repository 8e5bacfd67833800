"""Crash points: every write, flush, rename and removal of files, before it, after it, and in the middle of a write.

They are put round the functions of the system in a process of the benchmark alone; nothing of them is in the library.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safekd.training.result_files import _student_files

_SYSTEM = ("write", "fsync", "rename", "replace", "unlink", "mkdir", "rmdir")
BEFORE, HALFWAY, AFTER = "before", "halfway through", "after"


@dataclass
class CrashPoints:
    """The points that a process has come to, and the one at which it kills itself.

    Attributes:
        log: Told, as its last deed, of the point at which the process ends.
        fatal: Name of that point's function, and the number of its call; None to count only.
        when: Before, halfway through, or after it.
        calls: Of each function so far.
    """

    log: Path
    fatal: tuple[str, int] | None = None
    when: str = BEFORE
    calls: Counter[str] = field(default_factory=Counter)

    def install(self) -> None:
        """Put a point round each function of the system that changes files."""
        for name in _SYSTEM:
            setattr(os, name, self._wrap(name, getattr(os, name), halves=name == "write"))
        Path.write_text = self._wrap("write_text", Path.write_text)  # type: ignore[method-assign]
        _student_files.save_file = self._wrap("save_file", _student_files.save_file)

    def _wrap(self, name: str, real: Callable[..., Any], halves: bool = False) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            here = name, self.calls[name]
            self.calls[name] += 1
            if here != self.fatal:
                return real(*given, **named)
            if self.when == AFTER or (self.when == HALFWAY and not halves):
                real(*given, **named)
            elif self.when == HALFWAY:
                handle, data = given
                _REAL_WRITE(handle, bytes(data)[: len(data) // 2])
            die(self.log, f"{self.when} {name} of {_name_file(given)}")
            raise AssertionError  # a process that was killed does not come here

        return call


_REAL_WRITE = os.write


def die(log: Path, where: str) -> None:
    """Note where a process ends, flush that, and kill it as the system would.

    Args:
        log: Gets the note.
        where: In words.
    """
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    _REAL_WRITE(handle, f"{where}\n".encode())
    os.close(handle)
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def _name_file(given: Sequence[Any]) -> str:
    first = next((part for part in given if isinstance(part, (str, Path, int))), "")
    return Path(os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else first).name
