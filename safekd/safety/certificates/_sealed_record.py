"""JSON records that carry a hash of themselves, so that a digit changed by hand or by a broken disk is noticed.

The hash is no signature: whoever means to deceive can work it out anew.  A signed message may hold it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InvalidInput
from ...io import read_text_file, refuse_misfit, write_atomically

SEAL = "sha256"
_MOST_BYTES = 1 << 20  # a certificate has a few thousand
_DIGITS = 64  # of a hash


def seal_record(record: Mapping[str, Any]) -> str:
    """Return a record as JSON, with the SHA-256 of its content at the end.

    Args:
        record: Plain JSON, without NaN.

    Raises:
        ValueError: A number is not finite.
    """
    return json.dumps({**record, SEAL: _hash_sealed(record)}, indent=2, allow_nan=False) + "\n"


def write_sealed_record(record: Mapping[str, Any], path: str | Path) -> Path:
    """Write a record, whole or not at all; what was there before stays where that fails.

    Args:
        record: Plain JSON, without NaN.
        path: The file; its folder is made.

    Returns:
        The path.

    Raises:
        InvalidInput: It cannot be written there.
    """
    text = seal_record(record)
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def read_sealed_record(path: str | Path, what: str) -> dict[str, Any]:
    """Return a record without its hash.

    Args:
        path: The file.
        what: What it should hold, for messages.

    Raises:
        InvalidInput: It cannot be read, is no such JSON, or is not what was written.
    """
    text = read_text_file(path, _MOST_BYTES)
    with refuse_misfit(path, what):
        record = json.loads(text, object_pairs_hook=_refuse_twins, parse_constant=_refuse_constant)
        if not isinstance(record, dict):
            raise TypeError(f"it holds a {type(record).__name__}, not an object")
        seal = record.pop(SEAL, None)
        if not isinstance(seal, str) or len(seal) != _DIGITS:
            raise ValueError(f"it has no '{SEAL}'")
        found = _hash_sealed(record)
    if found != seal:
        raise InvalidInput(
            f"{path} is not what was written there: its content has SHA-256 {found[:12]}..., and it says "
            f"{seal[:12]}.... Somebody changed it, or it was damaged; take the original, or certify again."
        )
    return record


def _hash_sealed(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a key occurs twice")
    return record


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number that JSON has")
