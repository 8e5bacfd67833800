"""CSV files in and out: every number bit for bit, every bad cell named by line and column."""

from __future__ import annotations

import csv
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

    Row i of the result is line i + 2 of the file.  Raises InvalidInput when the file is missing, empty, has two
    columns of one name, or a line with more cells than the header.
    """
    file = Path(path)
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            header = next(csv.reader(stream), [])
        if not any(header):
            raise InvalidInput(f"{file} is empty; wanted a header line and at least one row.")
        twice = {name for name in header if header.count(name) > 1}
        if twice:
            raise InvalidInput(f"{file} has two columns named '{min(twice)}'; give every column a name of its own.")
        table = pd.read_csv(
            file, dtype=str, keep_default_na=False, na_values=[], skip_blank_lines=False, index_col=False
        )
    except FileNotFoundError as error:
        raise InvalidInput(f"There is no file {file}; check the path.") from error
    except OSError as error:
        raise InvalidInput(f"Cannot read {file}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 text; save it as CSV in UTF-8.") from error
    except (ValueError, csv.Error) as error:
        raise InvalidInput(f"{file} cannot be read as CSV: {str(error).strip()}.") from error
    filled = table.notna().any(axis=1) & (table.fillna("") != "").any(axis=1)
    table = table.loc[: filled[filled].index.max()] if filled.any() else table.iloc[:0]  # blank lines at the end
    if len(table) == 0:
        raise InvalidInput(f"{file} has a header but no rows; wanted at least one.")
    return table


def numbers(table: pd.DataFrame, source: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Return the columns of a text table as float64, (rows, columns).

    Raises InvalidInput naming the line and column of the first cell that is no finite number.
    """
    columns = []
    for name in table.columns:
        cells = table[name].to_numpy(dtype=object)
        try:
            values = np.fromiter((float(cell) for cell in cells), dtype=np.float64, count=len(cells))
        except (TypeError, ValueError):
            values = np.array([_number(cell) for cell in cells])
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            cell = cells[bad[0]]
            found = f"'{cell}'" if isinstance(cell, str) and cell.strip() else "an empty cell"
            raise InvalidInput(
                f"{os.fspath(source)}, line {bad[0] + 2}, column '{name}': found {found}, wanted a finite number."
            )
        columns.append(values)
    return np.stack(columns, axis=1)


def write_csv(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table whose floats read back bit for bit, atomically; a cell that a spreadsheet would run is guarded.

    Strings that start with ``=``, ``+``, ``-``, ``@`` or a tab get an apostrophe in front; numbers never do.
    """
    guarded = table.copy()
    for column in guarded.columns:
        if not is_numeric_dtype(guarded[column]):
            guarded[column] = guarded[column].map(_guard)
    with written_whole(path) as temporary:
        guarded.to_csv(temporary, index=False, float_format="%.17g")


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


def _guard(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in tuple("=+-@\t") else cell
