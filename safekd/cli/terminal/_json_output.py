"""``--json``: one object on standard output for machines, and nothing else there."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console


@contextmanager
def keep_quiet(console: Console, wanted: bool) -> Iterator[None]:
    """Print nothing for people while a command works for a machine.

    Args:
        console: Where people read.
        wanted: Whether ``--json`` was given.
    """
    before = console.quiet
    console.quiet = before or wanted
    try:
        yield
    finally:
        console.quiet = before


def print_json(record: Mapping[str, Any]) -> None:
    """Print a record as one line of JSON; numbers that are not finite become null.

    Args:
        record: Entries by name.
    """
    sys.stdout.write(json.dumps(_make_plain_json(record), allow_nan=False) + "\n")


def _make_plain_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _make_plain_json(inside) for key, inside in value.items()}
    if isinstance(value, (list, tuple)):
        return [_make_plain_json(inside) for inside in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
