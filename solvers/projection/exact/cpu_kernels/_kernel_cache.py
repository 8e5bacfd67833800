"""Machine code on disk that proves to be what was written before anything of it is run.

numba's own cache trusts its files: a flipped bit in one is an error of pickle or of LLVM, or a process that dies.  Here
each compiled signature has a file of its own, which begins with a hash of its name and content.  One that does not fit
is not there: the kernel is compiled again and the file replaced.

Inside is a pickle, the one form in which numba gives compiled code away.  The hash finds damage; it is no signature:
whoever may write to numba's cache folder could give this process code anyway, as with Python's own ``.pyc`` files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import platform
import secrets
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.serialize import dumps

_SIZE = 32  # bytes of the hash that a file begins with
_VERSIONS = (numba.__version__, llvmlite.__version__, platform.python_version())


class KernelCache:
    """The compiled signatures of one kernel; as numba's dispatcher asks for them.

    Args:
        folder: Where the files are.
        name: What the names of this kernel's files begin with.
        stamp: Changes with the sources.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str, stamp: str) -> None:
        self.folder, self.name = Path(folder), name
        self.stamp = hashlib.blake2b(repr((stamp, _VERSIONS)).encode(), digest_size=6).hexdigest()

    def load(self, key: object) -> Any:
        """Return what was saved under a key; None where there is nothing, or nothing whole.

        Args:
            key: Of the signature and the machine.
        """
        path = self._find_file(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if content[:_SIZE] != self._hash(path, content[_SIZE:]):
            return None
        kept, data = pickle.loads(content[_SIZE:])
        return data if kept == key else None

    def save(self, key: object, data: object) -> None:
        """Keep what was compiled, in place of what older sources gave; without room for it, the next process compiles.

        Args:
            key: Of the signature and the machine.
            data: What numba reduced it to.
        """
        path, content = self._find_file(key), dumps((key, data))  # type: ignore[no-untyped-call]
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        try:
            temporary.write_bytes(self._hash(path, content) + content)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
        self._remove(keep=f"{self.name}.{self.stamp}.")

    def flush(self) -> None:
        """Forget everything that was kept of this kernel."""
        self._remove(keep=None)

    def _find_file(self, key: object) -> Path:
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8).hexdigest()
        return self.folder / f"{self.name}.{self.stamp}.{digest}.kernel"

    def _remove(self, keep: str | None) -> None:
        for path in self.folder.glob("*.kernel"):
            if path.name.startswith(f"{self.name}.") and not (keep and path.name.startswith(keep)):
                with contextlib.suppress(OSError):  # another process was quicker
                    path.unlink()

    @staticmethod
    def _hash(path: Path, content: bytes) -> bytes:
        return hashlib.blake2b(path.name.encode() + b"\0" + content, digest_size=_SIZE).digest()
