"""A frontier's two files: the table as CSV, every number to the last bit, and what belongs to all of it as JSON.

The JSON says how many rows there are and what each column holds, so a CSV that was cut off at the end of a line is
told from a whole one; and it holds the SHA-256 of the CSV and of itself, so that any other change is seen.  Words that
begin with what a spreadsheet would run get an apostrophe in front, and so do words that begin with one, so that reading
can take exactly one away.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...errors import InvalidInput
from ...io import FILE_LIMITS, open_regular_file, read_file, read_table, read_text_file, write_atomically
from ...io.folders import format_checked_json, read_checked_json
from ._frontier_columns import (
    FLAG,
    NUMBER,
    SCHEMA_VERSION,
    WHOLE,
    WORD,
    find_column_kind,
    find_column_kinds,
    require_columns,
)

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
_FILE_KEYS = (
    "constraint",
    "schema_version",
    "rows",
    "columns",
    "table_sha256",
    "sha256",
)  # of the JSON: what is of the files, not of the frontier
_DTYPES = {WORD: "str", WHOLE: "int64", FLAG: "bool", NUMBER: "float64"}
_WANTED = {WHOLE: "a whole number", FLAG: "True or False", NUMBER: "a number or an empty cell", WORD: "text"}


def write_frontier(table: pd.DataFrame, constraint: str, meta: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write both files, each whole or not at all, the CSV last: a meta file without its CSV harms nobody."""
    require_columns(list(table.columns), constraint, "The table")
    if len(table) == 0:
        raise InvalidInput("The table has no rows; a frontier file needs at least one.")
    held = find_column_kinds(table)
    text = [[_quote_cell(_guard_word(name)), *_format_cells(table[name], name, of)] for name, of in held.items()]
    lines = "".join(",".join(row) + "\n" for row in zip(*text, strict=True))
    data = lines.encode("utf-8", "backslashreplace")  # a lone surrogate is no reason to fail
    about = {**meta, "constraint": constraint, "schema_version": SCHEMA_VERSION, "rows": len(table), "columns": held}
    written = format_checked_json({**about, "table_sha256": hashlib.sha256(data).hexdigest()}, default=_make_plain)
    if Path(path).is_dir():
        raise InvalidInput(f"Cannot write {os.fspath(path)}: it is a folder. Choose the name of a file in it.")
    # both are there whole before either takes its place, so that a full disk leaves an older pair as it was
    with write_atomically(path) as table_file, write_atomically(f"{os.fspath(path)}.meta.json") as meta_file:
        table_file.write_bytes(data)
        meta_file.write_text(written, encoding="utf-8")


def read_frontier(path: str | os.PathLike[str]) -> tuple[pd.DataFrame, str, dict[str, Any]]:
    """Return the table, the name of the constraint that was swept, and the rest of ``.meta.json``."""
    name = os.fspath(path)
    table = _read_rows(Path(path))
    meta = _read_meta(Path(f"{name}.meta.json"), name)
    constraint, held = str(meta["constraint"]), meta["columns"]
    table.columns = pd.Index([_unguard_word(column) for column in table.columns])
    _require_version(table, name)
    require_columns(list(table.columns), constraint, name)
    _require_same_columns(list(table.columns), held, name)
    if len(table) != meta["rows"]:
        raise InvalidInput(
            f"{name} was cut off or added to: it has {len(table)} rows and {name}.meta.json speaks of {meta['rows']}. "
            "Copy both files again, or write the frontier again."
        )
    typed = {column: _convert_column(table[column], held[column], name) for column in table.columns}
    _require_unchanged(Path(path), meta, name)
    return pd.DataFrame(typed), constraint, {key: value for key, value in meta.items() if key not in _FILE_KEYS}


# ---- out ----------------------------------------------------------------------------------------------------


def _format_cells(values: pd.Series[Any], name: str, of: str) -> list[str]:
    try:
        if of == NUMBER:
            return ["" if math.isnan(x) else f"{x:.17g}" for x in values.to_numpy(dtype=np.float64).tolist()]
        if of == WORD:
            return [_quote_cell(_guard_word("" if pd.isna(word) else str(word))) for word in values.tolist()]
        whole = values.to_numpy(dtype=_DTYPES[of])
        if (whole != values.to_numpy()).any():
            raise ValueError(f"{values[whole != values.to_numpy()].iloc[0]!r}")
        return [str(value) for value in whole.tolist()]
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The table's column '{name}' holds {error}; wanted {_WANTED[of]} in every row.") from error


def _guard_word(word: str) -> str:
    return f"'{word}" if word.startswith(_FORMULA_STARTS) else word


