"""The picture of a frontier: what each step of safety costs, and its price below."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..errors import InvalidInput
from ..io import written_whole
from ._picture import AGAIN, BEATEN, COLOURS, FRONT, KINDS, NOWHERE, UNMET, Picture, Series, picture

if TYPE_CHECKING:
    from ._frontier import Frontier

_LINES = ("-", "--", "-.", ":")
_INK, _GAP = "#333333", "#d9d9d9"
_NEED: Any = (0, (6, 3))  # dashes of the threshold
_MARKS: dict[str, dict[str, Any]] = {
    FRONT: {"marker": "o", "markersize": 5.5},
    BEATEN: {"marker": "o", "markersize": 5.5, "markerfacecolor": "none"},
    AGAIN: {"marker": "D", "markersize": 7, "markerfacecolor": "none", "markeredgewidth": 0.8},
    UNMET: {"marker": "x", "markersize": 6, "markeredgewidth": 1.5},
    NOWHERE: {"marker": 2, "markersize": 9, "markeredgewidth": 1.5},  # a tick that stands on the axis
}
_RING: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "color": "#D55E00"}
_MOST_SERIES = 12  # in the legend
_SETTINGS = {"svg.hashsalt": "safekd", "axes.spines.top": False, "axes.spines.right": False}


def draw(frontier: Frontier, path: str | os.PathLike[str], required: float | None) -> None:
    """Write the picture; the format follows the file's ending.  Settings of matplotlib are left as they were."""
    with matplotlib.style.context(["default", _SETTINGS]), written_whole(path) as temporary:
        figure = _figure(picture(frontier), required)
        # without dates and versions the same frontier gives the same bytes
        absent = {".png": ["Software"], ".svg": ["Date"], ".pdf": ["CreationDate", "Creator", "Producer"]}
        metadata: Any = dict.fromkeys(absent.get(temporary.suffix.lower(), []))
        try:
            figure.savefig(temporary, dpi=150, metadata=metadata)
        except ValueError as error:
            raise InvalidInput(
                f"Cannot draw {os.fspath(path)}: {error}. Choose a name that ends in .png, .svg, .pdf or .html."
            ) from error


def _figure(shown: Picture, required: float | None) -> Figure:
    figure = Figure(figsize=(7.5, 7), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    for number, series in enumerate(shown.series):
        colour, line = COLOURS[number % len(COLOURS)], _LINES[number % len(_LINES)]
        _draw_series(above, below, shown, series, colour, line)
    if required is not None:
        for axes in (above, below):
            axes.axvline(required, color=_INK, linestyle=_NEED, linewidth=1.2, zorder=1)
    above.set_ylabel("distillation loss (nats)")
    below.set_ylabel("price of safety, λ\n(nats a unit)")
    above.set_title(f"What safety costs: {_short(shown.constraint)}", parse_math=False)
    below.set_xlabel(f"safety, {_short(shown.constraint)} ({_short(shown.split)} split)", parse_math=False)
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.margins(x=0.04, y=0.08)
    legend = figure.legend(handles=_legend(shown, required), loc="outside lower center", ncols=2, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_series(above: Any, below: Any, shown: Picture, series: Series, colour: str, line: str) -> None:
    safety, loss, price = shown.safety_N, shown.loss_N, shown.price_N
    for low, high in series.gaps:
        for axes in (above, below):
            axes.axvspan(low, high, color=_GAP, alpha=0.5, linewidth=0, zorder=0)
    for rows in series.pieces:
        # what safety s costs is the loss of the next point that is as safe: level to the left of each point
        above.step(safety[rows], loss[rows], where="pre", color=colour, linestyle=line, linewidth=1.2, alpha=0.7)
        below.plot(safety[rows], price[rows], color=colour, linestyle=line, linewidth=1.2, alpha=0.7)
    bars = series.front[shown.error_N[series.front] > 0]
    above.errorbar(
        safety[bars], loss[bars], xerr=shown.error_N[bars], fmt="none", ecolor=colour, alpha=0.45, capsize=2.5
    )
    for kind in (UNMET, BEATEN, AGAIN, FRONT):
        at = shown.of(kind, series.rows)
        above.plot(safety[at], loss[at], color=colour, linestyle="none", **_MARKS[kind])
    nowhere = shown.of(NOWHERE, series.rows)
    if len(nowhere):  # an empty line in units of the axes upsets the layout
        x, foot = shown.target_N[nowhere], [0.0] * len(nowhere)
        transform = above.get_xaxis_transform()
        above.plot(x, foot, transform=transform, clip_on=False, color=colour, linestyle="none", **_MARKS[NOWHERE])
    below.plot(safety[series.front], price[series.front], color=colour, linestyle="none", **_MARKS[FRONT])
    wrong = series.front[shown.contradicted_N[series.front]]
    below.plot(safety[wrong], price[wrong], linestyle="none", **_RING)


def _legend(shown: Picture, required: float | None) -> list[Any]:
    several = len(shown.series) > 1
    colour = _INK if several else COLOURS[0]
    handles: list[Any] = []
    if several:
        for number, series in enumerate(shown.series[:_MOST_SERIES]):
            style: Any = {"color": COLOURS[number % len(COLOURS)], "linestyle": _LINES[number % len(_LINES)]}
            handles.append(Line2D([], [], marker="o", markersize=4, label=_short(series.label), **style))
        if len(shown.series) > _MOST_SERIES:
            handles.append(Patch(color="none", label=f"and {len(shown.series) - _MOST_SERIES} more"))
    for kind in shown.kinds:
        said = KINDS[kind]
        if kind == FRONT and shown.has_bars:
            said += " (bars: standard error of safety)"
        handles.append(Line2D([], [], color=colour, linestyle="none", label=said, **_MARKS[kind]))
    if any(series.gaps for series in shown.series):
        handles.append(Patch(color=_GAP, alpha=0.5, label="gap: nothing was found here"))
    if shown.contradicted_N[shown.kind_N == FRONT].any():
        handles.append(Line2D([], [], linestyle="none", label="price contradicts the slope", **_RING))
    if required is not None:
        handles.append(Line2D([], [], color=_INK, linestyle=_NEED, linewidth=1.2, label=f"required: {required:g}"))
    return handles


def _short(text: str) -> str:
    return text if len(text) <= 48 else f"{text[:47]}…"
