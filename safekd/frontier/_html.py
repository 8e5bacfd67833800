"""The picture of a frontier as one page: a drawing whose points show every number of their row, and the whole table.

The page stands by itself: no network, no script needed to read it, light or dark as the reader has it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ..io import written_whole
from ._page import FRAME, SCRIPT, STYLE
from ._picture import AGAIN, BEATEN, COLOURS, FRONT, KINDS, NOWHERE, UNMET, Picture, Series, picture
from ._schema import NUMBER, kinds

if TYPE_CHECKING:
    from ._frontier import Frontier

Floats = NDArray[np.float64]

_WIDTH, _HEIGHT = 820, 610
_LEFT, _RIGHT = 78, 806
_ABOVE, _BELOW = (14, 386), (410, 556)  # top and bottom of the two panels
_DASHES = ("", "6 3", "8 3 2 3", "2 3")
_MARKS = {
    FRONT: '<circle class="m full" r="4.2"/>',
    BEATEN: '<circle class="m" r="4.2"/>',
    AGAIN: '<path class="m" d="M0-8L8 0 0 8-8 0Z"/>',
    UNMET: '<path class="m" d="M-5-5L5 5M-5 5L5-5"/>',
    NOWHERE: '<path class="m" d="M0 0V-12"/>',
}
_RING = '<circle class="ring" r="8"/>'


def draw(frontier: Frontier, path: str | os.PathLike[str], required: float | None) -> None:
    """Write the page, whole or not at all."""
    shown = picture(frontier)
    title = escape(f"What safety costs: {shown.constraint}")
    lead = (
        "Distillation loss against safety, and the price of safety below. Point at a mark, or reach it with the Tab "
        "and arrow keys, for every number of its row; Enter keeps it."
    )
    parts = {
        "title": title,
        "lead": lead,
        "legend": _legend(shown, required),
        "drawing": "\n".join(_drawing(shown, required, title)),
        "table": "\n".join(_table(frontier.table)),
        "style": STYLE,
        "script": SCRIPT,
    }
    with written_whole(path) as temporary:
        temporary.write_bytes(FRAME.format(**parts).encode("utf-8", "backslashreplace"))


@dataclass(frozen=True)
class _Scale:
    """A straight map from values to places."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, values: Floats, start: float, end: float, least: float = 0.0) -> _Scale:
        """Fit values between start and end, with a margin; ``least``: the smallest range."""
        seen = values[np.isfinite(values)]
        low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
        room = 0.05 * (high - low) or 0.05 * max(abs(high), least) or 0.5
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> str:
        place = self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)
        return f"{place:.1f}".removesuffix(".0")

    def ticks(self, most: int) -> list[tuple[str, str]]:
        """Return places and words of round values."""
        values = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        inside = [float(value) for value in values if self.low <= value <= self.high]
        step = inside[1] - inside[0] if len(inside) > 1 else 1.0
        if not 1e-4 <= step < 1e5:
            return [(self(value), f"{value:.3g}") for value in inside]
        digits = max(0, math.ceil(-math.log10(step) - 1e-9))
        if round(step, digits) != round(step, digits + 1):  # 0.25 and 0.025 have one more
            digits += 1
        return [(self(value), f"{value + 0.0:.{digits}f}") for value in inside]