def _quote_cell(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if re.search('[",\r\n]|^ | $', cell) else cell


def _make_plain(value: Any) -> Any:
    """Return numpy's numbers as Python's, which JSON knows."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return str(value)


# ---- in -----------------------------------------------------------------------------------------------------


def _read_rows(file: Path) -> pd.DataFrame:
    """Return the cells as text, with line numbers; InvalidInput where the file is none, or ends within a row."""
    if file.exists():
        open_regular_file(file).close()  # not a pipe, which is a table once
    try:
        table = read_table(file)
    except InvalidInput as error:
        if file.is_file() and (cut := _find_cut(file)) is not None:
            raise cut from error
        raise
    if (cut := _find_cut(file)) is not None:
        raise cut
    return table


def _find_cut(file: Path) -> InvalidInput | None:
    data = read_file(file, FILE_LIMITS.table_bytes)
    if not data or data.endswith((b"\n", b"\r")) or b"\0" in data or not _decodes(data):
        return None
    last = data.count(b"\n") + 1
    return InvalidInput(f"{file} was cut off: line {last}, the last, has no end. Copy it again, or write it again.")


def _decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.end == len(data)  # a character of several bytes may be cut in the middle
    return True


def _read_meta(file: Path, name: str) -> dict[str, Any]:
    if not os.path.lexists(file):
        raise InvalidInput(
            f"{name} stands alone: {file}, which says what was swept and how many rows there are, is missing. "
            "Copy both files, or write the frontier again."
        )
    try:
        meta = json.loads(read_text_file(file))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{file} is no readable JSON: {error}. Write the frontier again.") from error
    if not isinstance(meta, dict) or "schema_version" not in meta:
        raise InvalidInput(f"{file} is not what Frontier.to_csv writes beside its table. Write the frontier again.")
    if meta["schema_version"] != SCHEMA_VERSION:
        raise _refuse_version(str(file), meta["schema_version"])
    whole = type(meta.get("rows")) is int and isinstance(meta.get("constraint"), str)
    whole = whole and (meta.get("threads") is None or type(meta["threads"]) is int)
    columns = meta.get("columns")
    if not whole or not isinstance(columns, dict) or not set(map(str, columns.values())) <= set(_DTYPES):
        raise InvalidInput(
            f"{file} does not say which constraint was swept, how many rows there are and what each column holds; "
            "wanted what Frontier.to_csv writes beside its table. Write the frontier again."
        )
    return meta


def _require_unchanged(path: Path, meta: Mapping[str, Any], name: str) -> None:
    """Raise InvalidInput where either file was changed, but for line ends and flags as spreadsheets save them."""
    read_checked_json(f"{name}.meta.json")
    data = read_file(path, FILE_LIMITS.table_bytes)
    resaved = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    resaved = re.sub(rb"(?<=,)(TRUE|FALSE)(?=[,\n])", lambda flag: flag[0].capitalize(), resaved)
    if meta.get("table_sha256") not in (hashlib.sha256(data).hexdigest(), hashlib.sha256(resaved).hexdigest()):
        raise InvalidInput(
            f"{name} was changed after it was written: its text does not have the `table_sha256` that {name}.meta.json "
            "states. Copy both files again, or write the frontier again."
        )


def _refuse_version(name: str, version: object) -> InvalidInput:
    return InvalidInput(
        f"{name} has schema version {version}; this release reads version {SCHEMA_VERSION}. "
        "Read it with the release that wrote it, or write the frontier again."
    )


def _require_version(table: pd.DataFrame, name: str) -> None:
    if "schema_version" in table.columns:
        versions = sorted(table["schema_version"].astype(str).unique())
        if versions != [str(SCHEMA_VERSION)]:
            raise _refuse_version(name, ", ".join(versions) or "none")


def _require_same_columns(present: Sequence[str], held: Mapping[str, str], name: str) -> None:
    written = list(held)
    if list(present) != written:
        lacking = [column for column in written if column not in present]
        added = [column for column in present if column not in held]
        what = [f"without {', '.join(lacking)}"] * bool(lacking) + [f"with {', '.join(added)} besides"] * bool(added)
        raise InvalidInput(
            f"{name} does not have the columns with which it was written: {'; '.join(what) or 'in another order'}. "
            f"Undo the change, or correct `columns` in {name}.meta.json."
        )
    for column, of in held.items():
        if find_column_kind(column) not in (None, of):
            raise InvalidInput(
                f"{name}.meta.json has column '{column}' as '{of}'; wanted '{find_column_kind(column)}'."
            )


def _convert_column(cells: pd.Series[Any], of: str, name: str) -> pd.Series[Any]:
    column = str(cells.name)
    may_be_empty = of == NUMBER or (of == WORD and column not in ("run_id", "method", "split", "status"))
    values = []
    for line, cell in zip(cells.index, cells, strict=True):
        value = math.nan if cell == "" and of == NUMBER else _PARSE[of](cell)
        if value is None or (cell == "" and not may_be_empty):
            given = f"found '{cell}'" if cell else "found an empty cell"
            raise InvalidInput(f"{name}, line {line}, column '{column}': {given}, wanted {_WANTED[of]}.")
        values.append(value)
    return pd.Series(values, dtype=_DTYPES[of], name=column)


def _unguard_word(word: str) -> str:
    return word[1:] if word.startswith("'") else word


def _parse_whole(cell: str) -> int | None:
    return int(cell) if re.fullmatch(r"-?[0-9]{1,19}", cell) and -(2**63) <= int(cell) < 2**63 else None


def _parse_flag(cell: str) -> bool | None:
    return {"true": True, "false": False}.get(cell.lower())  # spreadsheets write TRUE


def _parse_number(cell: str) -> float | None:
    if not re.fullmatch(r"[-+]?(inf|[0-9.]+(e[-+]?[0-9]+)?)", cell, re.IGNORECASE):
        return None
    try:
        return float(cell)
    except ValueError:
        return None


_PARSE: dict[str, Callable[[str], Any]] = {
    WORD: _unguard_word,
    WHOLE: _parse_whole,
    FLAG: _parse_flag,
    NUMBER: _parse_number,
}
