"""Weights that an experiment reads from a file, one row an example of the data.  Axes: N examples, K teachers."""

from __future__ import annotations

from pathlib import Path

import torch

from ..data import Split
from ..weights import Signals, Stored
from ._example_table import Array


def read_stored_weights(path: Path, teachers: list[str], index: dict[str, Array]) -> Stored:
    """Read weights in the order of the data, and hand each split its rows.

    Args:
        path: CSV or Parquet file with one column named after each teacher.
        teachers: Their names.
        index: Rows of the data that each split holds, by the split's name.

    Raises:
        InvalidInput: The file lacks a teacher, or has another number of rows than the data.
    """
    size = sum(len(rows) for rows in index.values())
    stored = Stored(path)
    data = Split("data", torch.zeros(size, 1), torch.zeros(size, dtype=torch.long))
    stored.require_rows({data.name: data}, teachers)
    ones_NK = torch.ones(size, len(teachers), dtype=torch.float64)
    w_NK = stored(Signals(entropy=ones_NK, index=torch.arange(size), teachers=teachers))
    return Stored({name: w_NK[torch.from_numpy(rows)] for name, rows in index.items()}, teachers=teachers)
