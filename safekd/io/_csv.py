"""CSV files of any size, block by block, never more than some megabytes of them in memory.

``_csv_rows`` tells where rows and cells are in the bytes of the file.  Numbers come from text and go back to it by
pyarrow, correctly rounded one way and in the fewest digits that read back to the same bits the other way.  What is not
a new number is copied byte for byte.  Axes: N rows of a block, C columns of the file, K columns picked.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
from numpy.typing import NDArray

from ..errors import InvalidInput
from ._atomic import write_atomically
from ._cell_text import (
    FORMULA_SIGNS,
    Floats,
    Write,
    has_decimal_comma,
    is_formula,
    parse_number,
    parse_truths,
    refuse_cell,
    require_distinct_columns,
)
from ._csv_dialect import ASK_DECIMAL, ASK_SEPARATOR, CsvDialect, detect_dialect, parse_decimal, parse_separator
from ._csv_rows import COMMA, QUOTE, Places, count_line_breaks, find_rows
from ._table_paths import require_target

_CHUNK = 1 << 22  # bytes read at a time
_LONGEST_ROW = 1 << 26  # bytes; without an end to it, an open quote would take the rest of the file into memory
_WIDE = 100  # columns a row from which on pyarrow, which sets up each column, is slower than a cell at a time
_SIGNED_NUMBER = r"^[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


class CsvTable:
    """A CSV file with a header, UTF-8, open for reading; as ``Table`` says.

    Args:
        path: The file, as messages call it.
        stream: The same, open.
        head: What has been read of it already.
        separator: Name or sign of what separates cells; None where the file tells.
        decimal: Name or sign of the decimal sign.
    """

    def __init__(
        self, path: Path, stream: FileIO, head: bytes = b"", separator: str | None = None, decimal: str = "."
    ) -> None:
        self.path, self._stream = path, stream
        self._asked = parse_separator(separator)
        self.dialect = CsvDialect(self._asked or COMMA, parse_decimal(decimal))
        status = os.fstat(stream.fileno())
        self.total = status.st_size if stat.S_ISREG(status.st_mode) else None  # a pipe does not tell
        self._blocks = self._read_blocks(head)
        header = next(self._blocks, None)
        if header is None:
            raise InvalidInput(f"{self.path} is empty; wanted a header line and at least one row.")
        self._header = header
        self.columns = require_distinct_columns([header.cell(0, c) for c in range(header.begin_NC.shape[1])], path)
        self.place_of = {name: c for c, name in enumerate(self.columns)}

    def blocks(self) -> Iterator[CsvBlock]:
        """Go through all rows."""
        block = next(self._blocks, None)
        if block is None:
            raise InvalidInput(f"{self.path} has a header but no rows; wanted at least one.")
        while block is not None:
            yield block
            block = next(self._blocks, None)

    @contextmanager
    def copy(self, path: str | os.PathLike[str], columns: Sequence[str]) -> Iterator[Write]:
        """Yield a function that writes a block with new numbers in some columns, all else byte for byte.

        Cells that a spreadsheet would run get an apostrophe, as by ``write_csv``.  Rows end as the header does.

        Args:
            path: The new file; not this one.
            columns: Names of the columns that get new numbers, as many as the array of numbers (N, K) has.

        Raises:
            InvalidInput: It cannot be written.
        """
        target = require_target(path, self.path, parquet=False)
        number_of = {name: k for k, name in enumerate(columns)}
        new_C = [number_of.get(name) for name in self.columns]
        after = self._header.data[self._header.end_NC[0, -1] :]
        ending = next((end for end in (b"\r\n", b"\r", b"\n") if after.startswith(end)), b"\n")
        with write_atomically(target) as temporary, temporary.open("wb") as stream:

            def write(what: bytes | pa.Buffer) -> None:
                try:
                    stream.write(what)
                    stream.flush()
                except OSError as error:
                    raise InvalidInput(f"Cannot write {target}: {error.strerror}.") from error

            write(self.dialect.lead)
            write(self._header.paste_numbers([None] * len(new_C), np.empty((1, 0)), ending))
            yield lambda block, w_NK: write(block.paste_numbers(new_C, w_NK, ending))

    def _read_blocks(self, head: bytes) -> Iterator[CsvBlock]:
        """Yield the header as a block of its own, then all whole rows of each chunk, then raise what is wrong."""
        data, line, before, cells, begun = b"", 1, 0, 0, False
        decode = codecs.getincrementaldecoder("utf-8")().decode
        for chunk in self._read_chunks(head):
            data, final = data + chunk, not chunk
            try:
                decode(chunk, final)
            except UnicodeDecodeError as error:
                at = len(data) - len(error.object) + error.start
                raise InvalidInput(
                    f"{self.path} is not UTF-8 text; save it as CSV in UTF-8. Line "
                    f"{line + count_line_breaks(data[:at])} holds the byte 0x{data[at]:02x}."
                ) from error
            if not begun:
                dialect = detect_dialect(data, final, self._asked, self.dialect.decimal, self.path)
                if dialect is None and len(data) <= _LONGEST_ROW:
                    continue  # a pipe gives what it has
                self.dialect, begun = dialect or self.dialect, True
                lead = self.dialect.lead
                data, before, line = data[len(lead) :], len(lead), 1 + count_line_breaks(lead)
            rows = find_rows(data, final, self.dialect.separator)
            before += rows.stop
            if len(rows.cells_R):
                start = 0 if cells else 1
                cells = cells or int(rows.cells_R[0])
                uneven = np.flatnonzero(rows.cells_R != cells)
                even = int(uneven[0]) if len(uneven) else len(rows.cells_R)
                places = [place_J[: even * cells].reshape(even, cells) for place_J in (rows.begin_J, rows.end_J)]
                for part in (slice(0, start), slice(start, even)):
                    if part.start < part.stop:
                        yield CsvBlock(self, data, places[0][part], places[1][part], line, before)
                if len(uneven):
                    at = int(rows.begin_J[even * cells])
                    raise InvalidInput(
                        f"{self.path}, line {line + count_line_breaks(data[:at])}: found {rows.cells_R[even]} cells, "
                        f"the header has {cells}. If {self.dialect.separator_name} is not what separates them, "
                        f"{ASK_SEPARATOR}."
                    )
            if rows.fault is not None:
                line += count_line_breaks(data[: rows.fault_at])
                raise InvalidInput(f"{self.path}, line {line}: {rows.fault}; mend the quotes there.")
            line += count_line_breaks(data[: rows.stop])
            data = data[rows.stop :]
            if len(data) > _LONGEST_ROW:
                raise InvalidInput(
                    f"{self.path}, line {line}: the row is longer than {_LONGEST_ROW >> 20} MiB; most likely a quote "
                    "is not closed; mend the quotes there."
                )

    def _read_chunks(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the bytes of the file, and an empty chunk at its end."""
        while True:
            try:
                chunk += self._stream.read(_CHUNK) or b""
            except OSError as error:
                raise InvalidInput(f"Cannot read {self.path}: {error.strerror}.") from error
            yield chunk
            if not chunk:
                return
            chunk = b""


