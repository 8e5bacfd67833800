"""CSV files of any size, block by block, never more than some megabytes of them in memory.

Rows are cut by ``_kernels``; numbers come from text and go back to it by Arrow, correctly rounded one way and in the
fewest digits that read back to the same bits the other way.  What is not a new number is copied byte for byte.
Axes: N rows of a block, C columns of the file, E = C + 1 edges of cells, K columns picked.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import InvalidInput
from ._atomic import written_whole
from ._blocks import Floats, Write
from ._cells import column_names, is_formula, number, refusal, truth
from ._kernels import ALL, OPEN, PART, TRAILING, UNEVEN, Bytes, Places, cut, find_formulas, gather, paste
from ._paths import require_target

_CHUNK = 1 << 22  # bytes read at a time
_LONGEST_ROW = 1 << 26  # bytes; without an end to it, an open quote would take the rest of the file into memory
_MOST_ROWS, _MOST_EDGES = 1 << 16, 1 << 22  # of a block


class CsvTable:
    """A CSV file with a header, UTF-8, open for reading; as ``Table`` says.  head: what has been read of it already."""

    def __init__(self, path: Path, stream: FileIO, head: bytes = b"") -> None:
        self.path, self._stream = path, stream
        status = os.fstat(stream.fileno())
        self.total = status.st_size if stat.S_ISREG(status.st_mode) else None  # a pipe does not tell
        # bytes read, where rows yet to be cut begin in them, and how many bytes came before
        self._data, self._start, self._before = np.frombuffer(head, np.uint8), 0, 0
        self._checked, self._final, self._line = 0, False, 1
        self._fill()
        while len(self._data) < len(codecs.BOM_UTF8) and not self._final:  # a pipe gives what it has
            self._fill()
        self._mark = codecs.BOM_UTF8 if self._data[:3].tobytes() == codecs.BOM_UTF8 else b""
        self._start = len(self._mark)
        self._header = self._read_header()
        self.columns = column_names([self._header.cell(0, c) for c in range(self._header.edge_NE.shape[1] - 1)], path)

    def blocks(self) -> Iterator[CsvBlock]:
        """Go through all rows."""
        edges = len(self.columns) + 1
        most = max(1, min(_MOST_ROWS, _MOST_EDGES // edges))
        block = self._next(most, edges)
        if block is None:
            raise InvalidInput(f"{self.path} has a header but no rows; wanted at least one.")
        while block is not None:
            yield block
            block = self._next(most, edges)

    @contextmanager
    def copy(self, path: str | os.PathLike[str], columns: Sequence[str]) -> Iterator[Write]:
        """Yield a function that writes a block with new numbers (N, K) in some columns, all else byte for byte.

        Cells that a spreadsheet would run get an apostrophe, as by ``write_csv``.  Rows end as the header does.
        """
        target = require_target(path, self.path, parquet=False)
        place_C = np.array([columns.index(name) if name in columns else -1 for name in self.columns])
        header, ending = self._header, self._ending()
        with written_whole(target) as temporary, temporary.open("wb") as stream:

            def write(what: bytes | memoryview) -> None:
                try:
                    stream.write(what)
                    stream.flush()
                except OSError as error:
                    raise InvalidInput(f"Cannot write {target}: {error.strerror}.") from error

            write(self._mark)
            write(header.pasted(np.full_like(place_C, -1), np.empty((1, 0)), ending).data)
            yield lambda block, w_NK: write(block.pasted(place_C, w_NK, ending).data)

    def _ending(self) -> Bytes:
        """Return what the header ends with."""
        end = int(self._header.edge_NE[0, -1]) - 1
        after = self._header.data[end : end + 2].tobytes()
        return _frozen(after if after == b"\r\n" else after[:1] if after[:1] in (b"\r", b"\n") else b"\n")

    def _read_header(self) -> CsvBlock:
        ended, cells = self._cut(np.empty((1, 1), np.int64), np.empty(1, np.int64))[-2:]
        if ended == ALL:
            raise InvalidInput(f"{self.path} is empty; wanted a header line and at least one row.")
        header = self._next(1, (cells if ended == UNEVEN else 0) + 1)  # which raises what else may be wrong
        assert header is not None
        return header

    def _next(self, most: int, edges: int) -> CsvBlock | None:
        edge_NE, line_N = np.empty((most, edges), np.int64), np.empty(most, np.int64)
        rows, after, line, ended, count = self._cut(edge_NE, line_N)
        if not rows and ended == ALL:
            return None
        if not rows:
            raise self._fault(line, ended, count, edges - 1)
        self._start, self._line = after, line
        return CsvBlock(self, self._data, edge_NE[:rows], line_N[:rows], self._before + after)

    def _cut(self, edge_NE: Places, line_N: Places) -> tuple[int, int, int, int, int]:
        """Return what ``cut`` returns, with at least one row unless the file has ended or something is wrong."""
        while True:
            place = (self._start, len(self._data), self._final, self._line)
            rows, after, line, ended, count = cut(self._data, *place, edge_NE, line_N)
            if rows or self._final or ended not in (ALL, PART):
                return rows, after, line, ended, count
            self._start, self._line = after, line
            self._fill()

    def _fill(self) -> None:
        """Read on; what has been handed out stays as it is in its own memory."""
        left = self._data[self._start :]
        if len(left) > _LONGEST_ROW:
            raise InvalidInput(
                f"{self.path}, line {self._line}: the row is longer than {_LONGEST_ROW >> 20} MiB; most likely a quote "
                "is not closed; mend the quotes there."
            )
        data = np.empty(len(left) + _CHUNK, np.uint8)
        data[: len(left)] = left
        try:
            got = self._stream.readinto(data[len(left) :].data) or 0
        except OSError as error:
            raise InvalidInput(f"Cannot read {self.path}: {error.strerror}.") from error
        self._before += self._start
        self._checked -= self._start
        self._data, self._start, self._final = data[: len(left) + got], 0, got == 0
        self._require_text()

    def _require_text(self) -> None:
        try:
            _, length = codecs.utf_8_decode(self._data[self._checked :].data, "strict", self._final)
        except UnicodeDecodeError as error:
            at = self._checked + error.start
            line = self._line + _line_breaks(self._data[:at])
            raise InvalidInput(
                f"{self.path} is not UTF-8 text; save it as CSV in UTF-8. Line {line} holds the byte "
                f"0x{self._data[at]:02x}."
            ) from error
        self._checked += length

    def _fault(self, line: int, ended: int, count: int, cells: int) -> InvalidInput:
        if ended == UNEVEN:
            return InvalidInput(f"{self.path}, line {line}: found {count} cells, the header has {cells}.")
        what = {OPEN: "a quote is opened and never closed", TRAILING: "there is text after a closing quote"}[ended]
        return InvalidInput(f"{self.path}, line {line + count}: {what}; mend the quotes there.")


@dataclass(frozen=True)
class CsvBlock:
    """Some rows of a CSV file; as ``Block`` says.

    data: bytes of the file.  edge_NE: cell c of row n is data[edge[n, c] : edge[n, c + 1] - 1].  line_N: where rows
    begin.  done: bytes of the file up to the end of these rows.
    """

    table: CsvTable
    data: Bytes
    edge_NE: Places
    line_N: Places
    done: int

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.line_N)

    def cell(self, row: int, c: int) -> str:
        """Return the text of a cell."""
        return _text(self.data[self.edge_NE[row, c] : self.edge_NE[row, c + 1] - 1].tobytes())

    def cells(self, column: str) -> list[str]:
        """Return the texts of a column."""
        c = self.table.columns.index(column)
        first = int(self.edge_NE[0, 0])
        whole = self.data[first : int(self.edge_NE[-1, -1])].tobytes()
        edges = (self.edge_NE[:, c] - first).tolist(), (self.edge_NE[:, c + 1] - 1 - first).tolist()
        return [_text(whole[begin:end]) for begin, end in zip(*edges, strict=True)]

    def numbers(self, columns: Sequence[str]) -> NDArray[np.float64]:
        """Return columns as float64, (N, K)."""
        try:
            x_M = pc.cast(self._texts(columns), pa.float64()).to_numpy()
        except pa.ArrowInvalid:  # Arrow does not know all ways to write a number, "+1" for one
            places = [self.table.columns.index(name) for name in columns]
            x_M = np.array([number(self.cell(n, c)) for n in range(self.rows) for c in places])
        bad = np.flatnonzero(~np.isfinite(x_M))
        if len(bad):
            row, k = divmod(int(bad[0]), len(columns))
            raise self.refused(row, columns[k], "a finite number")
        x_NK: NDArray[np.float64] = np.array(x_M).reshape(self.rows, len(columns))  # Arrow's own memory is read-only
        return x_NK

    def truths(self, column: str) -> NDArray[np.bool_]:
        """Return a column of 0, 1, true and false, (N,)."""
        encoded = self._texts([column]).dictionary_encode()
        known = [truth(cell) for cell in encoded.dictionary.to_pylist()]
        which_N = encoded.indices.to_numpy()
        wrong = np.flatnonzero(np.isin(which_N, [i for i, value in enumerate(known) if value is None]))
        if len(wrong):
            raise self.refused(int(wrong[0]), column, "0, 1, true or false")
        says: NDArray[np.bool_] = np.array(known, dtype=bool)[which_N]
        return says

    def place(self, row: int, column: str | None = None) -> str:
        """Return file and line of a row, or file, line and column of a cell."""
        line = int(self.line_N[row])
        if column is None:
            return f"{self.table.path}, line {line}"
        c = self.table.columns.index(column)
        line += _line_breaks(self.data[self.edge_NE[row, 0] : self.edge_NE[row, c]])
        return f"{self.table.path}, line {line}, column '{column}'"

    def refused(self, row: int, column: str, wanted: str) -> InvalidInput:
        """Return the error about a cell."""
        return refusal(self.place(row, column), self.cell(row, self.table.columns.index(column)), wanted)

    def pasted(self, place_C: Places, w_NK: Floats, ending: Bytes) -> Bytes:
        """Return the rows as bytes, with w_NK[:, k] where place_C is k, and with their own cells where it is -1."""
        text = pc.cast(pa.array(np.ascontiguousarray(w_NK, np.float64).reshape(-1)), pa.string())
        _, edges, letters = text.buffers()
        offset = _frozen(edges if len(text) else bytes(4)).view(np.int32)[: len(text) + 1]
        new = _frozen(letters)
        guarded = self._formulas(np.flatnonzero(place_C < 0))
        kept = int(self.edge_NE[-1, -1] - self.edge_NE[0, 0])
        room = kept + int(offset[-1]) + len(guarded) + self.rows * (len(place_C) + len(ending))
        out = np.empty(room, np.uint8)
        return out[: paste(self.data, self.edge_NE, place_C, new, offset, guarded, ending, out)]

    def _texts(self, columns: Sequence[str]) -> pa.StringArray:
        """Return the texts of columns, row by row, (N K,), without quotes and blanks around."""
        column_K = np.array([self.table.columns.index(name) for name in columns])
        text = np.empty(int(self.edge_NE[-1, -1] - self.edge_NE[0, 0]) * len(columns), np.uint8)
        offset = np.empty(self.rows * len(columns) + 1, np.int32)
        gather(self.data, self.edge_NE, column_K, text, offset)
        return pa.StringArray.from_buffers(len(offset) - 1, pa.py_buffer(offset), pa.py_buffer(text))

    def _formulas(self, column_J: Places) -> Places:
        """Return n E + c of the cells that a spreadsheet would run, ascending."""
        found = np.empty(self.rows * len(column_J), np.int64)
        flat = found[: find_formulas(self.data, self.edge_NE, column_J, found)]
        runs = [is_formula(self.cell(*divmod(int(one), self.edge_NE.shape[1]))) for one in flat]
        formulas: Places = flat[np.array(runs, dtype=bool)]
        return formulas


def _text(raw: bytes) -> str:
    """Return what a cell says: without its quotes, doubled ones made single."""
    return raw[1:-1].decode().replace('""', '"') if raw.startswith(b'"') else raw.decode()


def _frozen(buffer: bytes | pa.Buffer | None) -> Bytes:
    """Return bytes as an array, always read-only: kernels are compiled for each kind of array they get."""
    letters: Bytes = np.frombuffer(buffer, np.uint8) if buffer else np.frombuffer(b"0", np.uint8)[:0]
    return letters


def _line_breaks(data: Bytes) -> int:
    """Return how many lines end in these bytes."""
    text = data.tobytes()
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")
