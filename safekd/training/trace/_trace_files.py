"""Traces in files: one JSON object a line, or CSV, read back bit for bit.

The lines are strict JSON: null stands for what is no number, and 1e999, which every reader takes for it, for infinity.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ...errors import InvalidInput
from ...io import FILE_LIMITS, read_table, read_text_file, refuse_cell, unguard_cell, write_atomically
from ...io.folders import require_listed_as_written

Cell = float | int | bool | str
# 10.0 is written "10" in CSV, so what is a whole number is said here
_WHOLE = ("step", "epoch", "clipped_steps", "skipped_steps")
_NEEDED = ("step", "epoch", "distillation_loss", "kkt_stationarity", "wall_s")


def read_trace(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return a trace from a ``.csv`` or ``.jsonl`` file: each number bit for bit, each column of the type it had.

    A last line of JSON that was cut off, by a kill, is left out.

    Args:
        path: Of ``Trace.to_csv``, ``Trace.to_jsonl`` or ``JsonlWriter``.

    Raises:
        InvalidInput: The file is missing, of another kind, holds a line or a cell that is none of a trace, or is not
            what the manifest of its folder says.
    """
    file = Path(path)
    if file.suffix.lower() == ".jsonl":
        columns = _read_columns(file)
    elif file.suffix.lower() == ".csv":
        text = read_table(file)
        columns = {name: [_parse_csv_cell(cell) for cell in text[name]] for name in text.columns}
    else:
        raise InvalidInput(f"Cannot tell what {file} holds; wanted a name that ends in .csv or .jsonl.")
    if missing := [name for name in _NEEDED if name not in columns]:
        raise InvalidInput(f"{file} is no trace: columns {', '.join(missing)} are missing.")
    table = pd.DataFrame({name: _type_column(file, name, cells) for name, cells in columns.items()})
    require_listed_as_written(file)
    return table


def write_jsonl(rows: Sequence[Mapping[Any, Any]], path: str | os.PathLike[str]) -> None:
    """Write one row a line; the file appears whole or not at all.

    Args:
        rows: Cells by column.
        path: A .jsonl file.
    """
    with write_atomically(path) as temporary:
        temporary.write_text("".join(map(format_line, rows)), encoding="utf-8")


def format_line(row: Mapping[str, Cell]) -> str:
    """Return a row as one line of strict JSON, with its end.

    Args:
        row: Cells by column.
    """
    return "{" + ", ".join(f"{json.dumps(name)}: {_json_token(cell)}" for name, cell in row.items()) + "}\n"


def _json_token(cell: Cell) -> str:
    if isinstance(cell, float) and not math.isfinite(cell):
        return "null" if math.isnan(cell) else f"{'-' * (cell < 0)}1e999"
    return json.dumps(cell)


def _read_columns(file: Path) -> dict[str, list[Any]]:
    text = read_text_file(file, FILE_LIMITS.table_bytes)
    lines = text.split("\n")[:-1]  # what has no end of line was cut off
    rows = [_parse_row(file, number, line) for number, line in enumerate(lines, 1)]
    names = list(rows[0]) if rows else []
    for number, row in enumerate(rows, 1):
        if list(row) != names:
            odd = sorted(set(row) ^ set(names)) or names
            raise InvalidInput(f"{file}, line {number}: its names are not those of line 1 ('{odd[0]}').")
    return {name: [row[name] for row in rows] for name in names}


def _parse_row(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{file}, line {number}: no readable JSON ({error}); mend or delete that line.") from error
    if not isinstance(row, dict):
        raise InvalidInput(f"{file}, line {number}: found a {type(row).__name__}; wanted an object of JSON.")
    return row


def _parse_csv_cell(cell: str) -> str | None:
    return unguard_cell(cell) or None


def _type_column(file: Path, name: str, cells: list[Any]) -> pd.Series[Any]:
    convert, dtype, wanted = _column_kind(name)
    values = []
    for number, cell in enumerate(cells, 1):
        try:
            values.append(convert(cell))
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise refuse_cell(f"{file}, row {number}, column '{name}'", cell, wanted) from error
    try:
        return pd.Series(values, dtype=dtype)
    except OverflowError as error:
        raise InvalidInput(f"{file}, column '{name}': found a number of more than 64 bits, wanted {wanted}.") from error


def _column_kind(name: str) -> tuple[Callable[[Any], Any], str, str]:
    """Return how the cells of a column are read, their type, and that in words; a trace has no other columns."""
    if name in _WHOLE:
        return int, "int64", "a whole number"
    if name.startswith("capped_"):
        return {"True": True, "False": False, True: True, False: False}.__getitem__, "bool", "True or False"
    if name == "gradients" or name.startswith("split_"):
        return str, "str", "a text"
    return (lambda cell: math.nan if cell is None else float(cell)), "float64", "a number"
