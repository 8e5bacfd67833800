"""Parquet files of any size, a batch of rows at a time.

Columns that get no new numbers keep their types and values, and so do the schema's own words (metadata).  Whole
numbers, decimals, floats of any width and dictionaries of these are read as the nearest float64, or as float32 where
all the columns asked for are no wider, and written as that.  Rows are counted from 1.
Axes: N rows of a block, K columns picked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..errors import InvalidInput
from ._atomic import write_atomically
from ._cell_text import Floats, Write, parse_truths, refuse_cell, require_distinct_columns
from ._table_paths import require_target

_T = TypeVar("_T")
_TRUTH_TYPES = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_null,
)
_NAME_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean)
_ROWS = 1 << 17  # of a block, and of a row group that is written
_BUFFER = 1 << 20  # bytes of a column read ahead; without it a whole row group would come into memory


class ParquetTable:
    """A Parquet file, open for reading; as ``Table`` says.

    Args:
        path: The file, as messages call it.
        stream: The same, open.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        try:
            self._file = pq.ParquetFile(stream, buffer_size=_BUFFER, pre_buffer=False)
            self.schema = self._file.schema_arrow
            self.columns = require_distinct_columns(self.schema.names, path)
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"{path} has a column whose name is not UTF-8 text ({error.object!r}); write it with another name."
            ) from error
        except (pa.ArrowException, OSError) as error:
            raise _refuse_file(path, error) from error
        self.place_of = {name: c for c, name in enumerate(self.columns)}
        self.total: int | None = self._file.metadata.num_rows

    def list_runs(self, rows: int) -> list[ParquetRun]:
        """Return runs of neighboring row groups, which can be read in any order.

        Args:
            rows: Of a run at least, but for the last.
        """
        runs, first, groups, held = list[ParquetRun](), 0, list[int](), 0
        for group in range(self._file.metadata.num_row_groups):
            groups.append(group)
            held += self._file.metadata.row_group(group).num_rows
            if held >= rows or group + 1 == self._file.metadata.num_row_groups:
                runs.append(ParquetRun(first, tuple(groups)))
                first, groups, held = first + held, [], 0
        return runs

    def blocks(self, run: ParquetRun | None = None, columns: Sequence[str] | None = None) -> Iterator[ParquetBlock]:
        """Go through all rows, or those of a run.

        Args:
            run: Of ``list_runs``; None for all rows.
            columns: Those that are read; None for all.
        """
        if not self.total:
            raise InvalidInput(f"{self.path} has columns but no rows; wanted at least one.")
        done, groups = (0, None) if run is None else (run.first, list(run.groups))
        names = None if columns is None else [*columns]
        batches = self._file.iter_batches(batch_size=_ROWS, row_groups=groups, columns=names)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise _refuse_file(self.path, error) from error
            if batch is None:
                break
            done += len(batch)
            yield ParquetBlock(self, batch, done)
        if run is None and done != self.total:
            raise InvalidInput(f"{self.path} is damaged: it speaks of {self.total:,} rows and holds {done:,}.")

    @contextmanager
    def copy(self, path: str | os.PathLike[str], columns: Sequence[str]) -> Iterator[Write]:
        """Yield a function that writes a block with new numbers (N, K) in some columns and all others as they were.

        Args:
            path: The new file; not this one.
            columns: Names of the columns that get new numbers, in the order of the K numbers.

        Raises:
            InvalidInput: It cannot be written.
        """
        target = require_target(path, self.path, parquet=True)
        kind = pa.from_numpy_dtype(self.float_type(columns))
        fields = list(self.schema)
        for name in columns:
            fields[self.place_of[name]] = fields[self.place_of[name]].with_type(kind)
        schema = pa.schema(fields, self.schema.metadata)
        with write_atomically(target) as temporary:
            writer = _call_writer(target, lambda: pq.ParquetWriter(temporary, schema))

            def write(block: ParquetBlock, w_NK: Floats) -> None:
                arrays = block.batch.columns
                for k, name in enumerate(columns):
                    arrays[self.place_of[name]] = pa.array(np.ascontiguousarray(w_NK[:, k]), kind)
                batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
                _call_writer(target, lambda: writer.write_batch(batch))

            try:
                yield write
            finally:
                _call_writer(target, writer.close)

    def holds_floats(self, column: str) -> bool:
        """Return whether a column holds floats or decimals.

        Args:
            column: Its name.
        """
        kind = _find_value_type(self.schema.field(self.place_of[column]).type)
        return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))

    def holds_numbers(self, column: str) -> bool:
        """Return whether a column holds numbers of any kind.

        Args:
            column: Its name.
        """
        kind = _find_value_type(self.schema.field(self.place_of[column]).type)
        return self.holds_floats(column) or bool(pa.types.is_integer(kind))

    def float_type(self, columns: Sequence[str]) -> type[np.floating[Any]]:
        """Return the float type that holds some columns.

        Args:
            columns: Their names.

        Raises:
            InvalidInput: One of them holds no numbers.
        """
        wide = False
        for name in columns:
            kind = _find_value_type(self.schema.field(self.place_of[name]).type)
            if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
                raise InvalidInput(f"{self.path}, column '{name}': found values of type {kind}, wanted numbers.")
            wide = wide or not (pa.types.is_float32(kind) or pa.types.is_float16(kind))
        return np.float64 if wide else np.float32


