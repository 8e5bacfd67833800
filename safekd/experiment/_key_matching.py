"""Rows of another file that belong to the examples of the data, found by a key that both have.  Axes: N examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidConfig, InvalidInput
from ..io import is_parquet, list_names, open_table

_IN_ROWS = (".npy", ".safetensors")  # files without columns


def require_distinct_keys(keys: Sequence[str], places: Sequence[object], column: str, source: str) -> None:
    """Refuse a key that two examples have.

    Args:
        keys: Of the examples, (N,).
        places: Line or row of each, (N,).
        column: Which holds them.
        source: The data, as messages call them.

    Raises:
        InvalidInput: One stands there twice; the message names it and both places.
    """
    first: dict[str, object] = {}
    for key, place in zip(keys, places, strict=True):
        if key in first:
            what = "rows" if is_parquet(Path(source)) else "lines"
            raise InvalidInput(
                f"{source}, column '{column}': {what} {first[key]} and {place} have the same key '{key}'; wanted a key "
                "of its own for each example."
            )
        first[key] = place


def match_keys(path: Path, column: str, keys: Sequence[str] | None, who: str) -> tuple[NDArray[np.int64], int]:
    """Return which row of a file each example has, (N,), and how many rows there are.

    Args:
        path: A CSV or Parquet file; rows of other examples may stand there too.
        column: Its column of keys.
        keys: Of the examples, (N,); None where the data are streamed.
        who: What wants them, as messages call it.

    Raises:
        InvalidConfig: The file has no columns, or the data have no keys in memory.
        InvalidInput: The column is missing, a key stands there twice, or an example has no row.
    """
    if path.suffix.lower() in _IN_ROWS:
        raise InvalidConfig(f"{who}: `key` names a column of a CSV or Parquet file, and {path.name} is none.")
    if keys is None:
        raise InvalidConfig(
            f"{who}: rows are matched by `key`, which needs the keys of all examples in memory, and the data are "
            "streamed. Give data.stream = false, or store rows in the order of the data, without `key`."
        )
    found: dict[str, int] = {}
    with open_table(path) as table:
        if column not in table.columns:
            raise InvalidInput(f"{who}: {path} has no key column '{column}'; it has: {list_names(table.columns)}.")
        rows = 0
        for block in table.blocks():
            for row, cell in enumerate(block.texts(column)):
                if found.setdefault(cell.strip(), rows + row) != rows + row:
                    raise block.explain_refusal(row, column, "a key that stands there once")
            rows += block.rows
    if missing := [key for key in keys if key not in found]:
        raise InvalidInput(
            f"{who}: {path}, column '{column}', lacks {len(missing):,} of the {len(keys):,} keys of the data: "
            f"{list_names([repr(key) for key in missing])}; wanted a row for each example."
        )
    return np.array([found[key] for key in keys], dtype=np.int64), rows
