"""One writer for a folder: a lock of the operating system, which ends with the process that holds it.

The file ``.lock`` says who holds it, so that another process can say whom to wait for; it is gone once the writer is
done.  The lock itself is the system's (``flock``, on Windows ``msvcrt.locking``), so that nothing has to be cleared
after a kill.  Where a file system knows no locks, the process that the file names counts, while it lives.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InvalidInput
from .._regular_files import read_text_file

LOCK = ".lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_MOST_BYTES = 1 << 16  # of a lock file that is read
_OPEN: set[int] = set()  # handles of locks: a forked child gets copies, which would keep them locked for longer


@dataclass(frozen=True)
class FolderLock:
    """A lock on a folder.

    Attributes:
        folder: The folder.
        token: Tells this lock from every other.
    """

    folder: Path
    token: str

    def is_held(self) -> bool:
        """Say whether the folder's lock file still names this lock."""
        return _read_holder(self.folder / LOCK).get("token") == self.token


@contextmanager
def lock_folder(folder: str | os.PathLike[str], purpose: str) -> Iterator[FolderLock]:
    """Hold a folder for writing; it is made if absent, and taken away again if nothing was put there.

    Args:
        folder: To be written into.
        purpose: What for, said to others who ask for it meanwhile.

    Yields:
        The lock.

    Raises:
        InvalidInput: Another process, or another run of this one, holds it, which the message names; or the folder
            cannot be written to.
    """
    target = Path(folder)
    made = [place for place in (target, *target.parents) if not place.exists()]
    handle = None
    try:
        try:
            target.mkdir(parents=True, exist_ok=True)
            handle = _acquire(target, target / LOCK)
            lock = FolderLock(target, secrets.token_hex(8))
            _write_holder(handle, purpose, lock.token)
        except OSError as error:
            raise InvalidInput(
                f"Cannot write {target}: {error.strerror or error}. Choose a folder that you may write to, with room."
            ) from error
        yield lock
    finally:
        if handle is not None:
            _release(handle, target / LOCK)
        for place in made:
            with suppress(OSError):  # it holds something now
                place.rmdir()


def require_room(folder: Path, size: int) -> None:
    """Raise InvalidInput where a folder's disk has less room than that many bytes.

    Args:
        folder: Exists.
        size: Bytes that will be written.

    Raises:
        InvalidInput: The message names both numbers.
    """
    with suppress(OSError):
        free = shutil.disk_usage(folder).free
        if free < size:
            raise InvalidInput(
                f"Cannot write {folder}: its disk has {free:,} bytes left, and what is to be written needs about "
                f"{size:,}. Make room there, or choose another folder."
            )


def _acquire(folder: Path, path: Path) -> int:
    """Return an open handle of the lock file, locked."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InvalidInput(f"Cannot write {folder}: {path} is a pipe or a device, not a file; remove it.")
            free = _try_lock(handle, path)
            if free and _is_same_file(handle, path):  # else its last holder has taken the file away: try again
                _OPEN.add(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if not free:
            raise InvalidInput(_describe_holder(folder, path))


def _try_lock(handle: int, path: Path) -> bool:
    """Lock an open file, or say that another has it."""
    try:
        _lock_handle(handle)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return not _is_alive(_read_holder(path))
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


if sys.platform == "win32":
    import msvcrt

    _BEHIND = 2**30  # a locked byte cannot be read, so it lies behind the text

    def _lock_handle(handle: int) -> None:
        os.lseek(handle, _BEHIND, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock_handle(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _write_holder(handle: int, purpose: str, token: str) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "purpose": purpose, "token": token}
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps(holder).encode())
    os.fsync(handle)


def _read_holder(path: Path) -> dict[str, Any]:
    try:
        holder = json.loads(read_text_file(path, _MOST_BYTES))
    except (InvalidInput, ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _describe_holder(folder: Path, path: Path) -> str:
    holder = _read_holder(path)
    for _ in range(20):  # it has the lock, and is about to write who it is
        if holder:
            break
        time.sleep(0.01)
        holder = _read_holder(path)
    who = "another process"
    if holder:
        who = f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
    return (
        f"{folder} is in use: {who}, writes {holder.get('purpose', 'there')}. Wait until it ends, stop it, or choose "
        "another folder."
    )


def _is_alive(holder: dict[str, Any]) -> bool:
    """Say whether a holder's process lives; one of another machine is taken to."""
    pid = holder.get("pid")
    if not isinstance(pid, int) or holder.get("host") != socket.gethostname():
        return bool(holder)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _release(handle: int, path: Path) -> None:
    if handle not in _OPEN:  # in a forked child, which holds nothing
        return
    _OPEN.discard(handle)
    if sys.platform != "win32":  # which removes no open file
        _remove_lock(handle, path)
        os.close(handle)
    else:
        os.close(handle)
        with suppress(OSError):
            path.unlink()


def _remove_lock(handle: int, path: Path) -> None:
    with suppress(OSError):
        if _is_same_file(handle, path):
            path.unlink()


def _close_copies() -> None:
    """Close a forked child's copies of locks: the parent's stay."""
    for handle in _OPEN:
        with suppress(OSError):
            os.close(handle)
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_copies)
