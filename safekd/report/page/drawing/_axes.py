"""Scales of a figure: from values to places on the page, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from .._elements import Element, make

Floats = NDArray[np.float64]
_FAR = 1e300  # beyond, differences overflow


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        low: Value at ``start``.
        high: Value at ``end``.
        start: Place on the page.
        end: Place on the page.
        ticks: Values with a label.
        log: Whether values stand by their logarithm.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]
    log: bool

    def place(self, value: float) -> float:
        """Return where a value stands, no further out than the ends.

        Args:
            value: Finite, above 0 on an axis of logarithms.
        """
        low, high, at = (math.log10(v) for v in (self.low, self.high, value)) if self.log else self._list_plain(value)
        share = min(max((at - low) / (high - low), 0.0), 1.0)
        return round(self.start + share * (self.end - self.start), 2)

    def _list_plain(self, value: float) -> tuple[float, float, float]:
        return self.low, self.high, value


def lay_out_axis(values: Sequence[Floats], ends: tuple[float, float], log: bool = False, ticks: int = 5) -> Axis:
    """Return an axis on which all values have room.

    Args:
        values: What is drawn; numbers that are not finite, or not above 0 on an axis of logarithms, have no place.
        ends: Places of its ends.
        log: Whether values stand by their logarithm.
        ticks: How many at most, about.
    """
    flat = np.concatenate([np.ravel(np.asarray(v, dtype=np.float64)) for v in values] or [np.zeros(0)])
    shown = flat[can_draw(flat, log)]
    if log:
        low, high = (math.log10(shown.min()), math.log10(shown.max())) if len(shown) else (-1.0, 0.0)
        low, high = math.floor(low), max(math.ceil(high), math.floor(low) + 1)
        step = max(1, math.ceil((high - low) / ticks))
        powers = range(low, high + 1, step)
        return Axis(10.0**low, 10.0**high, *ends, [10.0**p for p in powers], log)
    low, high = (float(shown.min()), float(shown.max())) if len(shown) else (0.0, 1.0)
    room = (high - low) * 0.05 or max(abs(high) * 0.05, 1e-12)
    low, high = low - (room if low < 0 or low - room > 0 else low), high + room
    at = MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return Axis(low, high, *ends, [float(t) for t in at if low <= t <= high], log)


def can_draw(values: Floats, log: bool) -> NDArray[np.bool_]:
    """Say which values have a place.

    Args:
        values: Any.
        log: Whether on an axis of logarithms.
    """
    finite = np.isfinite(values) & (np.abs(values) < _FAR)
    return finite & (values > 1 / _FAR) if log else finite


def draw_ticks(axis: Axis, from_: float, to: float, *, down: bool) -> list[Element]:
    """Return grid lines with their labels.

    Args:
        axis: Whose ticks.
        from_: Where lines begin, across the axis; labels stand there.
        to: Where they end.
        down: Whether the axis runs down the page.
    """
    parts = []
    for tick in axis.ticks:
        at = axis.place(tick)
        line = {"x1": from_, "x2": to, "y1": at, "y2": at} if down else {"x1": at, "x2": at, "y1": from_, "y2": to}
        place = (
            {"x": from_ - 5, "y": at + 4, "text_anchor": "end"}
            if down
            else {"x": at, "y": from_ + 15, "text_anchor": "middle"}
        )
        parts += [make("line", class_="tick", **line), make("text", f"{tick:.4g}", **place)]
    return parts
