"""The bytes of a CSV file, in compiled loops: where rows and cells are, numbers out of them, and new ones into them.

The grammar is that of Python's csv module with ``strict=True``: cells end at commas, rows at line breaks (LF, CR or
both), a cell that begins with a quote ends at the next quote that is not doubled.  Lines without anything are no rows.
Nothing is copied but what is asked for.  Axes: N rows, C columns of the file, K of them picked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., Any])

_COMMA, _QUOTE, _LF, _CR, _TAB, _BLANK = (ord(sign) for sign in ',"\n\r\t ')
_PLUS, _MINUS, _DOT, _ZERO, _NINE, _SMALL_E, _BIG_E, _EQUAL, _AT, _APOSTROPHE = (ord(sign) for sign in "+-.09eE=@'")

# what ended ``cut``
ALL, FULL, PART, UNEVEN, OPEN, TRAILING = range(6)


def _kernel(function: F) -> F:
    """Compile ``function`` at its first call, and keep the machine code where the installation may be written to."""
    try:
        return cast(F, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast(F, numba.njit(nogil=True)(function))


@_kernel
def cut(
    data: Bytes, start: int, stop: int, final: bool, line: int, edge_NE: Places, line_N: Places
) -> tuple[int, int, int, int, int]:
    """Find the rows of data[start:stop], which begins a row on ``line``; final: the file ends at ``stop``.

    edge_NE (N, C + 1) and line_N (N,) are filled: cell c of row n is data[edge[n, c] : edge[n, c + 1] - 1], quotes
    and all, and the row begins on line_N[n].  Returns how many rows were found, where the next begins, its line,
    what ended the search, and a number:

        ALL         no byte is left                             PART        the last row is not complete
        FULL        no room for more rows                       UNEVEN      the next row has another number of cells: it
        OPEN        a quote is not closed: lines down to it     TRAILING    text after a closing quote: lines down to it
    """
    rows, at = 0, start
    while rows < len(line_N):
        if at == stop:
            return rows, at, line, ALL, 0
        if data[at] == _LF or data[at] == _CR:
            end, cells, breaks, ended = at, 0, 0, ALL
        else:
            end, cells, breaks, ended = _cut_row(data, at, stop, final, edge_NE[rows])
        after = _after_break(data, end, stop, final) if ended == ALL else -1
        if after < 0:
            return rows, at, line, PART if ended == ALL else ended, breaks
        if cells:
            if cells != edge_NE.shape[1] - 1:
                return rows, at, line, UNEVEN, cells
            line_N[rows] = line
            rows += 1
        at = after
        line += breaks + 1
    return rows, at, line, FULL, 0


@_kernel
def _cut_row(data: Bytes, at: int, stop: int, final: bool, edge_E: Places) -> tuple[int, int, int, int]:
    """Return where the row at ``at`` ends, its number of cells, the line breaks within, and ALL or what is wrong."""
    cells, breaks = 0, 0
    while True:
        if cells < len(edge_E):
            edge_E[cells] = at
        if at < stop and data[at] == _QUOTE:
            at, within, closed = _after_quotes(data, at, stop)
            if not closed:
                return at, cells, breaks, OPEN if final else PART
            breaks += within
            if at < stop and data[at] != _COMMA and data[at] != _LF and data[at] != _CR:
                return at, cells, breaks, TRAILING
        else:
            while at < stop and data[at] != _COMMA and data[at] != _LF and data[at] != _CR:
                at += 1
        cells += 1
        if at == stop and not final:
            return at, cells, breaks, PART
        if at == stop or data[at] != _COMMA:
            break
        at += 1
    if cells < len(edge_E):
        edge_E[cells] = at + 1
    return at, cells, breaks, ALL


@_kernel
def _after_quotes(data: Bytes, at: int, stop: int) -> tuple[int, int, bool]:
    """Return the place after the quote that closes the one at ``at``, line breaks between, and whether there is one."""
    breaks = 0
    at += 1
    while at < stop:
        byte = data[at]
        if byte == _QUOTE:
            if at + 1 == stop or data[at + 1] != _QUOTE:
                return at + 1, breaks, True
            at += 1
        elif byte == _CR or (byte == _LF and data[at - 1] != _CR):
            breaks += 1
        at += 1
    return stop, breaks, False


@_kernel
def _after_break(data: Bytes, at: int, stop: int, final: bool) -> int:
    """Return the place after the line break at ``at``, or -1 if more bytes are needed to tell."""
    if at == stop:
        return at  # the file ends without one
    if data[at] == _LF:
        return at + 1
    if at + 1 == stop:
        return stop if final else -1
    return at + 2 if data[at + 1] == _LF else at + 1


@_kernel
def gather(data: Bytes, edge_NE: Places, column_K: Places, text: Bytes, offset: NDArray[np.int32]) -> None:
    """Write the cells of some columns, row by row, one after the other into ``text``; offset: (N K + 1,), their edges.

    Quotes around a cell and blanks around its text are left out; doubled quotes inside stay doubled.
    """
    at, cell = 0, 0
    offset[0] = 0
    for n in range(len(edge_NE)):
        for c in column_K:
            begin, end = edge_NE[n, c], edge_NE[n, c + 1] - 1
            if begin < end and data[begin] == _QUOTE:
                begin, end = begin + 1, end - 1
            while begin < end and (data[begin] == _BLANK or data[begin] == _TAB):
                begin += 1
            while begin < end and (data[end - 1] == _BLANK or data[end - 1] == _TAB):
                end -= 1
            for place in range(begin, end):
                text[at] = data[place]
                at += 1
            cell += 1
            offset[cell] = at


@_kernel
def find_formulas(data: Bytes, edge_NE: Places, column_J: Places, found: Places) -> int:
    """Write n (C + 1) + c of each cell that a spreadsheet might run into ``found``; return how many there are.

    Cells of the given columns count that begin with = + - @ or a tab, plain numbers apart.
    """
    count = 0
    for n in range(len(edge_NE)):
        for c in column_J:
            begin, end = edge_NE[n, c], edge_NE[n, c + 1] - 1
            if begin < end and data[begin] == _QUOTE:
                begin, end = begin + 1, end - 1
            if begin == end:
                continue
            first = data[begin]
            signed = first in (_PLUS, _MINUS)
            runs = first in (_EQUAL, _AT, _TAB)
            if runs or (signed and not _is_number(data, begin + 1, end)):
                found[count] = n * edge_NE.shape[1] + c
                count += 1
    return count


@_kernel
def _is_number(data: Bytes, at: int, end: int) -> bool:
    """Tell whether the bytes are digits with at most one dot, and perhaps an exponent; no sign in front."""
    at, digits = _after_digits(data, at, end)
    if at < end and data[at] == _DOT:
        at, more = _after_digits(data, at + 1, end)
        digits += more
    if not digits:
        return False
    if at < end and (data[at] == _SMALL_E or data[at] == _BIG_E):
        at += 1
        if at < end and (data[at] == _PLUS or data[at] == _MINUS):
            at += 1
        at, digits = _after_digits(data, at, end)
    return digits > 0 and at == end


@_kernel
def _after_digits(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return the first place that holds no digit, and how many were passed."""
    begin = at
    while at < end and _ZERO <= data[at] <= _NINE:
        at += 1
    return at, at - begin