def _drawing(shown: Picture, required: float | None, title: str) -> Iterator[str]:
    drawn = np.isin(shown.kind_N, [FRONT, BEATEN, AGAIN, UNMET])
    reach = shown.error_N * (shown.kind_N == FRONT)
    nowhere = shown.target_N[shown.kind_N == NOWHERE]
    wanted = [] if required is None else [required]
    x = _Scale.of(
        np.concatenate([(shown.safety_N - reach)[drawn], (shown.safety_N + reach)[drawn], nowhere, wanted]),
        _LEFT,
        _RIGHT,
    )
    loss = _Scale.of(shown.loss_N[drawn], _ABOVE[1], _ABOVE[0])
    price = _Scale.of(shown.price_N[shown.kind_N == FRONT], _BELOW[1], _BELOW[0])
    yield f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="group" aria-label="{title}">'
    yield from _axes(x, loss, price, shown)
    for series in shown.series:
        for low, high in series.gaps:
            for top, foot in (_ABOVE, _BELOW):
                width = float(x(high)) - float(x(low))
                said = f"<title>gap: nothing was found between safety {low:.6g} and {high:.6g}</title>"
                yield f'<rect class="gap" x="{x(low)}" y="{top}" width="{width:.1f}" height="{foot - top}">'
                yield f"{said}</rect>"
    for top, foot in (_ABOVE, _BELOW):
        yield f'<path class="axis" fill="none" d="M{_LEFT} {top}V{foot}H{_RIGHT}"/>'
        if required is not None:
            yield f'<path class="need" d="M{x(required)} {top}V{foot}"/>'
    for number, series in enumerate(shown.series):
        yield f'<g style="color:var(--c{number % len(COLOURS)})">'
        yield from _series(shown, series, (x, loss, price), number)
        yield "</g>"
    yield "</svg>"


def _axes(x: _Scale, loss: _Scale, price: _Scale, shown: Picture) -> Iterator[str]:
    for scale, (top, foot), most in ((loss, _ABOVE, 7), (price, _BELOW, 4)):
        for place, word in scale.ticks(most):
            yield f'<path class="grid" d="M{_LEFT} {place}H{_RIGHT}"/>'
            yield f'<text x="{_LEFT - 8}" y="{float(place) + 4:g}" text-anchor="end">{word}</text>'
        for place, word in x.ticks(8):
            yield f'<path class="grid" d="M{place} {top}V{foot}"/>'
            if foot == _BELOW[1]:
                yield f'<text x="{place}" y="{foot + 18}" text-anchor="middle">{word}</text>'
    safety = escape(_short(f"safety, {shown.constraint} ({shown.split} split)", 90))
    yield f'<text x="{(_LEFT + _RIGHT) / 2:g}" y="{_BELOW[1] + 42}" text-anchor="middle">{safety}</text>'
    for word, (top, foot) in (("distillation loss (nats)", _ABOVE), ("price λ (nats a unit)", _BELOW)):
        middle = (top + foot) / 2
        yield f'<text transform="translate(16 {middle:g}) rotate(-90)" text-anchor="middle">{word}</text>'


