"""What tables of any size have in common, be they CSV or Parquet.  Axes: N rows of a block, K columns picked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from ._cell_text import Floats, Write
from ._csv import CsvTable
from ._table_paths import first_bytes, is_parquet, opened

_PARQUET = (b"PAR1", b"PARE")  # a Parquet file begins with one of these; the second says that it is encrypted


class Block(Protocol):
    """Some neighbouring rows of a table."""

    @property
    def rows(self) -> int:
        """How many rows there are."""

    @property
    def done(self) -> int:
        """How much of the table's ``total`` has been read with them."""

    def numbers(self, columns: Sequence[str]) -> Floats:
        """Return columns as floats, (N, K); InvalidInput names the first cell that is no finite number."""

    def truths(self, column: str) -> NDArray[np.bool_]:
        """Return a column of 0, 1, true and false, (N,); InvalidInput names the first cell that is none of these."""

    def place(self, row: int, column: str | None = None) -> str:
        """Return the words for where a row of this block stands in its file, or a cell."""

    def refused(self, row: int, column: str, wanted: str) -> InvalidInput:
        """Return the error about a cell: where it is, what it holds, what is wanted."""


class Table(Protocol):
    """A table in a file, open to be read once, from its beginning.

    path: the file.  columns: their names.  total: what ``Block.done`` counts up to, None where that is not known.
    """

    path: Path
    columns: tuple[str, ...]
    total: int | None

    def blocks(self) -> Iterator[Block]:
        """Go through all rows.  InvalidInput names the line that is no row, or says that there is none."""

    def copy(self, path: str | os.PathLike[str], columns: Sequence[str]) -> AbstractContextManager[Write]:
        """Yield a function that writes a block with new numbers (N, K) in some columns and all else as it was.

        The new file appears when the context ends without an error, or not at all.
        """


@contextmanager
def open_table(path: str | os.PathLike[str]) -> Iterator[Table]:
    """Open a Parquet file, known by its suffix or its first bytes, or else a CSV file with a header.

    Raises InvalidInput when there is no such file, it cannot be read, has no header, or has two columns of one name.
    """
    file = Path(path)
    with opened(file) as stream:
        head = b"" if is_parquet(file) else first_bytes(stream, file)
        if not is_parquet(file) and head not in _PARQUET:
            yield CsvTable(file, stream, head)
            return
    from ._parquet import ParquetTable  # Arrow's part for Parquet takes a moment to import

    with file.open("rb") as seekable:
        yield ParquetTable(file, seekable)