@_kernel
def paste(
    data: Bytes,
    edge_NE: Places,
    place_C: Places,
    text: Bytes,
    offset: NDArray[np.int32],
    guarded: Places,
    ending: Bytes,
    out: Bytes,
) -> int:
    """Write the rows with new text in some columns into ``out``; return how many bytes that took.

    place_C: k where column c takes cell n K + k of ``text`` (edges in ``offset``), -1 where its own bytes are kept.
    guarded: n (C + 1) + c of the kept cells that get an apostrophe in front, ascending.  ending: of each row.
    """
    K = (len(offset) - 1) // max(len(edge_NE), 1)
    at, guard = 0, 0
    for n in range(len(edge_NE)):
        for c in range(len(place_C)):
            if c:
                out[at] = _COMMA
                at += 1
            k = place_C[c]
            if k >= 0:
                for place in range(offset[n * K + k], offset[n * K + k + 1]):
                    out[at] = text[place]
                    at += 1
                continue
            begin, end = edge_NE[n, c], edge_NE[n, c + 1] - 1
            if guard < len(guarded) and guarded[guard] == n * edge_NE.shape[1] + c:
                guard += 1
                if data[begin] == _QUOTE:
                    out[at] = _QUOTE
                    at, begin = at + 1, begin + 1
                out[at] = _APOSTROPHE
                at += 1
            for place in range(begin, end):
                out[at] = data[place]
                at += 1
        for byte in ending:
            out[at] = byte
            at += 1
    return at
