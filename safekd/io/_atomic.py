"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InvalidInput

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it takes the place of ``path``, on error nothing changes.

    Args:
        path: The file that appears whole or not at all; its folder is made.

    Raises:
        InvalidInput: The folder cannot be written to or is full, or ``path`` is no file.
    """
    target = Path(path)
    if not target.name:
        raise InvalidInput(f"Cannot write {target}: it is a folder. Choose the name of a file in it.")
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise InvalidInput(f"Cannot write {target}: it is a device or a pipe, not a file. Choose another name.")
    # named before it is made: an interrupt may come between any two lines
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}{target.suffix}")
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch(0o600, exist_ok=False)
        except OSError as error:
            raise InvalidInput(
                f"Cannot write {target}: {error.strerror}. Choose a folder that you may write to."
            ) from error
        try:
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise InvalidInput(
                f"Cannot write {target}: {error.strerror}. Make room, or choose another folder."
            ) from error
        temporary.chmod(0o666 & ~_umask())
        try:
            temporary.replace(target)
        except OSError as error:
            raise InvalidInput(f"Cannot write {target}: {error.strerror}. Choose another name.") from error
    finally:
        with suppress(OSError):  # it was never made, in a folder that is none
            temporary.unlink(missing_ok=True)


def require_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a name to which no file could be written, before hours are spent on what is to be written.

    Args:
        path: The file; folders that are missing would be made.

    Raises:
        InvalidInput: It is a folder, a device or a pipe, or what holds it cannot be written to.
    """
    target = Path(path)
    try:
        if target.is_dir() or (target.exists() and not target.is_file()):
            raise InvalidInput(f"Cannot write {target}: it is no file. Choose another name.")
        holder = next(folder for folder in target.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=holder):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(f"Cannot write {target}: {reason}. Choose a folder that you may write to.") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
