"""Rows of Parquet files by their numbers: row group by row group, the last few of which are kept.  Axes: V columns."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InvalidInput
from .._cell_text import refuse_cell, require_distinct_columns
from ._bound_file import BoundFile


@dataclass(frozen=True)
class ParquetRowSettings:
    """How much of a Parquet file is in memory; ``tests/safekd/io/test_arrays.py`` would notice.

    Attributes:
        kept_bytes: Of row groups that were read lately.
        group_bytes: Of one row group, which is read as a whole: a file with larger ones is refused.
    """

    kept_bytes: int = 64 << 20
    group_bytes: int = 256 << 20


PARQUET_ROWS = ParquetRowSettings()


class ParquetRows:
    """Rows of a Parquet file with one column of floats a class.

    A row is found in its row group, which is read whole.  Rows in their order read each group once; rows in any order
    of a table of many groups read one for almost each row, so that such a table is better stored as .npy.

    Args:
        file: The file, open.
        columns: Names of the V columns; None for all, in the order of the file.

    Attributes:
        name: What messages call the table.
        dtype: Of the numbers: float32 where no column is wider, else float64.
        shape: Of the table, (N, V).

    Raises:
        InvalidInput: It is no Parquet file, or a column is missing or holds no floats.
    """

    def __init__(self, file: BoundFile, columns: Sequence[str] | None = None) -> None:
        self.name, self.file = str(file.path), file
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._open()
        schema = self._parquet.schema_arrow
        known = self._call(lambda: require_distinct_columns(schema.names, file.path))
        self.columns = tuple(known if columns is None else columns)
        if missing := [name for name in self.columns if name not in known]:
            raise InvalidInput(
                f"{self.name} has no column '{missing[0]}'; it has: {', '.join(known)}. Wanted one column a class."
            )
        kinds = [schema.field(known.index(name)).type for name in self.columns]
        wrong = [name for name, kind in zip(self.columns, kinds, strict=True) if not pa.types.is_floating(kind)]
        if wrong:
            kind = schema.field(known.index(wrong[0])).type
            raise InvalidInput(
                f"{self.name}, column '{wrong[0]}': found values of type {kind}; wanted floats, one column a class. "
                "Name the classes' columns where there are others."
            )
        self.dtype = torch.float64 if any(pa.types.is_float64(kind) for kind in kinds) else torch.float32
        sizes = self._read_group_sizes()
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self.shape: tuple[int, ...] = (int(self._starts[-1]), len(self.columns))
        if not all(self.shape):
            raise InvalidInput(f"{self.name} holds a table of shape {self.shape}; wanted at least one row and column.")

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        """Travel without what was read."""
        return {**self.__dict__, "_parquet": None, "_stream": None, "_kept": OrderedDict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def read(self, place: Tensor) -> Tensor:
        """Return some rows; groups that were not read lately are read now.

        Args:
            place: Their numbers, (B,), from 0 to N - 1.

        Returns:
            (B, V), on the processor.

        Raises:
            InvalidInput: The file was changed since it was opened, or a cell is missing.
        """
        self.file.require_unchanged()
        place_B = place.cpu().numpy()
        group_B = np.searchsorted(self._starts, place_B, side="right") - 1
        rows_BV = np.empty((len(place_B), len(self.columns)), np.float64 if self.dtype == torch.float64 else np.float32)
        for group in np.unique(group_B).tolist():
            members = group_B == group
            rows_BV[members] = self._read_group(group)[place_B[members] - self._starts[group]]
        return torch.from_numpy(rows_BV)

    def fingerprint(self) -> str:
        """Return what changes with the content of the file, or with the columns that are read."""
        return f"{self.shape} {self.dtype} {self.columns} {self.file.hash_content()}"

    def _open(self) -> None:
        self._stream = _PlacedReader(self.file)
        self._parquet = self._call(lambda: pq.ParquetFile(self._stream, pre_buffer=False))

    def _read_group_sizes(self) -> list[int]:
        """Return how many rows each group has, none of them too many to be read as a whole."""
        metadata = self._parquet.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        row_bytes = len(self.columns) * self.dtype.itemsize
        if min(sizes, default=0) < 0 or sum(sizes) != metadata.num_rows:
            raise InvalidInput(f"{self.name} is damaged: its row groups do not add up to {metadata.num_rows:,} rows.")
        if max(sizes, default=0) * row_bytes > PARQUET_ROWS.group_bytes:
            raise InvalidInput(
                f"{self.name} speaks of a row group of {max(sizes):,} rows, {max(sizes) * row_bytes:,} bytes, which "
                f"would be read as a whole; wanted at most {PARQUET_ROWS.group_bytes:,}. Write it with row_group_size="
                f"{max(1, min(100_000, PARQUET_ROWS.group_bytes // row_bytes)):,} or so, or as .npy."
            )
        return sizes

    def _read_group(self, group: int) -> NDArray[Any]:
        if group in self._kept:
            self._kept.move_to_end(group)
            return self._kept[group]
        table = self._call(lambda: self._parquet.read_row_group(group, list(self.columns), use_threads=False))
        rows = int(self._starts[group + 1] - self._starts[group])
        if len(table) != rows:
            raise InvalidInput(
                f"{self.name} is damaged: row group {group} holds {len(table):,} rows; wanted {rows:,}, as it says."
            )
        if holes := [name for name in self.columns if table[name].null_count]:
            row = int(self._starts[group]) + int(table[holes[0]].is_null().to_numpy().argmax())
            raise refuse_cell(f"{self.name}, row {row + 1}, column '{holes[0]}'", "", "a number")
        kind = np.float64 if self.dtype == torch.float64 else np.float32
        rows_NV = np.stack([table[name].to_numpy().astype(kind, copy=False) for name in self.columns], axis=1)
        self._kept[group] = rows_NV
        while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > PARQUET_ROWS.kept_bytes:
            self._kept.popitem(last=False)
        return rows_NV

    def _call(self, read: Any) -> Any:
        try:
            return read()
        except InvalidInput:
            raise
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{self.file.path} has a column whose name is not UTF-8 text.") from error
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise InvalidInput(f"{self.file.path} cannot be read as Parquet: {reason}.") from error


class _PlacedReader:
    """A file for Arrow, with a place of its own: processes that share the handle do not move each other's."""

    closed = False

    def __init__(self, file: BoundFile) -> None:
        self._file, self._place = file, 0

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._file.size - self._place)
        data = self._file.read_at(self._place, left if size is None or size < 0 else min(size, left))
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._file.size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def flush(self) -> None:
        pass