def _series(shown: Picture, series: Series, scales: tuple[_Scale, _Scale, _Scale], number: int) -> Iterator[str]:
    x, loss, price = scales
    dash = _DASHES[number % len(_DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    for rows in series.pieces:
        if len(rows) > 1:
            # what safety s costs is the loss of the next point that is as safe: level to the left of each point
            steps = "".join(f"V{loss(shown.loss_N[i])}H{x(shown.safety_N[i])}" for i in rows[1:])
            first = f"M{x(shown.safety_N[rows[0]])} {loss(shown.loss_N[rows[0]])}"
            yield f'<path class="line"{dashed} d="{first}{steps}"/>'
            priced = [i for i in rows if np.isfinite(shown.price_N[i])]
            line = "L".join(f"{x(shown.safety_N[i])} {price(shown.price_N[i])}" for i in priced)
            yield f'<path class="line"{dashed} d="M{line}"/>' if len(priced) > 1 else ""
    for i in series.front:
        if shown.error_N[i] > 0:
            left, right = (x(shown.safety_N[i] + side * shown.error_N[i]) for side in (-1, 1))
            down = loss(shown.loss_N[i])
            yield f'<path class="bar" d="M{left} {down}m0-3v6M{left} {down}H{right}m0-3v6"/>'
    order = np.where(shown.kind_N == NOWHERE, shown.target_N, shown.safety_N)
    for i in series.rows[np.argsort(order[series.rows], kind="stable")]:
        if shown.kind_N[i] == NOWHERE and np.isfinite(shown.target_N[i]):
            yield _mark(shown, i, x(shown.target_N[i]), str(_ABOVE[1]), NOWHERE, stop=True)
        elif shown.kind_N[i] in (FRONT, BEATEN, AGAIN, UNMET):
            yield _mark(shown, i, x(shown.safety_N[i]), loss(shown.loss_N[i]), shown.kind_N[i], stop=True)
    for i in series.front:
        if np.isfinite(shown.price_N[i]):
            yield _mark(shown, i, x(shown.safety_N[i]), price(shown.price_N[i]), FRONT, stop=False)


def _mark(shown: Picture, i: int, across: str, down: str, kind: str, *, stop: bool) -> str:
    """Return one mark; ``stop``: the keyboard stops here, once for each row."""
    said = f"row {i}, {KINDS[kind]}: target {shown.target_N[i]:.6g}"
    if kind != NOWHERE:
        said += f", safety {shown.safety_N[i]:.6g}, loss {shown.loss_N[i]:.6g} nats, price {shown.price_N[i]:.4g}"
    about = f' tabindex="0" role="img" aria-label="{said}"' if stop else ' aria-hidden="true"'
    ring = _RING if not stop and shown.contradicted_N[i] else ""
    return (
        f'<g class="p" data-row="{i}"{about} transform="translate({across} {down})"><title>{said}</title>'
        f'<circle class="hit" r="10"/><circle class="halo" r="11"/>{ring}{_MARKS[kind]}</g>'
    )


def _legend(shown: Picture, required: float | None) -> str:
    several = len(shown.series) > 1
    items = []
    if several:
        for number, series in enumerate(shown.series):
            dash = _DASHES[number % len(_DASHES)]
            line = f'<path class="line" stroke-dasharray="{dash}" d="M0 9H28"/>'
            line += '<circle class="m full" cx="14" cy="9" r="3"/>'
            items.append(_item(line, series.label, f"--c{number % len(COLOURS)}"))
    colour = "--ink" if several else "--c0"
    for kind in shown.kinds:
        said = KINDS[kind] + (" (bars: standard error of safety)" if kind == FRONT and shown.has_bars else "")
        items.append(
            _item(f'<g transform="translate(14 {15 if kind == NOWHERE else 9})">{_MARKS[kind]}</g>', said, colour)
        )
    if any(series.gaps for series in shown.series):
        items.append(_item('<rect class="gap" width="28" height="18"/>', "gap: nothing was found here", colour))
    if shown.contradicted_N[shown.kind_N == FRONT].any():
        items.append(_item(f'<g transform="translate(14 9)">{_RING}</g>', "price contradicts the slope", colour))
    if required is not None:
        items.append(_item('<path class="need" d="M0 9H28"/>', f"required: {required:g}", colour))
    return f'<ul class="key">{"".join(items)}</ul>'


def _item(swatch: str, said: str, colour: str) -> str:
    return f'<li><svg style="color:var({colour})" aria-hidden="true">{swatch}</svg>{escape(said)}</li>'


def _table(table: pd.DataFrame) -> Iterator[str]:
    held = kinds(table)  # data-x: fractions, which the card rounds; a run id such as 12e4 is none
    heads = (f"<th{' data-x' * (held[c] == NUMBER)}>{escape(str(c))}</th>" for c in table.columns)
    yield "<table><thead><tr>" + "".join(heads)
    yield "</tr></thead><tbody>"
    for number, row in enumerate(table.itertuples(index=False, name=None)):
        cells = "".join(f"<td>{escape(_word(value))}</td>" for value in row)
        yield f'<tr data-row="{number}">{cells}</tr>'
    yield "</tbody></table>"


def _word(value: Any) -> str:
    """Return a cell as it stands in the CSV, floats in the fewest digits that read back to the same bits."""
    return "" if pd.isna(value) else repr(float(value)) if isinstance(value, float) else str(value)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
