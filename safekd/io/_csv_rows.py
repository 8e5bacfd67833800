"""Where the rows and cells of a CSV file begin and end in its bytes.

pyarrow's reader hands out texts and numbers, not the bytes that they stood in; a copy that leaves other columns as they
are, and a message with a line number, need the places.  The grammar is that of Python's csv module with
``strict=True``:
cells end at separators, rows at line breaks (LF, CR or both), a cell that begins with a quote ends at the next quote
that is not doubled.  Lines without anything are no rows.  Axes: J cells, one after the other, R rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]

COMMA, QUOTE, LF, CR = b',"\n\r'


@dataclass(frozen=True)
class RowPlaces:
    """The whole rows at the beginning of some bytes.

    Attributes:
        begin_J: Where each cell begins, quotes included.
        end_J: Where each cell ends.
        cells_R: How many cells each row has.
        stop: Where what belongs to no whole row begins.
        fault: What is wrong with the quotes of the row that begins there or further on; None if nothing is.
        fault_at: Where that is.
    """

    begin_J: Places
    end_J: Places
    cells_R: Places
    stop: int
    fault: str | None = None
    fault_at: int = 0


def find_rows(data: bytes, final: bool, separator: int = COMMA) -> RowPlaces:
    """Find the rows and cells of some bytes of a CSV file.

    Args:
        data: Bytes of the file from the beginning of a row on.
        final: Whether the file ends with them.
        separator: The byte between two cells.

    Returns:
        All rows that end in ``data``, up to the first whose quotes are wrong.
    """
    byte_X = np.frombuffer(data, np.uint8)
    end_J: Places = np.flatnonzero((byte_X == separator) | (byte_X == LF) | (byte_X == CR))
    fault, fault_at = None, 0
    if QUOTE in data:
        end_J, fault, fault_at = _drop_quoted(data, end_J, final, separator)
    breaks_J = byte_X[end_J] != separator
    width_J = np.ones(len(end_J), np.int64)  # of what ends the cell: two bytes for CR LF
    if CR in data:
        second_J = (byte_X[end_J] == LF) & (end_J > 0) & (byte_X[end_J - 1] == CR)
        width_J[:-1] += second_J[1:]
        end_J, breaks_J, width_J = end_J[~second_J], breaks_J[~second_J], width_J[~second_J]
        if not final and data[-1] == CR:  # LF may follow
            end_J, breaks_J, width_J = end_J[:-1], breaks_J[:-1], width_J[:-1]
    after_R = np.flatnonzero(breaks_J) + 1
    stop = int(end_J[after_R[-1] - 1] + width_J[after_R[-1] - 1]) if len(after_R) else 0
    if final and fault is None and stop < len(data):  # the last row ends with the file
        end_J, width_J = np.append(end_J, len(data)), np.append(width_J, 0)
        after_R, stop = np.append(after_R, len(end_J)), len(data)
    end_J = end_J[: after_R[-1] if len(after_R) else 0]
    begin_J = np.concatenate([[0], (end_J + width_J[: len(end_J)])[:-1]])[: len(end_J)]
    cells_R = np.diff(after_R, prepend=0)
    blank_R = (cells_R == 1) & (begin_J == end_J)[after_R - 1]
    if blank_R.any():
        kept_J = np.ones(len(end_J), bool)
        kept_J[after_R[blank_R] - 1] = False
        begin_J, end_J, cells_R = begin_J[kept_J], end_J[kept_J], cells_R[~blank_R]
    return RowPlaces(begin_J, end_J, cells_R, stop, fault, fault_at)


@lru_cache
def _match_quoted(separator: int) -> re.Pattern[bytes]:
    """Return what finds a quote that begins a cell, what is quoted, and the quote that closes it, if there is one."""
    before = re.escape(bytes([separator])) + rb"\r\n"
    return re.compile(rb'"(?:(?<=\A")|(?<=[' + before + rb']"))[^"]*+(?:""[^"]*+)*+(")?')


def _drop_quoted(data: bytes, end_J: Places, final: bool, separator: int) -> tuple[Places, str | None, int]:
    """Return the ends of cells that are not in quotes, and what is wrong with the quotes, where."""
    spans = []
    fault, fault_at = None, 0
    for quoted in _match_quoted(separator).finditer(data):
        begin, after = quoted.span()
        if quoted[1] is None or (after < len(data) and data[after] not in (separator, LF, CR)):
            if quoted[1] is not None:
                fault, fault_at = "there is text after a closing quote", after
            elif final:
                fault, fault_at = "a quote is opened and never closed", begin
            after = len(data)
        spans.append((begin, after))
        if after == len(data):
            break
    if spans:
        begin_S, after_S = np.array(spans).T
        inside_J = np.searchsorted(begin_S, end_J) > np.searchsorted(after_S, end_J, side="right")
        end_J = end_J[~inside_J]
    return end_J, fault, fault_at


def count_line_breaks(data: bytes) -> int:
    """Return how many lines end in some bytes; CR LF ends one.

    Args:
        data: The bytes.
    """
    return data.count(b"\n") + (data.count(b"\r") - data.count(b"\r\n") if CR in data else 0)
