"""The picture of a frontier as one page: its SVG, whose marks show every number of their row, and the whole table.

The page stands by itself: no network, no script needed to read it, light or dark as the reader has it.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html import escape
from typing import Any

import pandas as pd

from ..._picture_file import COLOURS, GRID_COLOUR, INK
from ...errors import escape_controls
from ..table import NUMBER, find_column_kinds
from ._figure import GAP_COLOUR
from ._layout import FrontierLayout
from ._page_frame import FRAME, SCRIPT, STYLE

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_COLOURS = {
    **{colour: f"--c{number}" for number, colour in enumerate(COLOURS)},
    INK: "--ink",
    "#000000": "--ink",
    GAP_COLOUR: "--gap",
    GRID_COLOUR: "--grid",
}


def build_page(table: pd.DataFrame, layout: FrontierLayout, svg: str) -> str:
    """Return the page.

    Args:
        table: All rows of the frontier.
        layout: What the picture shows.
        svg: The picture, with the names of ``build_figure``.
    """
    title = escape(escape_controls(f"What safety costs: {layout.constraint}"))
    lead = (
        "Distillation loss against safety, and the multiplier of the threshold below. Point at a mark, or reach it "
        "with the Tab and arrow keys, for every number of its row; Enter keeps it."
    )
    parts = {
        "title": title,
        "lead": lead,
        "drawing": _embed_svg(svg, layout),
        "table": "\n".join(_write_table(table)),
        "style": STYLE,
        "script": SCRIPT,
    }
    return FRAME.format(**parts)


def _embed_svg(svg: str, layout: FrontierLayout) -> str:
    """Return the picture as it stands in a page: no names from elsewhere, colours of the page, marks that speak."""
    root = ET.fromstring(svg)
    root.remove(root.find(f"{_SVG}metadata"))  # type: ignore[arg-type]
    for element in root.iter():
        _tidy(element)
    for element in root.iter("g"):
        kind, *numbers = element.attrib.pop("id", "").split("-")
        if kind in ("point", "multiplier"):
            _annotate_mark(element, int(numbers[0]), layout, stop=kind == "point")
        elif kind == "stairs":
            element.set("class", kind)
        elif kind == "gap":
            low, high = layout.series[int(numbers[0])].gaps[int(numbers[1])]
            _add_title(element, f"gap: nothing was found between safety {low:.6g} and {high:.6g}")
    view = {"class": "chart", "viewBox": root.get("viewBox", ""), "role": "group"}
    root.attrib = view | {"aria-label": escape_controls(f"What safety costs: {layout.constraint}")}
    text = ET.tostring(root, encoding="unicode")
    for colour, variable in _COLOURS.items():
        text = re.sub(colour, f"var({variable})", text, flags=re.IGNORECASE)
    return text


def _tidy(element: ET.Element) -> None:
    """Take out what a page does not need: names of the format, space, fonts that it may lack, further digits."""
    element.tag = element.tag.removeprefix(_SVG)
    if _LINK in element.attrib:
        element.set("href", element.attrib.pop(_LINK))
    element.text, element.tail = (element.text or "").strip(), "\n" if element.tag == "path" else ""
    for name in ("d", "x", "y", "transform"):
        if name in element.attrib:
            element.set(name, re.sub(r"(\.\d\d)\d+", r"\1", " ".join(element.attrib[name].split())))
    if "style" in element.attrib:
        style = re.sub(r"font: ([\d.]+px)[^;]*", r"font-size: \1", element.attrib["style"])
        style = re.sub(r"font-family: [^;]*;?", "", style)
        element.set("style", style.replace(": ", ":").replace("; ", ";"))


def _annotate_mark(element: ET.Element, row: int, layout: FrontierLayout, *, stop: bool) -> None:
    """Let a mark say its row; ``stop``: the keyboard stops here, once for each row."""
    words = layout.describe_row(row)
    element.attrib = {"class": "p", "data-row": str(row)}
    element.attrib |= {"tabindex": "0", "role": "img", "aria-label": words} if stop else {"aria-hidden": "true"}
    mark = element.find(".//use")
    if mark is not None:
        for name, radius in (("hit", "8"), ("halo", "8.5")):
            circle = {"class": name, "cx": mark.get("x", ""), "cy": mark.get("y", ""), "r": radius}
            element.insert(0, ET.Element("circle", circle))
    _add_title(element, words)


def _add_title(element: ET.Element, words: str) -> None:
    title = ET.Element("title")
    title.text = words
    element.insert(0, title)


def _write_table(table: pd.DataFrame) -> Iterator[str]:
    kinds = find_column_kinds(table)  # data-x: fractions, which the card rounds; a run id such as 12e4 is none
    heads = (f"<th{' data-x' * (kinds[c] == NUMBER)}>{escape(escape_controls(c))}</th>" for c in table.columns)
    yield "<table><thead><tr>" + "".join(heads)
    yield "</tr></thead><tbody>"
    for number, row in enumerate(table.itertuples(index=False, name=None)):
        cells = "".join(f"<td>{escape(escape_controls(_format_value(value)))}</td>" for value in row)
        yield f'<tr data-row="{number}">{cells}</tr>'
    yield "</tbody></table>"


def _format_value(value: Any) -> str:
    """Return a value as it stands in the CSV, floats in the fewest digits that read back to the same bits."""
    return "" if pd.isna(value) else repr(float(value)) if isinstance(value, float) else str(value)
