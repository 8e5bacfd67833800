"""The picture of a frontier: what each step of safety costs, and its multiplier below.  The same in every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..._picture_file import COLOURS, INK
from ...errors import escape_controls
from ._layout import DOMINATED, DUPLICATE, FRONT, INFEASIBLE, KINDS, NO_POINT, FrontierLayout, FrontierSeries

GAP_COLOUR = "#d9d9d9"
_LINES = ("-", "--", "-.", ":")
_REQUIRED: Any = {"color": INK, "linestyle": (0, (6, 3)), "linewidth": 1.2}
_MARKS: dict[str, dict[str, Any]] = {
    FRONT: {"marker": "o", "markersize": 5.5},
    DOMINATED: {"marker": "o", "markersize": 5.5, "markerfacecolor": "none"},
    DUPLICATE: {"marker": "D", "markersize": 7, "markerfacecolor": "none", "markeredgewidth": 0.8},
    INFEASIBLE: {"marker": "x", "markersize": 6, "markeredgewidth": 1.5},
    NO_POINT: {"marker": 2, "markersize": 9, "markeredgewidth": 1.5},  # a tick that stands on the axis
}
_RING: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "color": COLOURS[1]}


@dataclass(frozen=True)
class FigureSettings:
    """Sizes of the picture.  test_frontier_pictures.py (odd names, many slices) would notice.

    Attributes:
        size: Width and height, inches.
        most_series: Lines that the legend names: more would push the panels out of the picture.
        most_letters: Of a name, which else runs over the edge.
    """

    size: tuple[float, float] = (7.5, 7)
    most_series: int = 12
    most_letters: int = 48


SETTINGS = FigureSettings()


def build_figure(layout: FrontierLayout, required: float | None) -> Figure:
    """Return the picture.

    Its marks are named ``point-ROW`` and ``multiplier-ROW``, lines of loss ``stairs``, gaps ``gap-SERIES-N-PANEL``.

    Args:
        layout: What is to be drawn.
        required: A safety to draw as the threshold asked for, or None.
    """
    figure = Figure(figsize=SETTINGS.size, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    for number, series in enumerate(layout.series):
        style = {"color": COLOURS[number % len(COLOURS)], "linestyle": _LINES[number % len(_LINES)]}
        _draw_gaps((above, below), series, number)
        _draw_lines(above, below, layout, series, style)
        _draw_marks(above, below, layout, series, style["color"])
    if required is not None:
        for axes in (above, below):
            axes.axvline(required, zorder=1, **_REQUIRED)
    above.set_ylabel("distillation loss (nats)")
    below.set_ylabel("multiplier λ\n(nats a unit of safety)")
    above.set_title(f"What safety costs: {_shorten_label(layout.constraint)}", parse_math=False)
    below.set_xlabel(
        f"safety, {_shorten_label(layout.constraint)} ({_shorten_label(layout.split)} split)", parse_math=False
    )
    for axes in (above, below):
        axes.grid()
        axes.set_axisbelow(True)
        axes.margins(x=0.04, y=0.08)
    handles = _list_handles(layout, required)
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_gaps(panels: tuple[Any, Any], series: FrontierSeries, number: int) -> None:
    for place, (low, high) in enumerate(series.gaps):
        for panel, axes in enumerate(panels):
            gap = axes.axvspan(low, high, color=GAP_COLOUR, alpha=0.5, linewidth=0, zorder=0)
            gap.set_gid(f"gap-{number}-{place}-{panel}")


def _draw_lines(above: Any, below: Any, layout: FrontierLayout, series: FrontierSeries, style: dict[str, str]) -> None:
    safety, loss, multiplier = layout.safety_N, layout.loss_N, layout.multiplier_N
    for rows in series.pieces:
        # what safety s costs is the loss of the next point that is as safe: level to the left of each point
        above.step(safety[rows], loss[rows], where="pre", linewidth=1.2, alpha=0.7, gid="stairs", **style)
        below.plot(safety[rows], multiplier[rows], linewidth=1.2, alpha=0.7, **style)
    bars = series.front[layout.error_N[series.front] > 0]
    bar_style: Any = {"fmt": "none", "ecolor": style["color"], "alpha": 0.45, "capsize": 2.5}
    above.errorbar(safety[bars], loss[bars], xerr=layout.error_N[bars], **bar_style)


def _draw_marks(above: Any, below: Any, layout: FrontierLayout, series: FrontierSeries, colour: str) -> None:
    for i in layout.list_marks(series.rows):
        kind = layout.kind_N[i]
        style: Any = {"color": colour, "linestyle": "none", "gid": f"point-{i}", **_MARKS[kind]}
        if kind == NO_POINT:
            transform = above.get_xaxis_transform()
            above.plot(layout.target_N[i], 0.0, transform=transform, clip_on=False, **style)
            continue
        above.plot(layout.safety_N[i], layout.loss_N[i], **style)
    for i in series.front:
        point = layout.safety_N[i], layout.multiplier_N[i]
        below.plot(*point, color=colour, linestyle="none", gid=f"multiplier-{i}", **_MARKS[FRONT])
        if layout.contradicted_N[i]:
            below.plot(*point, linestyle="none", **_RING)


def _list_handles(layout: FrontierLayout, required: float | None) -> list[Any]:
    several = len(layout.series) > 1
    colour = INK if several else COLOURS[0]
    handles: list[Any] = []
    if several:
        for number, series in enumerate(layout.series[: SETTINGS.most_series]):
            style: Any = {"color": COLOURS[number % len(COLOURS)], "linestyle": _LINES[number % len(_LINES)]}
            handles.append(Line2D([], [], marker="o", markersize=4, label=_shorten_label(series.label), **style))
        if len(layout.series) > SETTINGS.most_series:
            handles.append(Patch(color="none", label=f"and {len(layout.series) - SETTINGS.most_series} more"))
    for kind in layout.kinds:
        bars = " (bars: standard error of safety)" if kind == FRONT and layout.has_bars else ""
        handles.append(Line2D([], [], color=colour, linestyle="none", label=KINDS[kind] + bars, **_MARKS[kind]))
    if any(series.gaps for series in layout.series):
        handles.append(Patch(color=GAP_COLOUR, alpha=0.5, label="gap: nothing was found here"))
    if layout.contradicted_N[layout.kind_N == FRONT].any():
        handles.append(Line2D([], [], linestyle="none", label="multiplier contradicts its neighbors", **_RING))
    if required is not None:
        handles.append(Line2D([], [], label=f"required: {required:g}", **_REQUIRED))
    return handles


def _shorten_label(text: str) -> str:
    text, most = escape_controls(text), SETTINGS.most_letters
    return text if len(text) <= most else f"{text[: most - 1]}…"
