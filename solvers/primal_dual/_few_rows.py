"""One step of few rows on the processor, in plain numbers, which cost less than the smallest of arrays.

What is written here is what ``_gains``, ``_methods`` and ``_merit`` say of whole arrays, row by row, for the ordinary
step of a scale-free rule.  Whatever is out of the ordinary is left to them: values that are not finite, primal steps
that are too long, a rule of somebody's own.  ``tests/solvers/primal_dual/test_few_rows.py`` holds the two together.
Axes: C rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

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
)
_READ = (*_MOVED, "least_weight", "largest_weight", "largest_gain")


class MovedRows(NamedTuple):
    """What a step made of the rows: what changes of their state, their weights (C,), and the merit function's state."""

    changed: dict[str, Array]
    weight_C: Array
    merit: MeritState


def can_move(method: DualMethod) -> bool:
    """Tell whether this is a rule whose steps are written here."""
    return (
        method.scale_free
        and type(method).update in (PIGain.update, DualMethod.update)
        and type(method).bound_weights is DualMethod.bound_weights
    )


def move_rows(
    now: Mapping[str, Array],
    value_C: Array,
    present_C: Array | None,
    floor_C: Array,
    merit: MeritState,
    method: DualMethod,
    settings: GainSettings,
) -> MovedRows | None:
    """Return the rows after a step, None where the general way has to be taken.

    Args:
        now: The rows' state.
        value_C: What is seen of them.
        present_C: Which of them something is seen of, None for all.
        floor_C: The least multiplier of each.
        merit: State of the merit function, but for what the rows add to its rise.
        method: The rule.
        settings: Of the gains.
    """
    keep, band = method.ema or 0.0, method.dead_band
    cap = math.inf if method.cap is None else method.cap
    fade, learned, reversals = 1 - 1 / settings.fading, 1 / settings.memory, settings.reversals / 2
    controls, integral = type(method).update is PIGain.update, method.step / settings.integral
    rise, weighed, sound, moved = merit.rise, 0.0, 0.0, []
    present = [True] * len(value_C) if present_C is None else present_C.tolist()
    rows = zip(*(now[name].tolist() for name in _READ), strict=True)
    for here, value, floor, row in zip(present, value_C.tolist(), floor_C.tolist(), rows, strict=True):
        old, _, total, share, before, mean, least, spread, swing, least_weight, largest_weight, largest_gain = row
        e = value if here else 0.0
        if share <= 0:
            before = None
        if keep:
            total, share = keep * total + (1 - keep) * e, keep * share + (1 - keep)
            e = total / share
        else:
            share = 1.0
        if band:
            e -= min(max(e, -band), band)
        change = 0.0 if before is None else e - before
        least = max(least, reversals * (abs(change) + abs(swing) - abs(change + swing)))
        spread = max(spread * fade, least, abs(e))
        typical = min(max(mean, least_weight), largest_weight)
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
            moved.append((new, rho, total, share, e, mean, least, spread, change, weight))
        else:
            moved.append((*row[: len(_MOVED)], 0.0))
    if not math.isfinite(sound) or rise > MERIT_SETTINGS.excess * weighed:
        return None
    *columns, weight_C = np.array(list(zip(*moved, strict=True)))
    return MovedRows(dict(zip(_MOVED, columns, strict=True)), weight_C, merit._replace(rise=rise))
