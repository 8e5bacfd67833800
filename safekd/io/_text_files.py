"""Texts out of files: the lines of a text file, or a column of JSON lines, CSV or Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import InvalidInput
from ._csv import CsvTable
from ._open_table import open_table
from ._parquet import ParquetTable
from ._regular_files import open_regular_file, read_text_file

SampleBy = Literal["line", "paragraph", "document"]
Text = str | list[int]
_PLAIN, _JSON, _TABLES = (".txt", ".md", ".text"), (".jsonl", ".ndjson"), (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class TextFileSettings:
    """How much is taken into memory at once; ``tests/safekd/io/test_text_files.py`` would notice.

    Attributes:
        line_bytes: Of a line, which is one text or one object.
        document_bytes: Of a file that is one text.
    """

    line_bytes: int = 64 << 20
    document_bytes: int = 1 << 30


SETTINGS = TextFileSettings()


def read_texts(path: str | os.PathLike[str], *, column: str = "text", sample_by: SampleBy = "line") -> Iterator[Text]:
    """Yield the texts of a file, one after the other.

    Args:
        path: ``.txt``, or ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet``, known by its suffix.
        column: Of the last four: which key or column holds the texts, or lists of token numbers.
        sample_by: What one text of a ``.txt`` file is: a line, what blank lines part, or the whole.

    Yields:
        Texts, and lists of whole numbers where the file holds these; empty ones are passed over.

    Raises:
        InvalidInput: The file cannot be read, has no such column, or a cell is no text; the message says where.
    """
    file = Path(path)
    if sample_by not in get_args(SampleBy):
        raise InvalidInput(f"`sample_by` is {sample_by!r}; wanted {', '.join(get_args(SampleBy))}.")
    suffix = file.suffix.lower()
    if suffix in _PLAIN:
        return _read_plain(file, sample_by)
    if suffix in _JSON:
        return _read_json_lines(file, column)
    if suffix in _TABLES:
        return _read_column(file, column)
    raise InvalidInput(
        f"Cannot tell what {file} holds; wanted a name that ends in {', '.join((*_PLAIN, *_JSON, *_TABLES))}."
    )


def _read_plain(file: Path, sample_by: SampleBy) -> Iterator[str]:
    if sample_by == "document":
        text = read_text_file(file, SETTINGS.document_bytes)
        yield from [text] if text.strip() else []
        return
    held: list[str] = []
    for _, line in _read_lines(file):
        if sample_by == "line" and line.strip():
            yield line
        elif line.strip():
            held.append(line)
        elif held:
            yield "\n".join(held)
            held = []
    if held:
        yield "\n".join(held)


def _read_json_lines(file: Path, column: str) -> Iterator[Text]:
    for number, line in _read_lines(file):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{file}, line {number}: no JSON: {str(error)[:120]}.") from error
        if not isinstance(record, dict) or column not in record:
            found = ", ".join(map(repr, record))[:200] if isinstance(record, dict) else type(record).__name__
            raise InvalidInput(
                f"{file}, line {number} has no '{column}'; it has: {found}. Name another one: column='...'."
            )
        yield from _require_text(record[column], f"{file}, line {number}, '{column}'")


def _read_column(file: Path, column: str) -> Iterator[Text]:
    separator = "tab" if file.suffix.lower() == ".tsv" else None
    with open_table(file, separator=separator) as table:
        if column not in table.columns:
            raise InvalidInput(f"{file} has no column '{column}'; it has: {', '.join(table.columns)[:200]}.")
        if isinstance(table, ParquetTable):
            for block in table.blocks(columns=[column]):
                for row, value in enumerate(block.batch.column(column).to_pylist()):
                    yield from _require_text(value, block.place(row, column))
        elif isinstance(table, CsvTable):
            for rows in table.blocks():
                yield from (cell for cell in rows.texts(column) if cell.strip())


def _read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line, without its end."""
    with open_regular_file(file) as raw, BufferedReader(raw) as stream:
        number = 0
        while line := stream.readline(SETTINGS.line_bytes + 1):
            number += 1
            if len(line) > SETTINGS.line_bytes:
                raise InvalidInput(f"{file}, line {number} is longer than {SETTINGS.line_bytes >> 20} MiB.")
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InvalidInput(f"{file}, line {number} is not UTF-8 text.") from error


def _require_text(value: Any, place: str) -> list[Text]:
    """Return a list of the text, of none where it is empty."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{place}: half of a character, {value[error.start]!r}; wanted whole ones.") from error
        return [value] if value.strip() else []
    if isinstance(value, list) and all(type(number) is int and 0 <= number < 2**31 for number in value):
        return [value] if value else []
    raise InvalidInput(f"{place}: found {repr(value)[:80]}, wanted text, or a list of token numbers.")
