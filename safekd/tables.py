"""CSV files in and out: every number bit for bit, every bad cell named by line and column."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from .errors import InvalidInput
from .files import written_whole


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return a CSV file with a header as text cells, nothing interpreted; ``numbers`` turns columns into floats.

    The index holds each row's line number in the file; blank lines are passed over.  Raises InvalidInput when the file
    is missing or empty, has two columns of one name, or a line whose cells do not match the header.
    """
    file = Path(path)
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except FileNotFoundError as error:
        raise InvalidInput(f"There is no file {file}; check the path.") from error
    except OSError as error:
        raise InvalidInput(f"Cannot read {file}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 text; save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise InvalidInput(f"{file}, line {reader.line_num}: {error}; mend the quotes there.") from error
    return _framed(file, lines)


def _framed(file: Path, lines: list[tuple[int, list[str]]]) -> pd.DataFrame:
    if not lines:
        raise InvalidInput(f"{file} is empty; wanted a header line and at least one row.")
    header, rows = lines[0][1], lines[1:]
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise InvalidInput(f"{file} has two columns named '{min(twice)}'; give every column a name of its own.")
    for line, cells in rows:
        if len(cells) != len(header):
            raise InvalidInput(f"{file}, line {line}: found {len(cells)} cells, the header has {len(header)}.")
    if not rows:
        raise InvalidInput(f"{file} has a header but no rows; wanted at least one.")
    return pd.DataFrame([cells for _, cells in rows], columns=header, index=[line for line, _ in rows], dtype=object)


def numbers(table: pd.DataFrame, source: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Return the columns of a text table as float64, (rows, columns).

    Raises InvalidInput naming the line and column of the first cell that is no finite number.
    """
    columns = []
    for name in table.columns:
        cells = table[name].to_numpy(dtype=object)
        values = np.fromiter((_number(cell) for cell in cells), dtype=np.float64, count=len(cells))
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            cell = cells[bad[0]]
            found = f"'{cell}'" if isinstance(cell, str) and cell.strip() else "an empty cell"
            place = f"{os.fspath(source)}, line {table.index[bad[0]]}, column '{name}'"
            raise InvalidInput(f"{place}: found {found}, wanted a finite number.")
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


def _number(cell: Any) -> float:
    try:
        return float("nan") if isinstance(cell, str) and "_" in cell else float(cell)  # Python reads "1_0" as 10
    except (TypeError, ValueError):
        return float("nan")


def _guard(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")  # line feeds get quotes, a lone carriage return would not
    return f"'{cell}" if cell[:1] in tuple("=+-@\t") and math.isnan(_number(cell)) else cell
