"""What stands around a drawing: title, legend, what it shows in words, and its numbers as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .._elements import SETTINGS, Element, fold, make, make_table, shorten

_RADIUS = 3.4
_DASHES = (None, "6 3", "2 3", "8 3 2 3")
COLORS = 7
SHAPES = ("circle", "square", "diamond", "triangle")
BOUND = "bound"


@dataclass(frozen=True)
class LegendEntry:
    """What one sort of mark means.

    Attributes:
        name: In words.
        number: Decides color, and dashes of lines.
        shape: Of a mark; BOUND for that of a bound, empty for a line.
    """

    name: str
    number: int
    shape: str = ""


def frame_figure(
    key: str,
    named: tuple[str, str],
    words: str,
    drawing: Sequence[Element],
    size: tuple[float, float],
    legend: Sequence[LegendEntry],
    numbers: tuple[Sequence[str], Sequence[Sequence[str]]],
) -> Element:
    """Return a figure.

    Args:
        key: Tells its names from those of others on the page.
        named: What it shows, and in which unit.
        words: What there is to see, for who does not see it.
        drawing: Elements of the SVG.
        size: Width and height of the drawing.
        legend: What marks mean.
        numbers: Heads and rows of its table.
    """
    title, unit = named
    svg = make(
        "svg",
        make("title", title, id=f"{key}-title"),
        make("desc", words, id=f"{key}-desc"),
        *drawing,
        viewBox=f"0 0 {size[0]:g} {size[1]:g}",
        role="group",
        aria_labelledby=f"{key}-title {key}-desc",
    )
    entries = [make("li", _draw_swatch(entry), f" {shorten(entry.name, 60)}") for entry in legend]
    listed = make("ul", *entries, class_="legend") if entries else None
    table = fold("Numbers", make_table(*numbers, caption=title))
    head = make("figcaption", title, make("span", f", {unit}", class_="soft"))
    return make("figure", head, svg, listed, table)


def draw_mark(shape: str, x: float, y: float, number: int, r: float = _RADIUS, *, hollow: bool = False) -> Element:
    """Return a mark.

    Args:
        shape: One of SHAPES.
        x: Of its middle.
        y: Of its middle.
        number: Decides its color.
        r: Half its size.
        hollow: Whether it is an outline.
    """
    style = f"m k{number % COLORS}" + " hollow" * hollow
    if shape == "circle":
        return make("circle", cx=x, cy=y, r=r, class_=style)
    if shape == "square":
        return make("rect", x=x - r, y=y - r, width=2 * r, height=2 * r, class_=style)
    r *= 1.3
    ends = (
        f"M{x:g} {y - r:g}L{x + r:g} {y:g}L{x:g} {y + r:g}L{x - r:g} {y:g}Z"
        if shape == "diamond"
        else f"M{x:g} {y - r:g}L{x + r:g} {y + r * 0.8:g}L{x - r:g} {y + r * 0.8:g}Z"
    )
    return make("path", d=ends, class_=style)


def draw_stop(words: str, x: float, y: float, *parts: Element, first: bool) -> Element:
    """Return a point that says its numbers under the pointer, and by the keyboard.

    Args:
        words: Its numbers.
        x: Of its middle.
        y: Of its middle.
        parts: How it looks.
        first: Whether the Tab key stops here; arrow keys lead on to the others of its group.
    """
    words = shorten(words, SETTINGS.cell_letters)
    hit = make("circle", class_="hit", cx=x, cy=y, r=8)
    title = make("title", words)
    return make("g", title, hit, *parts, class_="p", tabindex="0" if first else "-1", role="img", aria_label=words)


def find_dashes(number: int) -> str | None:
    """Return the dashes of a line.

    Args:
        number: Of the series.
    """
    return _DASHES[number % len(_DASHES)]


def draw_bound(x: float, y: float, number: int) -> Element:
    """Return the sign of a lower bound: a bar, and an arrow to where the truth lies.

    Args:
        x: Of the bar.
        y: Of its middle.
        number: Decides its color.
    """
    return make("path", d=f"M{x:g} {y - 6:g}v12m0-6h5m-2-3l3 3l-3 3", class_=f"l k{number % COLORS}")


def _draw_swatch(entry: LegendEntry) -> Element:
    if entry.shape == BOUND:
        sign = draw_bound(6, 6, entry.number)
    elif entry.shape:
        sign = draw_mark(entry.shape, 9, 6, entry.number)
    else:
        dashes, style = find_dashes(entry.number), f"l k{entry.number % COLORS}"
        sign = make("path", d="M0 6H18", class_=style, stroke_dasharray=dashes)
    return make("svg", sign, class_="swatch", viewBox="0 0 18 12", aria_hidden="true")
