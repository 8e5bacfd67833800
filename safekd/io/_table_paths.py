"""Which files are read and written."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path

from ..errors import InvalidInput

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
    """Open a file for reading what is there, a pipe too.

    Args:
        file: Its path.

    Raises:
        InvalidInput: It cannot be opened; the message says why.
    """
    try:
        return file.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise InvalidInput(f"There is no file {file}; check the path.") from error
    except OSError as error:
        raise InvalidInput(f"Cannot read {file}: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidInput(f"Cannot read {file}: {error}.") from error


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
