"""Small CSV files in and out, whole, as pandas tables."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from ._atomic import written_whole
from ._cell_text import is_formula, number, refusal
from ._csv import CsvTable
from ._table_paths import opened


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return a CSV file with a header as text cells, nothing interpreted; ``numbers`` turns columns into floats.

    The index holds the line of the file on which each row begins; blank lines are passed over.  Raises InvalidInput
    when the file is missing or empty, has two columns of one name, or a line whose cells do not match the header.
    """
    file = Path(path)
    with opened(file) as stream:
        table = CsvTable(file, stream)
        blocks = list(table.blocks())
    columns = {name: [cell for block in blocks for cell in block.cells(name)] for name in table.columns}
    lines = np.concatenate([block.line_numbers() for block in blocks]).tolist()
    return pd.DataFrame(columns, index=lines, dtype=object)


def numbers(table: pd.DataFrame, source: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Return the columns of a text table as float64, (rows, columns).

    Raises InvalidInput naming the line and column of the first cell that is no finite number.
    """
    columns = []
    for name in table.columns:
        cells = table[name].to_numpy(dtype=object)
        values = np.fromiter((number(cell) for cell in cells), dtype=np.float64, count=len(cells))
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            place = f"{os.fspath(source)}, line {table.index[bad[0]]}, column '{name}'"
            raise refusal(place, cells[bad[0]], "a finite number")
        columns.append(values)
    return np.stack(columns, axis=1)


def write_csv(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table whose floats read back bit for bit, atomically; a cell that a spreadsheet would run is guarded.

    Strings that start with ``=``, ``+``, ``-``, ``@`` or a tab get an apostrophe in front, column names among them;
    numbers never do, not even as text.  Line breaks within a cell are written as line feeds.
    """
    guarded = table.rename(columns=_guard)
    for column in guarded.columns:
        if not is_numeric_dtype(guarded[column]):
            guarded[column] = guarded[column].map(_guard)
    with written_whole(path) as temporary:
        guarded.to_csv(temporary, index=False, float_format="%.17g")


def _guard(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")  # line feeds get quotes, a lone carriage return would not
    return f"'{cell}" if is_formula(cell) else cell
