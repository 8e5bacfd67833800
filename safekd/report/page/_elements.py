"""Elements of a page.  Text and attributes are data: whatever stands in them is escaped when the page is written."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...errors import escape_controls


@dataclass(frozen=True)
class PageSettings:
    """How much of what is in files a page takes; ``tests/safekd/report/test_report_page.py`` (large) would notice.

    Attributes:
        letters: Of a text, such as the configuration, or of an attribute, such as a path.
        cell_letters: Of a cell of a table, and of what a point says.
        rows: Of a table.
        columns: Of a table.
    """

    letters: int = 20_000
    cell_letters: int = 2_000
    rows: int = 400
    columns: int = 40


SETTINGS = PageSettings()
_LONG = 60  # letters of a cell that gets room, so that its row is not tall on a phone
Element = ET.Element
Part = Element | str | None


def make(tag: str, *parts: Part, **attributes: object) -> Element:
    """Return an element.

    Args:
        tag: Its name.
        parts: What it holds: elements, text, None for nothing.
        attributes: By name, hyphens as underscores, ``class_`` for class; numbers are written short, None left out.
    """
    element = ET.Element(tag)
    for name, value in attributes.items():
        if value is not None:
            text = f"{value:.6g}" if isinstance(value, float) else shorten(str(value), SETTINGS.letters)
            element.set(name.rstrip("_").replace("_", "-"), text)
    last: Element | None = None
    for part in parts:
        if part is None:
            continue
        if isinstance(part, Element):
            element.append(part)
            last = part
        elif last is None:
            element.text = (element.text or "") + shorten(part, SETTINGS.letters)
        else:
            last.tail = (last.tail or "") + shorten(part, SETTINGS.letters)
    return element


def write_elements(elements: Iterable[Element]) -> str:
    """Return elements as HTML, one a line.

    Args:
        elements: Of the body.
    """
    return "\n".join(ET.tostring(one, encoding="unicode", short_empty_elements=False) for one in elements)


def clean(text: object) -> str:
    """Return text without what turns the direction of what follows, or cannot be written.

    Args:
        text: From anywhere.
    """
    return escape_controls(text, keep="\n\t")


def shorten(text: str, most: int) -> str:
    """Return text of so many letters at most.

    Args:
        text: From anywhere.
        most: Letters.
    """
    text = clean(text[: most + 1])  # cut first: it may be a million letters
    return text if len(text) <= most else f"{text[: most - 1]}…"


def format_number(value: float | None, digits: int = 4) -> str:
    """Return a number as a reader wants it; a dash where there is none.

    Args:
        value: The number, or None.
        digits: That count.
    """
    return "–" if value is None or value != value else f"{value:.{digits}g}"


def format_share(value: float) -> str:
    """Return a share in percent.

    Args:
        value: From 0 to 1.
    """
    return f"{100 * value:.4g} %"


def make_table(heads: Sequence[str], rows: Sequence[Sequence[Part]], caption: str) -> Element:
    """Return a table that scrolls sideways where the page is narrow; the first cell of a row is its head.

    Args:
        heads: Of columns.
        rows: Cells.
        caption: What stands above it; what is left out of a large table is said there.
    """
    left = {"rows": len(rows) - SETTINGS.rows, "columns": len(heads) - SETTINGS.columns}
    caption += "".join(f"; {count:,} more {what} are left out" for what, count in left.items() if count > 0)
    head = make("tr", *(make("th", text, scope="col") for text in heads[: SETTINGS.columns]))
    body = [
        make("tr", *(_make_cell(cell, first=number == 0) for number, cell in enumerate(row[: SETTINGS.columns])))
        for row in rows[: SETTINGS.rows]
    ]
    table = make("table", make("caption", caption), make("thead", head), make("tbody", *body))
    return make("div", table, class_="wide", tabindex="0", role="region", aria_label=caption)


def _make_cell(cell: Part, *, first: bool) -> Element:
    text = shorten(cell, SETTINGS.cell_letters) if isinstance(cell, str) else cell
    if first:
        return make("th", text, scope="row")
    return make("td", text, class_="long" if isinstance(text, str) and len(text) > _LONG else None)


def fold(summary: str, *parts: Part) -> Element:
    """Return parts that a reader opens.

    Args:
        summary: What they are.
        parts: As of ``make``.
    """
    return make("details", make("summary", summary), *parts)


def state_met(met: bool, yes: str = "met", no: str = "missed") -> Element:
    """Return a word and a sign that say whether something is so: color is not all that tells.

    Args:
        met: Whether.
        yes: The word where it is.
        no: The word where it is not.
    """
    return make("span", f"{'✓' if met else '✗'} {yes if met else no}", class_="good" if met else "bad")
