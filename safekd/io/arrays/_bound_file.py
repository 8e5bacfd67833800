"""A file that must stay as it was when it was opened."""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from pathlib import Path
from typing import Any

from ...errors import InvalidInput
from .._regular_files import open_regular_file

_CHUNK = 1 << 20
_TURN = threading.Lock()  # where a system cannot read at a place in one call


class BoundFile:
    """A regular file, open for reading at any place; a change of it since it was opened is an error.

    It travels to other processes by its path, and is the same there or refused.

    Args:
        path: The file.

    Attributes:
        path: The file.
        size: Its bytes.

    Raises:
        InvalidInput: It cannot be opened, or is no regular file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._open()
        self.size = self._status[1]
        self._sha256: str | None = None

    def _open(self) -> None:
        with open_regular_file(self.path) as stream:
            self._handle = os.dup(stream.fileno())
        self._close = weakref.finalize(self, os.close, self._handle)
        self._status = _read_status(os.fstat(self._handle))

    def __getstate__(self) -> dict[str, Any]:
        """Travel by path, with what tells whether it is the same file."""
        return {"path": self.path, "size": self.size, "_sha256": None, "_status": self.version}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open it where one is, and refuse another one."""
        before = state.pop("_status")
        self.__dict__.update(state)
        self._open()
        if self.version != before:
            raise self._explain_change()

    @property
    def version(self) -> tuple[int, int]:
        """What tells the file from a changed one, in every process: when it was last changed, and its size."""
        return self._status[:2]

    def require_unchanged(self) -> None:
        """Raise InvalidInput where the file was changed, replaced or removed since it was opened.

        Raises:
            InvalidInput: It was.
        """
        try:
            now = _read_status(os.stat(self.path)), _read_status(os.fstat(self._handle))
        except OSError as error:
            raise InvalidInput(f"{self.path} was open, and cannot be found any more: {error.strerror}.") from error
        if now != (self._status, self._status):
            raise self._explain_change()

    def read_at(self, start: int, size: int) -> bytes:
        """Return some bytes.

        Args:
            start: Where they begin.
            size: How many.

        Raises:
            InvalidInput: The file ends before them, or cannot be read.
        """
        parts = []
        while size:
            try:
                part = _read_at(self._handle, size, start)
            except OSError as error:
                raise InvalidInput(f"Cannot read {self.path}: {error.strerror}.") from error
            if not part:
                raise self._explain_change()
            parts.append(part)
            start, size = start + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def hash_content(self) -> str:
        """Return the SHA-256 of what the file holds; worked out once.

        Raises:
            InvalidInput: It was changed since it was opened.
        """
        self.require_unchanged()
        if self._sha256 is None:
            digest = hashlib.sha256()
            for start in range(0, self.size, _CHUNK):
                digest.update(self.read_at(start, min(_CHUNK, self.size - start)))
            self.require_unchanged()
            self._sha256 = digest.hexdigest()
        return self._sha256

    def _explain_change(self) -> InvalidInput:
        return InvalidInput(
            f"{self.path} was changed while it was in use: it is another file than the one that was opened. Leave it "
            "as it is during a run; afterwards open it anew."
        )


def _read_status(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return what tells a file from a changed one; first what is the same in every process and on every machine."""
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


if hasattr(os, "pread"):

    def _read_at(handle: int, size: int, start: int) -> bytes:
        return os.pread(handle, size, start)

else:

    def _read_at(handle: int, size: int, start: int) -> bytes:
        with _TURN:
            os.lseek(handle, start, os.SEEK_SET)
            return os.read(handle, size)
