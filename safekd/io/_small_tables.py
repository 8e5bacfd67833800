"""Small CSV files in and out, whole, as pandas tables."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from ._atomic import write_atomically
from ._cell_text import is_formula, parse_number, refuse_cell
from ._csv import CsvTable
from ._table_paths import open_source, read_path


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return a CSV file with a header as text cells, nothing interpreted; ``parse_numbers`` turns columns into floats.

    The index holds the line of the file on which each row begins; blank lines are passed over.

    Args:
        path: The file.

    Raises:
        InvalidInput: It is missing or empty, has two columns of one name, or a line whose cells do not match the
            header.
    """
    file = read_path(path, "The file")
    with open_source(file) as stream:
        table = CsvTable(file, stream)
        blocks = list(table.blocks())
    columns = {name: [cell for block in blocks for cell in block.texts(name)] for name in table.columns}
    lines = np.concatenate([block.line_numbers() for block in blocks]).tolist()
    return pd.DataFrame(columns, index=lines, dtype=object)


def parse_numbers(table: pd.DataFrame, source: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Return the columns of a text table as float64, (rows, columns).

    Args:
        table: Cells as ``read_table`` returns them.
        source: Their file, as messages call it.

    Raises:
        InvalidInput: A cell is no finite number; the first one is named by line and column.
    """
    columns = []
    for name in table.columns:
        cells = table[name].to_numpy(dtype=object)
        values = np.fromiter((parse_number(cell) for cell in cells), dtype=np.float64, count=len(cells))
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            place = f"{os.fspath(source)}, line {table.index[bad[0]]}, column '{name}'"
            raise refuse_cell(place, cells[bad[0]], "a finite number")
        columns.append(values)
    return np.stack(columns, axis=1)


def write_csv(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table whose floats read back bit for bit, atomically; a cell that a spreadsheet would run is guarded.

    Strings that start with ``=``, ``+``, ``-``, ``@`` or a tab get an apostrophe in front, column names among them;
    numbers never do, not even as text.  Line breaks within a cell are written as line feeds.

    Args:
        table: What to write; its index is left out.
        path: The file, which appears whole or not at all.

    Raises:
        InvalidInput: It cannot be written.
    """
    guarded = table.rename(columns=guard_cell)
    for column in guarded.columns:
        if not is_numeric_dtype(guarded[column]):
            guarded[column] = guarded[column].map(guard_cell)
    with write_atomically(path) as temporary:
        guarded.to_csv(temporary, index=False, float_format="%.17g")


def guard_cell(cell: object) -> object:
    """Return a cell as it is written: text that a spreadsheet would run gets an apostrophe in front.

    Args:
        cell: Text, or anything else, which stays as it is.
    """
    if not isinstance(cell, str):
        return cell
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")  # line feeds get quotes, a lone carriage return would not
    return f"'{cell}" if is_formula(cell) else cell


def unguard_cell(cell: str) -> str:
    """Return a word as it was before ``write_csv`` kept spreadsheets from running it.

    Args:
        cell: As ``read_table`` gives it.
    """
    return cell[1:] if cell.startswith("'") and is_formula(cell[1:]) else cell
