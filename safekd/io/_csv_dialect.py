"""How a CSV file is written: what separates its cells, what its decimal sign is, and what stands before its header.

The comma separates, unless the header has none and every row has semicolons, tabs or bars, or a first line ``sep=;``,
as Excel writes it, says otherwise.  A decimal comma is read only where it is asked for: "0,5" may also be two cells.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidInput
from ._csv_rows import COMMA, find_rows

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}
DECIMALS = {"comma": ",", "point": "."}
ASK_SEPARATOR = "name what separates cells: --separator semicolon (`separator=` in Python)"
ASK_DECIMAL = "a decimal comma is read where it is asked for: --decimal comma (`decimal=` in Python)"

_GUESSED = (COMMA, *b";\t|")  # of several that a header has, the first
_GUESSED_FIRST = {".tsv": b"\t", ".tab": b"\t", ".psv": b"|"}
_NEVER = '"\r\n.+-'
_EXCEL_LINE = re.compile(rb'"?sep=(.)"?(\r\n|\r|\n)', re.IGNORECASE | re.DOTALL)
_EXCEL_BEGINS = re.compile(rb'"?(s(e(p(=(."?\r?)?)?)?)?)?\Z', re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class CsvDialect:
    """What a file's bytes mean.

    Attributes:
        separator: The byte between two cells of a row.
        decimal: The decimal sign of its numbers.
        lead: Bytes before the header: a byte order mark, a line that names the separator.
    """

    separator: int
    decimal: str
    lead: bytes = b""

    @property
    def joint(self) -> bytes:
        """The separator as bytes."""
        return bytes([self.separator])

    @property
    def separator_name(self) -> str:
        """The separator as messages call it."""
        names = {sign: name for name, sign in SEPARATORS.items()}
        sign = chr(self.separator)
        return names.get(sign, f"'{sign}'")


def parse_separator(text: str | None) -> int | None:
    """Return the byte that a name or a sign stands for, None for None: the file tells.

    Args:
        text: "comma", "semicolon", "tab", "pipe", "space", or a sign.

    Raises:
        InvalidInput: It is neither, or a sign that belongs to numbers and names.
    """
    if text is None:
        return None
    sign = SEPARATORS.get(text.lower(), "\t" if text == "\\t" else text) if isinstance(text, str) else ""
    if len(sign) != 1 or not sign.isascii() or sign.isalnum() or sign in _NEVER or (sign < " " and sign != "\t"):
        raise InvalidInput(
            f"The separator is {text!r}; wanted {', '.join(SEPARATORS)}, or a sign such as ';' that numbers and names "
            "do not use."
        )
    return ord(sign)


def parse_decimal(text: str) -> str:
    """Return the decimal sign that a name or a sign stands for.

    Args:
        text: "point", "comma", "." or ",".

    Raises:
        InvalidInput: It is none of these.
    """
    sign = DECIMALS.get(text.lower(), text) if isinstance(text, str) else ""
    if sign not in DECIMALS.values():
        raise InvalidInput(f"The decimal sign is {text!r}; wanted point or comma.")
    return sign


def detect_dialect(data: bytes, final: bool, separator: int | None, decimal: str, path: Path) -> CsvDialect | None:
    """Tell from the first bytes of a file how it is written.

    Args:
        data: What has been read so far.
        final: Whether that is all.
        separator: What separates cells, where the user said so.
        decimal: The decimal sign.
        path: The file, whose suffix counts.

    Returns:
        The dialect; None where more bytes are needed.
    """
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    rest = data[len(mark) :]
    if not final and (
        (not mark and codecs.BOM_UTF8.startswith(data)) or _EXCEL_BEGINS.match(rest) or (rest and not rest.strip())
    ):
        return None
    named = _EXCEL_LINE.match(rest)
    if named:
        mark, rest = mark + named[0], rest[named.end() :]
    if separator is not None:
        return CsvDialect(separator, decimal, mark)
    if named and (sign := named[1].decode("latin-1")) and sign.isascii():
        try:
            return CsvDialect(parse_separator(sign) or COMMA, decimal, mark)
        except InvalidInput as error:
            raise InvalidInput(f"{path}, line 1: {error}") from error
    guessed = _guess_separator(rest, final, path)
    return None if guessed is None else CsvDialect(guessed, decimal, mark)


def _guess_separator(data: bytes, final: bool, path: Path) -> int | None:
    """Return what separates the cells of every row that has been read; None where more must be read to tell."""
    preferred = _GUESSED_FIRST.get(path.suffix.lower(), b",")[0]
    size = 1 << 12  # bytes looked at first; reading megabytes four times over would take a moment
    while True:
        head, whole = data[:size], final and len(data) <= size
        cells = {sign: find_rows(head, whole, sign).cells_R for sign in _GUESSED}
        wide = [sign for sign, cells_R in cells.items() if len(cells_R) and cells_R[0] > 1]
        if COMMA in wide and preferred not in wide:
            return COMMA
        if whole or any(len(cells_R) > 1 for cells_R in cells.values()):
            break
        if len(data) <= size:
            return None
        size *= 16
    # a name or a text may hold any sign: one that some row has not at all separates nothing
    able = [sign for sign in wide if sign == COMMA or cells[sign].min() > 1]
    if preferred in able:
        return preferred
    return max(able, key=lambda sign: int(cells[sign][0]), default=COMMA)
