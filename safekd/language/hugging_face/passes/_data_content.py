"""What training data hold, as a hash: a run that goes on with other rows is another run.

Data of up to ``most_rows`` rows are read whole, of larger ones so many rows that are drawn once for all.  A stream says
nothing of itself until it is read, and rows that are drawn anew at each reading have no content that could be compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ....fingerprints import fingerprint
from ...rollouts import Rollouts
from ._sequence_columns import NumberedRows


@dataclass(frozen=True)
class ContentSettings:
    """How much of data is read for their hash; ``test_data_content.py`` notices.

    Attributes:
        most_rows: Rows, about a second for sequences of a thousand tokens.
        read_twice: Rows that are read twice, to see whether reading gives the same.
    """

    most_rows: int = 4096
    read_twice: int = 8


SETTINGS = ContentSettings()


def describe_data(data: Any, rollouts: Rollouts | None) -> dict[str, Any]:
    """Return what training data are, as plain JSON.

    Args:
        data: Of the trainer.
        rollouts: The same, where the student writes them.
    """
    if rollouts is not None:
        return rollouts.describe()
    if data is None or isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        return {"rows": None, "content": None}
    rows = data.rows if isinstance(data, NumberedRows) else data
    return {"rows": len(rows), "content": _hash_rows(rows)}


def _hash_rows(rows: Any) -> str:
    count = len(rows)
    places = list(range(count))
    if count > SETTINGS.most_rows:
        drawn = torch.randperm(count, generator=torch.Generator().manual_seed(count))[: SETTINGS.most_rows - 2]
        places = sorted({0, count - 1, *drawn.tolist()})
    few = places[: SETTINGS.read_twice]
    if [_hash_columns(rows[n]) for n in few] != [_hash_columns(rows[n]) for n in few]:
        return "drawn anew at each reading"
    digest = hashlib.sha256()
    for n in places:
        digest.update(_hash_columns(rows[n]))
    return digest.hexdigest()


def _hash_columns(row: Any) -> bytes:
    digest = hashlib.sha256()
    for name, value in sorted(row.items()) if isinstance(row, Mapping) else [("", row)]:
        digest.update(f"{name}\n".encode())
        digest.update(_encode_column(value))
    return digest.digest()


def _encode_column(value: Any) -> bytes:
    """Return the numbers of a column of a row, the same for a list, an array and a tensor of them."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy() if value.dtype != torch.bfloat16 else value.float().cpu().numpy()
    if isinstance(value, (list, tuple, np.ndarray, int, float, np.generic)):
        try:
            array = np.asarray(value)
        except ValueError:  # lists of unequal lengths
            return fingerprint(value).encode()
        if array.dtype.kind in "iub":
            return f"{array.shape}".encode() + array.astype(np.int64).tobytes()
        if array.dtype.kind == "f":
            return f"{array.shape}".encode() + array.astype(np.float64).tobytes()
    return str(value).encode() if isinstance(value, str) else fingerprint(value).encode()
