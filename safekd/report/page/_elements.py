"""Elements of a page.  Text and attributes are data: whatever stands in them is escaped when the page is written."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from ...errors import escape_controls

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
            text = f"{value:.6g}" if isinstance(value, float) else clean(value)
            element.set(name.rstrip("_").replace("_", "-"), text)
    last: Element | None = None
    for part in parts:
        if part is None:
            continue
        if isinstance(part, Element):
            element.append(part)
            last = part
        elif last is None:
            element.text = (element.text or "") + clean(part)
        else:
            last.tail = (last.tail or "") + clean(part)
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
    text = clean(text)
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


def make_table(heads: Sequence[str], rows: Iterable[Sequence[Part]], caption: str = "") -> Element:
    """Return a table that scrolls sideways where the page is narrow; the first cell of a row is its head.

    Args:
        heads: Of columns.
        rows: Cells.
        caption: What stands above it; empty for nothing.
    """
    head = make("tr", *(make("th", text, scope="col") for text in heads))
    body = [
        make("tr", *(make("td" if n else "th", cell, **({} if n else {"scope": "row"})) for n, cell in enumerate(row)))
        for row in rows
    ]
    title = make("caption", caption) if caption else None
    table = make("table", title, make("thead", head), make("tbody", *body))
    return make("div", table, class_="wide", tabindex="0", role="region", aria_label=caption or ", ".join(heads[:4]))


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