@dataclass(frozen=True)
class CsvBlock:
    """Some rows of a CSV file; as ``Block`` says.

    Attributes:
        table: What they are rows of.
        data: Bytes of the file, from the beginning of a row on.
        begin_NC: Where each cell begins in ``data``, quotes included.
        end_NC: Where it ends.
        line: The line of the file on which ``data`` begins.
        done: Bytes of the file up to the end of these rows.
    """

    table: CsvTable
    data: bytes
    begin_NC: Places
    end_NC: Places
    line: int
    done: int

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.begin_NC)

    def cell(self, row: int, c: int) -> str:
        """Return the text of a cell.

        Args:
            row: Number of the row in this block.
            c: Number of the column in the file.
        """
        return _unquote(self.data[self.begin_NC[row, c] : self.end_NC[row, c]])

    def texts(self, column: str) -> list[str]:
        """Return the texts of a column, (N,).

        Args:
            column: Its name.
        """
        return [_unquote(raw) for raw in self._column(column).to_pylist()]

    def line_numbers(self) -> NDArray[np.int64]:
        """Return the lines of the file on which the rows begin, (N,)."""
        edges = pairwise([0, *self.begin_NC[:, 0].tolist()])
        return self.line + np.cumsum([count_line_breaks(self.data[begin:end]) for begin, end in edges])

    def numbers(self, columns: Sequence[str]) -> NDArray[np.float64]:
        """Return columns as float64, (N, K).

        Args:
            columns: Their names.

        Raises:
            InvalidInput: A cell is no finite number; the first one is named.
        """
        places, decimal = [self.table.place_of[name] for name in columns], self.table.dialect.decimal
        x_NK = self._parse_numbers(places)
        if x_NK is None:  # pyarrow does not know all ways to write a number, "+1" for one
            x_NK = np.array([[parse_number(self.cell(n, c), decimal) for c in places] for n in range(self.rows)])
        bad = np.argwhere(~np.isfinite(x_NK))
        if len(bad):
            row, k = bad[0].tolist()
            raise self.explain_refusal(row, columns[k], "a finite number")
        return x_NK

    def truths(self, column: str) -> NDArray[np.bool_]:
        """Return a column of 0, 1, true and false, (N,).

        Args:
            column: Its name.

        Raises:
            InvalidInput: A cell is none of these; the first one is named.
        """
        encoded = self._column(column).dictionary_encode()
        texts = [_unquote(raw) for raw in encoded.dictionary.to_pylist()]
        true_N, wrong = parse_truths(texts, encoded.indices.to_numpy())
        if wrong is not None:
            raise self.explain_refusal(wrong, column, "0, 1, true or false")
        return true_N

    def place(self, row: int, column: str | None = None) -> str:
        """Return file and line of a row, or file, line and column of a cell.

        Args:
            row: Number of the row in this block.
            column: Name of the cell's column; None for the row.
        """
        c = 0 if column is None else self.table.place_of[column]
        line = self.line + count_line_breaks(self.data[: self.begin_NC[row, c]])
        return f"{self.table.path}, line {line}" + ("" if column is None else f", column '{column}'")

    def explain_refusal(self, row: int, column: str, wanted: str) -> InvalidInput:
        """Return the error about a cell.

        Args:
            row: Number of the row in this block.
            column: Name of the cell's column.
            wanted: What should stand there.
        """
        cell = self.cell(row, self.table.place_of[column])
        asked = self.table.dialect.decimal == ","
        hint = f"; {ASK_DECIMAL}" if has_decimal_comma(cell) and not asked else ""
        return refuse_cell(self.place(row, column), cell, wanted + hint)

    def paste_numbers(self, new_C: Sequence[int | None], w_NK: Floats, ending: bytes) -> pa.Buffer:
        """Return the rows as bytes, some of their cells replaced by numbers.

        Args:
            new_C: For each column of the file, which column of ``w_NK`` takes its place; None where its bytes stay.
            w_NK: The new numbers.
            ending: What ends each row.
        """
        dialect = self.table.dialect
        data, begin_NC, end_NC = self._guard_formulas([c for c, k in enumerate(new_C) if k is None])
        if len(new_C) > _WIDE * self.rows:
            texts = np.array(_write_numbers(w_NK, dialect).to_pylist(), object)
            number_KN = texts.reshape(w_NK.shape[1], self.rows)
            lines = [
                dialect.joint.join(
                    data[begin_NC[n, c] : end_NC[n, c]] if k is None else number_KN[k, n] for c, k in enumerate(new_C)
                )
                for n in range(self.rows)
            ]
            return pa.py_buffer(b"".join(line + ending for line in lines))
        parts: list[pa.Array | pa.Scalar] = []
        for kept, group in groupby(range(len(new_C)), key=lambda c: new_C[c] is None):
            columns = list(group)
            if kept:  # neighbours with the separators between them
                cells = [_slice_bytes(data, begin_NC[:, columns[0]], end_NC[:, columns[-1]])]
            else:
                picked = np.array([new_C[c] for c in columns])
                numbers = _write_numbers(w_NK[:, picked], dialect)  # column after column
                cells = [numbers.slice(n * self.rows, self.rows) for n in range(len(columns))]
            for one in cells:
                parts += [one, pa.scalar(dialect.joint)]
        joined = pc.binary_join_element_wise(*parts[:-1], pa.scalar(ending), pa.scalar(b""))
        _, edges, letters = joined.buffers()
        return letters.slice(0, int(np.frombuffer(edges, np.int32)[len(joined)]))

    def _parse_numbers(self, places: Sequence[int]) -> NDArray[np.float64] | None:
        """Return columns as pyarrow reads them, (N, K); None if it does not take them all for numbers, or is slow."""
        if self.begin_NC.shape[1] > _WIDE * self.rows:
            return None
        names = [str(c) for c in range(self.begin_NC.shape[1])]
        picked = [names[c] for c in places]
        rows = pa.py_buffer(self.data)[int(self.begin_NC[0, 0]) : int(self.end_NC[-1, -1])]
        try:
            table = pcsv.read_csv(
                pa.BufferReader(rows),
                pcsv.ReadOptions(use_threads=False, block_size=len(rows) + 1, column_names=names),
                pcsv.ParseOptions(delimiter=chr(self.table.dialect.separator), newlines_in_values=True),
                pcsv.ConvertOptions(
                    include_columns=picked,
                    column_types=dict.fromkeys(picked, pa.float64()),
                    null_values=[],
                    decimal_point=self.table.dialect.decimal,
                ),
            )
        except pa.ArrowInvalid:
            return None
        if len(table) != self.rows:  # no file is known that it cuts otherwise
            return None
        return np.stack([table[name].to_numpy() for name in picked], axis=1)

    def _column(self, name: str) -> pa.BinaryArray:
        """Return the bytes of a column's cells, (N,)."""
        c = self.table.place_of[name]
        return _slice_bytes(self.data, self.begin_NC[:, c], self.end_NC[:, c])

    def _guard_formulas(self, columns: list[int]) -> tuple[bytes, Places, Places]:
        """Return bytes and places with an apostrophe before what a spreadsheet would run in some columns."""
        byte_X = np.frombuffer(self.data, np.uint8)
        begin_M, end_M = self.begin_NC[:, columns].reshape(-1), self.end_NC[:, columns].reshape(-1)
        quoted_M = byte_X.take(begin_M, mode="clip") == QUOTE
        begin_M, end_M = begin_M + quoted_M, end_M - quoted_M
        signs = np.isin(np.arange(256), list(FORMULA_SIGNS.encode()))
        suspect = np.flatnonzero(signs[byte_X.take(begin_M, mode="clip")] & (begin_M < end_M))
        if len(suspect):
            plain = pc.match_substring_regex(_slice_bytes(self.data, begin_M[suspect], end_M[suspect]), _SIGNED_NUMBER)
            suspect = suspect[~plain.to_numpy(zero_copy_only=False)]
        decimal = self.table.dialect.decimal
        text_S = [self.data[begin_M[i] : end_M[i]].decode() for i in suspect]
        run_S = [is_formula(text, decimal) for text in text_S]
        guard = np.array([begin_M[i] for i, run in zip(suspect, run_S, strict=True) if run], np.int64)
        if not len(guard):
            return self.data, self.begin_NC, self.end_NC
        data = np.insert(byte_X, guard, ord("'")).tobytes()
        return data, self.begin_NC + guard.searchsorted(self.begin_NC), self.end_NC + guard.searchsorted(self.end_NC)


