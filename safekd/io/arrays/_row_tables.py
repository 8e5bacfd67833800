"""What tables of rows have in common, one file or several, all rows or some."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ...errors import InvalidInput
from .._table_paths import is_parquet, read_path
from ._bound_file import BoundFile
from ._parquet_rows import ParquetRows
from ._raw_rows import read_npy_header, read_safetensors_header

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@runtime_checkable
class RowTable(Protocol):
    """Rows that are read when they are asked for.

    Attributes:
        name: What messages call the table.
        dtype: Of the numbers.
        shape: Of the table, (N, ..., V).
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def read(self, place: Tensor) -> Tensor:
        """Return some rows.

        Args:
            place: Their numbers, (B,), from 0 to N - 1.

        Returns:
            (B, ..., V), on the processor.
        """
        ...

    def fingerprint(self) -> str:
        """Return what changes with the content of the table."""
        ...


def open_rows(paths: Paths, *, tensor: str | None = None, columns: Sequence[str] | None = None) -> RowTable:
    """Open a table that stays in its file, or in several, whose rows follow each other.

    Args:
        paths: A .npy, .safetensors or Parquet file, known by its suffix; or a list of some.
        tensor: Which tensor of .safetensors files; None where they hold one.
        columns: Which columns of Parquet files, in the order of the classes; None for all.

    Raises:
        InvalidInput: A file cannot be used; the message names it.
    """
    if isinstance(paths, (str, os.PathLike)):
        return _open_file(paths, tensor, columns)
    parts = [_open_file(path, tensor, columns) for path in paths]
    if not parts:
        raise InvalidInput("The list of files is empty; wanted at least one.")
    return parts[0] if len(parts) == 1 else JoinedRows(parts)


def _open_file(path: str | os.PathLike[str], tensor: str | None, columns: Sequence[str] | None) -> RowTable:
    file = read_path(path, "The table")
    suffix = file.suffix.lower()
    if is_parquet(file):
        _require_none(tensor, "tensor", file)
        return ParquetRows(BoundFile(file), columns)
    _require_none(columns, "columns", file)
    if suffix == ".npy":
        _require_none(tensor, "tensor", file)
        return read_npy_header(BoundFile(file))
    if suffix == ".safetensors":
        return read_safetensors_header(BoundFile(file), tensor)
    raise InvalidInput(f"Cannot tell what {file} holds; wanted a name that ends in .npy, .safetensors or .parquet.")


def _require_none(given: object, what: str, file: Path) -> None:
    if given is not None:
        raise InvalidInput(f"`{what}` is given, and {file} has none; leave it out.")


class JoinedRows:
    """Several tables, the rows of one after those of the other.

    Args:
        parts: At least one.

    Attributes:
        name: What messages call the table.
        dtype: Of the numbers: the widest of the parts'.
        shape: Of the whole, (N, ..., V).

    Raises:
        InvalidInput: Their rows have different shapes.
    """

    def __init__(self, parts: Sequence[RowTable]) -> None:
        self.parts = list(parts)
        first = self.parts[0]
        for part in self.parts:
            if part.shape[1:] != first.shape[1:]:
                raise InvalidInput(
                    f"{part.name} has rows of shape {part.shape[1:]}, {first.name} of {first.shape[1:]}; wanted parts "
                    "of one table."
                )
            self.dtype = torch.promote_types(getattr(self, "dtype", part.dtype), part.dtype)
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in self.parts])])
        self.shape = (int(self._starts[-1]), *first.shape[1:])
        self.name = f"{first.name} and {len(self.parts) - 1} more"

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, place: Tensor) -> Tensor:
        """Return some rows.

        Args:
            place: Their numbers, (B,), from 0 to N - 1.

        Returns:
            (B, ..., V), on the processor.
        """
        place_B = place.cpu()
        part_B = torch.from_numpy(np.searchsorted(self._starts, place_B.numpy(), side="right") - 1)
        rows = torch.empty(len(place_B), *self.shape[1:], dtype=self.dtype)
        for part in set(part_B.tolist()):
            members = part_B == part
            rows[members] = self.parts[part].read(place_B[members] - int(self._starts[part])).to(self.dtype)
        return rows

    def fingerprint(self) -> str:
        """Return what changes with the content of a part, or with their order."""
        return "; ".join(part.fingerprint() for part in self.parts)


class SelectedRows:
    """Some rows of a table, in an order of their own.

    Args:
        table: The whole.
        rows: Which rows, (N,).

    Attributes:
        name: What messages call the table.
        dtype: Of the numbers.
        shape: Of the part, (N, ..., V).
    """

    def __init__(self, table: RowTable, rows: Tensor) -> None:
        self.table, self.rows = table, rows.cpu()
        self.name, self.dtype, self.shape = table.name, table.dtype, (len(rows), *table.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, place: Tensor) -> Tensor:
        """Return some rows.

        Args:
            place: Their numbers in this part, (B,).

        Returns:
            (B, ..., V), on the processor.
        """
        return self.table.read(self.rows[place.cpu()])

    def fingerprint(self) -> str:
        """Return what changes with the content of the whole; which rows are meant, the examples' own content tells."""
        return self.table.fingerprint()
