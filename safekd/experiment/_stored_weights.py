"""Weights that an experiment reads from a file, one row an example of the data.  Axes: N examples, M rows, K
teachers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..data import Split
from ..weights import Signals, Stored
from ._example_table import Array
from ._key_matching import match_keys


def read_stored_weights(
    path: Path, teachers: list[str], index: dict[str, Array], keys: Sequence[str] | None, column: str | None
) -> Stored:
    """Read weights, and hand each split its rows.

    Args:
        path: CSV or Parquet file with one column named after each teacher.
        teachers: Their names.
        index: Rows of the data that each split holds, by the split's name.
        keys: What the file calls the rows of the data, where ``column`` is given.
        column: The file's column of keys; None where its rows are in the order of the data.

    Raises:
        InvalidInput: The file lacks a teacher or an example, or has another number of rows than the data.
    """
    if column is None:
        size = sum(len(rows) for rows in index.values())
        place_N = np.arange(size)
    else:
        place_N, size = match_keys(path, column, keys, "Stored weights")
    stored = Stored(path)
    data = Split("data", torch.zeros(size, 1), torch.zeros(size, dtype=torch.long))
    stored.require_rows({data.name: data}, teachers)
    ones_MK = torch.ones(size, len(teachers), dtype=torch.float64)
    w_MK = stored(Signals(entropy=ones_MK, index=torch.arange(size), teachers=teachers))
    return Stored({name: w_MK[torch.from_numpy(place_N[rows])] for name, rows in index.items()}, teachers=teachers)