def _write_numbers(x_NK: Floats, dialect: CsvDialect) -> pa.BinaryArray:
    """Return numbers as bytes that read back to the same bits, (K * N,), one column after the other."""
    texts = pc.cast(pa.array(np.asarray(x_NK, np.float64).ravel(order="F")), pa.string())
    if dialect.decimal != ".":
        texts = pc.replace_substring(texts, ".", dialect.decimal)
        if ord(dialect.decimal) == dialect.separator:
            texts = pc.binary_join_element_wise('"', texts, '"', "")
    return pc.cast(texts, pa.binary())


def _slice_bytes(data: bytes, begin_M: Places, end_M: Places) -> pa.BinaryArray:
    """Return data[begin : end] for each pair of places, ascending and apart."""
    offset = np.stack([begin_M, end_M], axis=1).astype(np.int32)
    pieces = pa.Array.from_buffers(pa.binary(), 2 * len(begin_M) - 1, [None, pa.py_buffer(offset), pa.py_buffer(data)])
    return pieces.take(pa.array(np.arange(0, len(pieces), 2)))


def _unquote(raw: bytes) -> str:
    """Return what a cell says: without its quotes, doubled ones made single."""
    return raw[1:-1].decode().replace('""', '"') if raw.startswith(b'"') else raw.decode()
