"""Strips: rows of points or boxes under a name each, all on one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._elements import Element, make, shorten
from ._axes import Axis, draw_ticks, lay_out_axis
from ._figure_frame import COLORS, LegendEntry, draw_bound, draw_mark, draw_stop, frame_figure

_WIDTH, _EDGE, _NAME, _ROW, _BELOW = 360.0, 12.0, 20.0, 15.0, 36.0


@dataclass(frozen=True)
class StripRow:
    """One row of a strip.

    Attributes:
        text: What it says, with its numbers.
        number: Decides its color.
        shape: Of the mark in the middle; empty for a box.
        middle: Where the mark stands, or the median.
        ends: Of the thin line through it; None for none.
        box: Of the box; None for none.
        bound: Where an upright bar stands; None for none.
    """

    text: str
    number: int
    shape: str
    middle: float
    ends: tuple[float, float] | None = None
    box: tuple[float, float] | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Strip:
    """Rows under one name.

    Attributes:
        name: What stands above them.
        rows: What is drawn.
        limits: Values that dashed lines mark through the strip.
    """

    name: str
    rows: Sequence[StripRow]
    limits: Sequence[float] = ()


def draw_strips(
    key: str,
    title: str,
    x_label: str,
    strips: Sequence[Strip],
    legend: Sequence[LegendEntry],
    numbers: tuple[Sequence[str], Sequence[Sequence[str]]],
) -> Element:
    """Return the figure.

    Args:
        key: Tells its names from those of others on the page.
        title: What it shows.
        x_label: Of the axis.
        strips: From above.
        legend: What marks mean.
        numbers: Heads and rows of its table.
    """
    values = [
        value for strip in strips for value in (*strip.limits, *(v for row in strip.rows for v in _list_values(row)))
    ]
    axis = lay_out_axis([np.array(values)], (_EDGE, _WIDTH - _EDGE), ticks=6)
    height = sum(_NAME + _ROW * len(strip.rows) for strip in strips) + _BELOW + 4
    parts = [
        *draw_ticks(axis, height - _BELOW, 2, down=False),
        make("text", x_label, x=_WIDTH / 2, y=height - 5, text_anchor="middle", class_="soft"),
    ]
    top = 2.0
    for strip in strips:
        bottom = top + _NAME + _ROW * len(strip.rows)
        parts.append(make("text", shorten(strip.name, 52), x=_EDGE, y=top + 14, class_="name"))
        for limit in strip.limits:
            at = axis.place(limit)
            parts.append(make("line", x1=at, x2=at, y1=top + _NAME - 3, y2=bottom, class_="guide"))
        shown = [_draw_row(row, axis, top + _NAME + _ROW * (n + 0.5), first=n == 0) for n, row in enumerate(strip.rows)]
        parts.append(make("g", *shown, role="group", aria_label=strip.name))
        top = bottom
    words = f"{len(strips)} groups on one axis, {x_label}. " + " ".join(
        f"{strip.name}: {'; '.join(row.text for row in strip.rows)}." for strip in strips[:6]
    )
    return frame_figure(key, (title, x_label), words, parts, (_WIDTH, height), legend, numbers)


def _list_values(row: StripRow) -> list[float]:
    bound = [] if row.bound is None else [row.bound]
    return [row.middle, *(row.ends or ()), *(row.box or ()), *bound]


def _draw_row(row: StripRow, axis: Axis, y: float, *, first: bool) -> Element:
    style, x = f"k{row.number % COLORS}", axis.place(row.middle)
    parts = []
    if row.ends is not None:
        low, high = map(axis.place, row.ends)
        parts.append(make("line", x1=low, x2=high, y1=y, y2=y, class_=f"l {style}"))
    if row.box is not None:
        low, high = map(axis.place, row.box)
        parts.append(make("rect", x=low, y=y - 4, width=max(high - low, 2.0), height=8, class_=f"box {style}"))
        parts.append(make("line", x1=x, x2=x, y1=y - 5, y2=y + 5, class_=f"l thick {style}"))
    if row.bound is not None:
        at = axis.place(row.bound)
        parts.append(draw_bound(at, y, row.number))
    if row.shape:
        parts.append(draw_mark(row.shape, x, y, row.number))
    return draw_stop(row.text, x, y, *parts, first=first)
