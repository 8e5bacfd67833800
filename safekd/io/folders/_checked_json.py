"""JSON files that hold the SHA-256 of their own text: any byte that was changed is seen."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import InvalidInput
from .._atomic import write_atomically
from .._regular_files import read_text_file

_KEY, _BLANK = "sha256", "0" * 64  # the hash is that of the text in which it is all zeros


def format_checked_json(record: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> str:
    """Return a record as JSON text whose last entry, ``sha256``, is the hash of that text.

    Args:
        record: Entries by name; one called ``sha256`` is replaced.
        default: Turns what JSON does not know into what it does; None to refuse it.
    """
    stated = {name: value for name, value in record.items() if name != _KEY}
    text = json.dumps({**stated, _KEY: _BLANK}, indent=2, default=default) + "\n"
    return _put_hash(text, hashlib.sha256(text.encode()).hexdigest())


def parse_checked_json(text: str, name: str) -> dict[str, Any]:
    """Return the record in a text of ``format_checked_json``.

    Args:
        text: Of the file; line ends of any system.
        name: What messages call the file.

    Returns:
        The record, without its hash.

    Raises:
        InvalidInput: It is no JSON object, holds no hash of its own, or is not the text that was hashed.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} is no readable JSON: {error}.") from error
    stated = record.pop(_KEY, None) if isinstance(record, dict) else None
    if not isinstance(stated, str):
        raise InvalidInput(f"{name} is not what was written: it holds no `{_KEY}` of its own text.")
    blank = _put_hash(text.replace("\r\n", "\n"), _BLANK)
    if hashlib.sha256(blank.encode("utf-8", "surrogatepass")).hexdigest() != stated:
        raise InvalidInput(f"{name} is not what was written: its text does not have the `{_KEY}` that it states.")
    return dict(record)


def write_checked_json(record: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a record with the hash of its text; the file appears whole or not at all.

    Args:
        record: Entries by name, as JSON has them.
        path: The file.
    """
    with write_atomically(path) as temporary:
        temporary.write_text(format_checked_json(record), encoding="utf-8")


def read_checked_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what ``write_checked_json`` wrote.

    Args:
        path: The file.

    Raises:
        InvalidInput: It cannot be read, or is not what was written.
    """
    return parse_checked_json(read_text_file(path), os.fspath(path))


def _put_hash(text: str, digest: str) -> str:
    """Return the text with another hash in its last entry."""
    head, found, tail = text.rpartition(f'"{_KEY}": "')
    return f"{head}{found}{digest}{tail[len(digest) :]}"
