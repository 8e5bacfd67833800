"""One step of few rows on the processor, in plain numbers, which cost less than the smallest of arrays.

What is written here is what ``_array_rows`` does to whole arrays, row by row, for the ordinary
step of a scale-free rule.  Whatever is out of the ordinary is left to them: values that are not finite, primal steps
that are too long, a rule of somebody's own.  ``tests/solvers/primal_dual/test_few_rows.py`` holds the two together.
Axes: C rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ._array_rows import SMOOTHING, find_smoothing
from ._gains import GainSettings
from ._merit import MERIT_SETTINGS, MeritState
from ._methods import DualMethod, PIGain
from ._native_arrays import Array


@dataclass(frozen=True)
class FewRowsSettings:
    """Where plain numbers are used.

    Attributes:
        most: Rows up to which they cost less than arrays: of three rows a step takes 20 microseconds instead of 45.
    """

    most: int = 12


SETTINGS = FewRowsSettings()


_MOVED = (  # of the state, by a step
    "multiplier",
    "rho",
    "average_sum",
    "average_weight",
    "last_violation",
    "mean_weight",
    "least_range",
    "violation_range",
    "last_change",
    "peak_weight",
    "seen_value",
    "seen_change",
    "seen_changes",
    "seen_reversals",
    "smoothing",
)
_NAMES = (*_MOVED, "multiplier_scale", "least_weight", "largest_weight", "largest_gain")
Columns = tuple[tuple[float, ...], ...]  # one a name, each of shape (C,)


def can_move(method: DualMethod) -> bool:
    """Tell whether this is a rule whose steps are written here."""
    return (
        method.scale_free
        and type(method).update in (PIGain.update, DualMethod.update)
        and type(method).bound_weights is DualMethod.bound_weights
    )


class PlainRows(NamedTuple):
    """Rows of a state as plain numbers: what a step moves, and what it looks at beside."""

    moved: Columns
    fixed: Columns

    @classmethod
    def read(cls, rows: Mapping[str, Array]) -> PlainRows:
        """Return the rows of a state."""
        columns = tuple(tuple(rows[name].tolist()) for name in _NAMES)
        return cls(columns[: len(_MOVED)], columns[len(_MOVED) :])

    def to_rows(self) -> dict[str, Array]:
        """Return them as a state holds them."""
        return dict(zip(_NAMES, map(np.array, (*self.moved, *self.fixed)), strict=True))

    @property
    def smoothing(self) -> tuple[float, ...]:
        """Share of the past that stays in the moving average of each row."""
        return self.moved[-1]

    @property
    def unknown(self) -> list[bool]:
        """Which rows have no multiplier scale yet."""
        return [scale == 0 for scale in self.fixed[0]]


class MovedRows(NamedTuple):
    """What a step made of the rows: their state, their weights (C,), and the merit function's state."""

    rows: PlainRows
    weight_C: tuple[float, ...]
    merit: MeritState


def move_rows(
    rows: PlainRows,
    value_C: Sequence[float],
    present_C: Sequence[bool],
    floor_C: Sequence[float],
    merit: MeritState,
    method: DualMethod,
    settings: GainSettings,
) -> MovedRows | None:
    """Return the rows after a step, None where the general way has to be taken.

    Args:
        rows: As they are.
        value_C: What is seen of them.
        present_C: Of which of them something is seen.
        floor_C: The least multiplier of each.
        merit: State of the merit function, but for what the rows add to its rise.
        method: The rule.
        settings: Of the gains.
    """
    told, band = find_smoothing(method), method.dead_band
    keep = told or 0.0
    cap = math.inf if method.cap is None else method.cap
    fade, learned, reversals = 1 - 1 / settings.fading, 1 / settings.memory, settings.reversals / 2
    controls, integral = type(method).update is PIGain.update, method.step / settings.integral
    rise, weighed, sound, moved = merit.rise, 0.0, 0.0, []
    together = zip(value_C, present_C, floor_C, zip(*rows.moved, strict=True), *rows.fixed[1:], strict=True)
    for value, here, floor, row, least_weight, largest_weight, largest_gain in together:
        old, _, total, share, before, mean, least, spread, swing, peak, *seen = row
        e = value if here else 0.0
        seen_before = share > 0
        if told is None:
            seen = _measure_plain_noise(seen, e, seen_before)
            keep = seen[-1]
        if told is None or keep:
            total, share = keep * total + (1 - keep) * e, keep * share + (1 - keep)
            e = total / share
        else:
            share = 1.0
        if band:
            e -= min(max(e, -band), band)
        change = e - before if seen_before else 0.0
        typical = min(max(mean, least_weight), largest_weight)
        part = min(max(settings.largest_scales * typical / largest_weight, settings.least_reversals), 1.0)
        least = max(least, reversals * part * (abs(change) + abs(swing) - abs(change + swing)))
        spread = max(spread * fade, least, abs(e))
        rho = method.rho0 * min(typical / spread, largest_gain)
        new = old + integral * rho * e + (rho * change if controls else 0.0)
        new = min(max(new, floor, -cap), cap)
        if controls:
            weight = new = old if old <= floor and e <= 0 else new
        else:
            new = 0.0 if method.restart and e < 0 and floor == 0 else new
            weight = min(max(new + rho * e, floor, -cap), cap) if method.rho0 else new
        weighed += typical * spread
        sound += old + e + mean + swing + change + spread + new
        if here:
            rise += old * change
            mean += (abs(weight) - mean) * learned
            peak = max(peak, abs(weight))
            moved.append((new, rho, total, share, e, mean, least, spread, change, peak, *seen, weight))
        else:
            moved.append((*row, 0.0))
    if not math.isfinite(sound) or rise > MERIT_SETTINGS.excess * weighed:
        return None
    *columns, weight_C = zip(*moved, strict=True)
    return MovedRows(PlainRows(tuple(columns), rows.fixed), weight_C, MeritState(merit.objective, rise))


def _measure_plain_noise(seen: Sequence[float], value: float, seen_before: bool) -> list[float]:
    """Return what a value shows of its row's noise, as ``_array_rows`` does."""
    before, last, sizes, reversals, _ = seen
    change, forget = value - before if seen_before else 0.0, 1 - 1 / SMOOTHING.memory
    size = abs(change) + abs(last)
    if sizes == 0:
        sizes = reversals = size
    sizes = forget * sizes + (1 - forget) * size
    reversals = forget * reversals + (1 - forget) * (size - abs(change + last))
    noise = (reversals / max(sizes, 1e-300) - SMOOTHING.smooth) / (SMOOTHING.noise - SMOOTHING.smooth)
    return [value, change, sizes, reversals, SMOOTHING.most * min(max(noise, 0.0), 1.0)]
