"""What tables of any size have in common, be they CSV or Parquet.  Axes: N rows of a block, K columns picked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from ._cell_text import Floats, Write
from ._csv import CsvTable
from ._regular_files import open_regular_file
from ._table_paths import is_parquet, open_source, read_first_bytes, read_path

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
        """Return columns as floats, (N, K).

        Args:
            columns: Their names.

        Raises:
            InvalidInput: A cell is no finite number; the first one is named.
        """

    def truths(self, column: str) -> NDArray[np.bool_]:
        """Return a column of 0, 1, true and false, (N,).

        Args:
            column: Its name.

        Raises:
            InvalidInput: A cell is none of these; the first one is named.
        """

    def texts(self, column: str) -> list[str]:
        """Return the cells of a column as text, (N,).

        Args:
            column: Its name.
        """

    def place(self, row: int, column: str | None = None) -> str:
        """Return the words for where a row of this block stands in its file, or a cell.

        Args:
            row: Number of the row in this block.
            column: Name of the cell's column; None for the row.
        """

    def explain_refusal(self, row: int, column: str, wanted: str) -> InvalidInput:
        """Return the error about a cell: where it is, what it holds, what is wanted.

        Args:
            row: Number of the row in this block.
            column: Name of the cell's column.
            wanted: What should stand there.
        """


class Table(Protocol):
    """A table in a file, open to be read once, from its beginning.

    Attributes:
        path: The file.
        columns: Names of its columns.
        total: What ``Block.done`` counts up to, None where that is not known.
    """

    path: Path
    columns: tuple[str, ...]
    total: int | None

    def blocks(self) -> Iterator[Block]:
        """Go through all rows.

        Raises:
            InvalidInput: A line is no row, or there is none.
        """

    def copy(self, path: str | os.PathLike[str], columns: Sequence[str]) -> AbstractContextManager[Write]:
        """Yield a function that writes a block with new numbers (N, K) in some columns and all else as it was.

        The new file appears when the context ends without an error, or not at all.

        Args:
            path: The new file; not this one.
            columns: Names of the columns that get new numbers, in the order of the K numbers.
        """


def holds_numbers(block: Block, column: str) -> bool:
    """Say whether every cell of a column is a finite number.

    Args:
        block: Rows.
        column: Name of the column.
    """
    try:
        block.numbers([column])
    except InvalidInput:
        return False
    return True


@contextmanager
def open_table(path: str | os.PathLike[str], *, separator: str | None = None, decimal: str = ".") -> Iterator[Table]:
    """Open a Parquet file, known by its suffix or its first bytes, or else a CSV file with a header.

    Args:
        path: The file.
        separator: What separates the cells of a CSV file: "comma", "semicolon", "tab", "pipe", "space" or a sign.
            Left out, the file tells: the comma, or where the header has none what it has instead.
        decimal: The decimal sign of a CSV file, "point" or "comma".

    Raises:
        InvalidInput: There is no such file, it cannot be read, has no header, or has two columns of one name; the
            separator or the decimal sign is none.
    """
    file = read_path(path, "The file")
    with open_source(file) as stream:
        head = b"" if is_parquet(file) else read_first_bytes(stream, file)
        if not is_parquet(file) and head not in _PARQUET:
            yield CsvTable(file, stream, head, separator, decimal)
            return
    from ._parquet import ParquetTable  # Arrow's part for Parquet takes a moment to import

    with open_regular_file(file) as whole, BufferedReader(whole) as seekable:
        yield ParquetTable(file, seekable)
