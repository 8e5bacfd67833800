"""Curves over an axis of numbers, as SVG that is as wide as a phone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .._elements import Element, format_number, make, shorten
from ._axes import Axis, Floats, can_draw, draw_ticks, lay_out_axis
from ._figure_frame import COLORS, SHAPES, LegendEntry, draw_mark, draw_stop, find_dashes, frame_figure


@dataclass(frozen=True)
class CurveSettings:
    """Sizes; ``tests/safekd/report/test_report_page.py`` (a long trace, its size) would notice.

    Attributes:
        size: Width and height of the drawing: a narrow phone shows it in its own size, so that its text can be read.
        most_points: Of a line, drawn: about one a dot of the screen.
        most_stops: Of a line, with its numbers under the pointer.
        most_rows: Of the table of a figure.
        most_curves: Of a figure.
    """

    size: tuple[float, float] = (360.0, 236.0)
    most_points: int = 320
    most_stops: int = 40
    most_rows: int = 120
    most_curves: int = 16


SETTINGS = CurveSettings()
_LEFT, _TOP, _RIGHT, _BOTTOM = 48.0, 8.0, 12.0, 36.0


@dataclass(frozen=True)
class Curve:
    """One series of points.

    Attributes:
        name: In the legend and the table.
        x: By which they are ordered, (N,).
        y: Their heights, (N,).
        number: Decides color, dashes and shape of marks.
        kind: "line"; "step", level to the left of each point; "bars" that stand on 0; or "marks" alone.
        texts: What each point says; made of its numbers where left out.
    """

    name: str
    x: Floats
    y: Floats
    number: int
    kind: str = "line"
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class CurveChart:
    """A figure of curves.

    Attributes:
        title: What it shows.
        x_label: Of the axis below.
        y_label: In words and the table.
        curves: What is drawn.
        log: Whether heights stand by their logarithm; zeros are then left out, and said.
        upright: A value of x that a line marks, with its name.
        level: A height that a line marks, with its name.
    """

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    log: bool = False
    upright: tuple[float, str] | None = None
    level: Sequence[tuple[float, str]] = field(default=())


def draw_curves(chart: CurveChart, key: str) -> Element:
    """Return the figure.

    Args:
        chart: What it shows.
        key: Tells its names from those of others on the page.
    """
    curves = [_keep_drawable(curve, chart.log) for curve in chart.curves[: SETTINGS.most_curves]]
    width, height = SETTINGS.size
    marked = [] if chart.upright is None else [np.array([chart.upright[0]])]
    across = lay_out_axis([*(c.x for c in curves), *marked], (_LEFT, width - _RIGHT), ticks=5)
    ground = [np.zeros(1)] if any(c.kind == "bars" for c in curves) else []
    levels = [np.array([value]) for value, _ in chart.level]
    down = lay_out_axis([*(c.y for c in curves), *ground, *levels], (height - _BOTTOM, _TOP), chart.log)
    parts = [
        *draw_ticks(down, _LEFT, width - _RIGHT, down=True),
        *draw_ticks(across, height - _BOTTOM, _TOP, down=False),
        make("text", chart.x_label, x=(_LEFT + width - _RIGHT) / 2, y=height - 5, text_anchor="middle", class_="soft"),
    ]
    for value, name in chart.level:
        parts += _draw_guide(down.place(value), name, (_LEFT, width - _RIGHT), level=True)
    if chart.upright is not None:
        parts += _draw_guide(across.place(chart.upright[0]), chart.upright[1], (_TOP, height - _BOTTOM), level=False)
    for curve in curves:
        parts += _draw_curve(chart, curve, across, down)
    marks = [SHAPES[c.number % len(SHAPES)] if c.kind == "marks" else "" for c in curves]
    legend = [LegendEntry(c.name, c.number, shape) for c, shape in zip(curves, marks, strict=True)]
    legend = legend if len(legend) > 1 else []
    hidden = len(chart.curves) > len(curves)
    unit = f"{chart.y_label}, the first {len(curves)} of {len(chart.curves)}" if hidden else chart.y_label
    return frame_figure(
        key,
        (chart.title, unit),
        _describe_curves(chart, curves),
        parts,
        SETTINGS.size,
        legend,
        _tabulate_curves(chart, curves),
    )


def thin_line(x: Floats, y: Floats, most: int) -> NDArray[np.intp]:
    """Return which points of a line to draw so that its ends, highs and lows stay, in order.

    Args:
        x: Of the points, in order.
        y: Of the points.
        most: How many, about.
    """
    if len(x) <= most:
        return np.arange(len(x))
    edges = np.linspace(0, len(x), max(most // 2, 1) + 1).astype(int)
    parts = [np.arange(low, high) for low, high in pairwise(edges.tolist()) if high > low]
    kept = [index for part in parts for index in (part[np.argmin(y[part])], part[np.argmax(y[part])])]
    return np.unique([0, *kept, len(x) - 1])


def _keep_drawable(curve: Curve, log: bool) -> Curve:
    """Return a curve of the points that have a place, few enough to be drawn."""
    shown = np.flatnonzero(can_draw(curve.y, log) & can_draw(curve.x, False))
    if curve.kind == "line":
        shown = shown[thin_line(curve.x[shown], curve.y[shown], SETTINGS.most_points)]
    texts = [curve.texts[i] for i in shown.tolist()] if curve.texts else []
    return Curve(curve.name, curve.x[shown], curve.y[shown], curve.number, curve.kind, texts)


def _draw_guide(at: float, name: str, ends: tuple[float, float], *, level: bool) -> list[Element]:
    low, high = ends
    line = {"x1": low, "x2": high, "y1": at, "y2": at} if level else {"x1": at, "x2": at, "y1": low, "y2": high}
    left = level or at > SETTINGS.size[0] / 2  # of an upright line the name stands where there is room
    text = {"x": high - 2 if level else at - 4 if left else at + 4, "y": at - 4 if level and at > 20 else low + 12}
    if level and at <= 20:
        text["y"] = at + 12
    anchor = "end" if left else "start"
    return [
        make("line", class_="guide", **line),
        make("text", shorten(name, 34), text_anchor=anchor, class_="label", **text),
    ]


def _draw_curve(chart: CurveChart, curve: Curve, across: Axis, down: Axis) -> list[Element]:
    x, y = [across.place(v) for v in curve.x], [down.place(v) for v in curve.y]
    parts: list[Element] = []
    style = f"l k{curve.number % COLORS}"
    if curve.kind in ("line", "step") and len(x) > 1:
        points = list(zip(x, y, strict=True))
        between = "L" if curve.kind == "line" else "V{1:g}H{0:g}"
        path = f"M{x[0]:g} {y[0]:g}" + "".join(
            f"L{a:g} {b:g}" if curve.kind == "line" else between.format(a, b) for a, b in points[1:]
        )
        parts.append(make("path", d=path, class_=style, stroke_dasharray=find_dashes(curve.number)))
    if curve.kind == "bars" and len(x):
        wide = min(np.diff(x).min() if len(x) > 1 else 10.0, 30.0) * 0.9
        parts += [
            make("rect", x=a - wide / 2, y=b, width=wide, height=down.start - b, class_=f"bar k{curve.number % COLORS}")
            for a, b in zip(x, y, strict=True)
        ]
    stops = _spread(len(x), SETTINGS.most_stops)
    shape = SHAPES[curve.number % len(SHAPES)]
    shown = [
        draw_stop(
            curve.texts[i] if curve.texts else _describe_point(chart, curve, i),
            x[i],
            y[i],
            *([] if curve.kind == "bars" else [draw_mark(shape, x[i], y[i], curve.number, _size_mark(curve))]),
            first=i == 0,
        )
        for i in stops
    ]
    return [*parts, make("g", *shown, role="group", aria_label=curve.name)] if shown else parts


def _size_mark(curve: Curve) -> float:
    return 3.4 if curve.kind in ("marks", "step") or len(curve.x) <= 12 else 1.8


def _describe_point(chart: CurveChart, curve: Curve, i: int) -> str:
    return f"{curve.name}: {format_number(curve.y[i])} at {chart.x_label} {format_number(curve.x[i], 6)}"


def _describe_curves(chart: CurveChart, curves: Sequence[Curve]) -> str:
    """Return in words what there is to see."""
    lines = [f"{chart.y_label} over {chart.x_label}{', logarithmic' if chart.log else ''}."]
    for curve in curves:
        if len(curve.y):
            ends = f"from {format_number(curve.y[0])} to {format_number(curve.y[-1])}"
            lines.append(f"{curve.name}: {ends}, lowest {format_number(curve.y.min())}.")
        else:
            lines.append(f"{curve.name}: nothing to draw.")
    zeros = [c.name for c in chart.curves if chart.log and (np.asarray(c.y) == 0).any()]
    lines += [f"Zeros have no place on this axis: {', '.join(zeros)}."] if zeros else []
    hidden = len(chart.curves) - len(curves)
    return " ".join([*lines, f"{hidden} more are not drawn." if hidden else ""]).strip()


def _tabulate_curves(chart: CurveChart, curves: Sequence[Curve]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: one row a value of x, one column a curve; of long curves every so many-eth."""
    x = np.unique(np.concatenate([curve.x for curve in curves] or [np.zeros(0)]))
    at = _spread(len(x), SETTINGS.most_rows)
    known = [dict(zip(curve.x.tolist(), curve.y.tolist(), strict=True)) for curve in curves]
    rows = [[format_number(x[i], 6), *(format_number(heights.get(float(x[i])), 6) for heights in known)] for i in at]
    return [chart.x_label, *(shorten(curve.name, 60) for curve in curves)], rows


def _spread(count: int, most: int) -> list[int]:
    """Return so many of the numbers below ``count``, the first and the last among them."""
    places = np.linspace(0, max(count - 1, 0), min(count, most)).round().astype(int)
    return [int(place) for place in np.unique(places)]
