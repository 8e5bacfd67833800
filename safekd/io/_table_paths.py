"""Which files are read and written."""

from __future__ import annotations

import os
import select
from io import FileIO
from pathlib import Path

from ..errors import InvalidInput
from ._regular_files import PIPE, open_without_waiting, refuse_kind

_PATIENCE = 3.0  # seconds that a pipe without a writer is waited for: a shell starts one at once
_SUFFIXES = (".parquet", ".parq", ".pq")


def read_path(path: object, what: str) -> Path:
    """Return a path.

    Args:
        path: Text or a path.
        what: What messages call it.

    Raises:
        InvalidInput: It is neither.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidInput(f"{what} is a {type(path).__name__}; wanted a path.")
    try:
        return Path(path)
    except TypeError as error:  # of bytes
        raise InvalidInput(f"{what} is {path!r}; wanted a path that is text.") from error


def open_source(file: Path) -> FileIO:
    """Open a file for reading what is there, or a pipe that somebody writes to.

    Args:
        file: Its path.

    Raises:
        InvalidInput: It cannot be opened, is a folder or a device, or a pipe to which nobody writes.
    """
    try:
        handle, kind = open_without_waiting(file)
    except InvalidInput as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise InvalidInput(f"There is no file {file}; check the path.") from error
        raise
    try:
        if kind == PIPE:
            _require_writer(handle, file)
            os.set_blocking(handle, True)
        elif kind is not None:
            raise refuse_kind(file, kind)
        return os.fdopen(handle, "rb", buffering=0)
    except BaseException:
        os.close(handle)
        raise


def _require_writer(handle: int, file: Path) -> None:
    """Refuse a pipe in which there is nothing after a while, and to which nobody writes."""
    if select.select([handle], [], [], _PATIENCE)[0]:
        return
    try:
        late = os.read(handle, 1)
    except BlockingIOError:  # somebody has opened it, and takes time
        return
    when = "only now did somebody write to it; try again" if late else "nobody writes to it"
    raise InvalidInput(f"Cannot read {file}: it is a named pipe, and {when}.")


def read_first_bytes(stream: FileIO, file: Path) -> bytes:
    """Return the first four bytes, or fewer.

    Args:
        stream: The file, open.
        file: Its path.

    Raises:
        InvalidInput: They cannot be read; the message says why.
    """
    try:
        return stream.read(4) or b""
    except OSError as error:
        raise InvalidInput(f"Cannot read {file}: {error.strerror}.") from error


def is_parquet(file: Path) -> bool:
    """Return whether a file's name says that it is Parquet.

    Args:
        file: Its path.
    """
    return file.suffix.lower() in _SUFFIXES


def require_target(path: str | os.PathLike[str], source: Path, parquet: bool) -> Path:
    """Return the path of a copy.

    Args:
        path: Where it shall be written.
        source: What is copied.
        parquet: Whether that is a Parquet file.

    Raises:
        InvalidInput: ``path`` is the source itself, or its name is that of another format.
    """
    target = read_path(path, "The output")
    if target.exists() and source.exists() and target.samefile(source):
        raise InvalidInput(f"{target} is the input itself, which would be lost; write to another file.")
    if is_parquet(target) != parquet:
        given, wanted = ("Parquet", "CSV") if parquet else ("CSV", "Parquet")
        raise InvalidInput(
            f"{source} is a {given} file, and the name {target.name} is that of a {wanted} file; formats are not "
            f"converted. Choose a name {'that ends in .parquet' if parquet else f'without {target.suffix}'}."
        )
    return target