@dataclass(frozen=True)
class ParquetRun:
    """Some neighboring row groups.

    Attributes:
        first: Number of the first row, from 0.
        groups: Numbers of the row groups.
    """

    first: int
    groups: tuple[int, ...]


@dataclass(frozen=True)
class ParquetBlock:
    """Some rows of a Parquet file; as ``Block`` says.

    Attributes:
        table: What they are rows of.
        batch: The rows.
        done: Rows of the file up to the end of these.
    """

    table: ParquetTable
    batch: pa.RecordBatch
    done: int

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.batch)

    def numbers(self, columns: Sequence[str]) -> Floats:
        """Return columns as floats, (N, K).

        Args:
            columns: Their names.

        Raises:
            InvalidInput: A cell is no finite number; the first one is named.
        """
        kind = self.table.float_type(columns)
        x_NK = np.empty((self.rows, len(columns)), kind)
        for k, name in enumerate(columns):
            array = self._column(name)
            if pa.types.is_dictionary(array.type):
                array = array.dictionary_decode()
            if pa.types.is_decimal(array.type):  # by their text: Arrow's own cast is up to an ulp off
                array = pc.cast(array, pa.string())
            array = pc.cast(array, pa.from_numpy_dtype(kind), safe=False)  # huge whole numbers round to the nearest
            x_NK[:, k] = array.to_numpy(zero_copy_only=False)  # and what is missing becomes NaN
        bad = np.argwhere(~np.isfinite(x_NK))
        if len(bad):
            row, k = bad[0].tolist()
            raise self.explain_refusal(row, columns[k], "a finite number")
        return x_NK

    def truths(self, column: str) -> NDArray[np.bool_]:
        """Return a column of booleans, or of 0, 1, true and false as numbers or text, (N,).

        Args:
            column: Its name.

        Raises:
            InvalidInput: A cell is none of these; the first one is named.
        """
        kind = _find_value_type(self._column(column).type)
        if not any(is_kind(kind) for is_kind in _TRUTH_TYPES):
            raise InvalidInput(
                f"{self.table.path}, column '{column}': found values of type {kind}, wanted 0, 1, true or false."
            )
        array = self._column(column)
        plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
        encoded = pc.dictionary_encode(plain, null_encoding="encode")
        try:
            cells = encoded.dictionary.to_pylist()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{self.table.path}, column '{column}': found text that is not UTF-8.") from error
        texts = [cell if isinstance(cell, str) else str(int(cell)) if cell in (0, 1) else str(cell) for cell in cells]
        true_N, wrong = parse_truths(texts, encoded.indices.to_numpy())
        if wrong is not None:
            raise self.explain_refusal(wrong, column, "0, 1, true or false")
        return true_N

    def names(self, column: str) -> tuple[list[str], NDArray[np.int64]]:
        """Return the different cells of a column as text, and which each row has, (N,).

        Args:
            column: Its name; of text, whole numbers or booleans.

        Raises:
            InvalidInput: A cell is empty, which is named, or the column holds something else.
        """
        array = self._column(column)
        plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
        if not any(is_kind(plain.type) for is_kind in _NAME_TYPES):
            raise InvalidInput(
                f"{self.table.path}, column '{column}': found values of type {plain.type}, wanted text or whole "
                "numbers."
            )
        encoded = pc.dictionary_encode(plain, null_encoding="encode")
        try:
            cells = encoded.dictionary.to_pylist()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{self.table.path}, column '{column}': found text that is not UTF-8.") from error
        texts = ["" if cell is None else str(cell).strip() for cell in cells]
        number_N = encoded.indices.to_numpy()
        if "" in texts:
            raise self.explain_refusal(int((number_N == texts.index("")).argmax()), column, "a name")
        return texts, number_N.astype(np.int64)

    def texts(self, column: str) -> list[str]:
        """Return the cells of a column as text, (N,), whatever they hold; empty ones as "".

        Args:
            column: Its name.

        Raises:
            InvalidInput: It is no text that can be read.
        """
        try:
            return ["" if cell is None else str(cell) for cell in self._column(column).to_pylist()]
        except (UnicodeDecodeError, pa.ArrowException, ValueError, OverflowError) as error:
            raise InvalidInput(f"{self.table.path}, column '{column}': a cell cannot be read: {error}.") from error

    def place(self, row: int, column: str | None = None) -> str:
        """Return file and row, and column of a cell; the first row is 1.

        Args:
            row: Number of the row in this block.
            column: Name of the cell's column; None for the row.
        """
        words = f"{self.table.path}, row {self.done - self.rows + row + 1}"
        return words if column is None else f"{words}, column '{column}'"

    def explain_refusal(self, row: int, column: str, wanted: str) -> InvalidInput:
        """Return the error about a cell.

        Args:
            row: Number of the row in this block.
            column: Name of the cell's column.
            wanted: What should stand there.
        """
        cell = self._column(column)[row].as_py()
        return refuse_cell(self.place(row, column), "" if cell is None else cell, wanted)

    def _column(self, name: str) -> Any:
        return self.batch.column(name)


def _find_value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's values: a dictionary-encoded one holds those of its dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _call_writer(path: Path, call: Callable[[], _T]) -> _T:
    try:
        return call()
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"Cannot write {path}: {str(error).splitlines()[0].rstrip('.')}.") from error


def _refuse_file(path: Path, error: Exception) -> InvalidInput:
    return InvalidInput(f"{path} cannot be read as Parquet: {str(error).splitlines()[0].rstrip('.')}.")
