"""Regular files, opened without waiting: no pipe, device, socket or folder that stands in the place of one.

What reads a result back goes through here, so that whatever somebody put into its folder costs one message, and memory
within ``FILE_LIMITS``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO

from ..errors import InvalidInput


@dataclass(frozen=True)
class FileLimits:
    """How much of a file is taken into memory at once; ``tests/safekd/io/test_regular_files.py`` would notice.

    Attributes:
        json_bytes: Of a JSON file. Read, it takes up to some twenty times as much: lists in lists are small as text.
        table_bytes: Of a trace or a frontier, which are read whole: a few million lines.
        name_bytes: Of the name of a file: what file systems allow.
    """

    json_bytes: int = 32 << 20
    table_bytes: int = 1 << 30
    name_bytes: int = 255


FILE_LIMITS = FileLimits()
PIPE, _FOLDER = "a named pipe", "a folder"
_KINDS = (
    (stat.S_ISDIR, _FOLDER),
    (stat.S_ISFIFO, PIPE),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_DEVICES = {"con", "prn", "aux", "nul", *(f"{name}{number}" for name in ("com", "lpt") for number in range(1, 10))}
_WITHOUT_WAITING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular_file(path: str | os.PathLike[str]) -> FileIO:
    """Open a regular file for reading; a symbolic link is followed to one.

    Args:
        path: The file.

    Raises:
        InvalidInput: It is missing, cannot be read, or is no regular file; nothing is waited for.
    """
    handle, kind = open_without_waiting(path)
    if kind is None:
        return os.fdopen(handle, "rb", buffering=0)
    os.close(handle)
    raise refuse_kind(path, kind)


def open_without_waiting(path: str | os.PathLike[str]) -> tuple[int, str | None]:
    """Open whatever a path leads to, and return its handle and what it is, None for a regular file.

    Args:
        path: A file, a pipe, a device, or a folder.

    Raises:
        InvalidInput: It is missing, or cannot be opened.
    """
    name = os.fspath(path)
    try:
        handle = os.open(path, _WITHOUT_WAITING)
    except OSError as error:  # of a socket, it says "no such device or address"
        raise InvalidInput(f"Cannot read {name}: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidInput(f"Cannot read {name!r}: {error}.") from error
    mode = os.fstat(handle).st_mode
    return handle, next((words for is_kind, words in _KINDS if is_kind(mode)), None)


def refuse_kind(path: str | os.PathLike[str], kind: str) -> InvalidInput:
    """Return the error about what is no file.

    Args:
        path: Where it is.
        kind: What it is.
    """
    what = os.strerror(errno.EISDIR) if kind == _FOLDER else f"it is {kind}; wanted a file"
    return InvalidInput(f"Cannot read {os.fspath(path)}: {what}.")


def read_file(path: str | os.PathLike[str], most_bytes: int = FILE_LIMITS.json_bytes) -> bytes:
    """Return the content of a regular file that is small enough.

    Args:
        path: The file.
        most_bytes: What is small enough.

    Raises:
        InvalidInput: It cannot be read, or is larger; no more than ``most_bytes`` is taken into memory.
    """
    with open_regular_file(path) as stream:
        try:
            size = os.fstat(stream.fileno()).st_size
            data = stream.read() if size <= most_bytes else b""
        except OSError as error:
            raise InvalidInput(f"Cannot read {os.fspath(path)}: {error.strerror}.") from error
    if max(size, len(data)) > most_bytes:
        raise InvalidInput(
            f"Cannot read {os.fspath(path)}: it has {size:,} bytes, which is larger than {most_bytes >> 20} MiB."
        )
    return data


def read_text_file(path: str | os.PathLike[str], most_bytes: int = FILE_LIMITS.json_bytes) -> str:
    """Return the text of a regular file, without a byte order mark.

    Args:
        path: The file.
        most_bytes: How large it may be.

    Raises:
        InvalidInput: It cannot be read, is larger, or is no UTF-8 text.
    """
    try:
        return read_file(path, most_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"Cannot read {os.fspath(path)}: it is not UTF-8 text.") from error


def is_plain_name(name: object) -> bool:
    """Say whether something is the name of a file in the same folder, on every system: no path, no device.

    Args:
        name: As another file states it.
    """
    if not isinstance(name, str) or not name.isprintable() or name in ("", ".", ".."):
        return False
    plain = not set(name) & set('/\\:*?"<>|') and name[-1] not in ". " and len(os.fsencode(name)) <= 255
    return plain and name.partition(".")[0].rstrip().lower() not in _DEVICES


@contextmanager
def refuse_misfit(path: str | os.PathLike[str], wanted: str) -> Iterator[None]:
    """Name the file where what it holds is not of the form in which it is taken apart inside the block.

    Args:
        path: The file, whose content passed its hash or has none.
        wanted: What it should be.

    Yields:
        Nothing.

    Raises:
        InvalidInput: The block failed over a missing entry, or one of another type or size.
    """
    try:
        yield
    except InvalidInput:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        detail = " ".join(str(error).split())[:200]
        raise InvalidInput(
            f"{os.fspath(path)} is not {wanted}: {type(error).__name__}{': ' * bool(detail)}{detail}."
        ) from error
