"""One step of any number of rows, anywhere and by any rule.

A scale-free rule that is not told how to smooth what it sees finds out: values that are mostly noise change to and fro
from step to step, others go on as they went.  So each row is smoothed by the share of its changes that the next one
takes back,

    share  =  mean of |a| + |b| - |a + b|  /  mean of |a| + |b|      for changes a, b that follow each other

which is 0 on a smooth way, about .4 or more in noise, and 1 where nothing is known.  Axes: C rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ._gains import Gains, GainSettings, measure_gains, update_mean_weights
from ._merit import MeritState, hold_back
from ._methods import DualInputs, DualMethod
from ._native_arrays import Array, namespace_of


@dataclass(frozen=True)
class SmoothingSettings:
    """How a row is smoothed whose rule does not say; ``tests/solvers/primal_dual/test_smoothing.py`` notices.

    Attributes:
        most: Share of the past that stays, where values are noise: that of the trainer's minibatches.
        memory: Steps over which changes are averaged.
        smooth: Share of changes that are taken back up to which nothing is smoothed: a row that oscillates slowly has
            less.
        noise: Share from which on all is taken for noise; independent values have .45.
    """

    most: float = 0.9
    memory: float = 30.0
    smooth: float = 0.1
    noise: float = 0.4


SMOOTHING = SmoothingSettings()


class MovedArrays(NamedTuple):
    """What a step made of the rows: what changes of their state, their weights (C,), and the merit function's state."""

    changed: dict[str, Array]
    weight_C: Array
    merit: MeritState


def move_arrays(
    now: Mapping[str, Array],
    value_C: Array,
    present_C: Array | None,
    floor_C: Array,
    one_C: Array,
    merit: MeritState,
    method: DualMethod,
    settings: GainSettings,
) -> MovedArrays:
    """Return the rows after a step; absent ones stay as they are.

    Args:
        now: The rows' state.
        value_C: What is seen of them.
        present_C: Of which of them something is seen, None for all.
        floor_C: The least multiplier of each.
        one_C: Ones, for all rows of the engine.
        merit: State of the merit function, but for what the rows add to its rise.
        method: The rule.
        settings: Of the gains.
    """
    xp = namespace_of(value_C)
    with np.errstate(all="ignore"):  # what is not finite shows in the gradient
        changed, e_C = _average_values(now, value_C, present_C, find_smoothing(method), one_C)
        if method.dead_band:
            e_C = e_C - e_C.clip(-method.dead_band, method.dead_band)
        before_C = now["last_violation"]
        if now["average_weight"] is not one_C:  # a first value has not changed yet
            before_C = xp.where(now["average_weight"] > 0, before_C, e_C)
        changed["last_violation"] = e_C
        if not method.scale_free:
            inputs = DualInputs(e_C, before_C, now["rho"], xp.full_like(e_C, method.step), floor_C)
            changed["multiplier"], weight_C = method.update(now["multiplier"], inputs)
        else:
            shown, gains = measure_gains(now, e_C, before_C, settings)
            changed |= shown
            changed["rho"] = rho_C = method.rho0 * gains.gain_C
            inputs = DualInputs(e_C, before_C, rho_C, method.step / settings.integral * rho_C, floor_C)
            updated = method.update(now["multiplier"], inputs)
            merit = merit.add_rows(now["multiplier"], _mask(shown["last_change"], present_C))
            changed["multiplier"], weight_C = _check_merit(now, changed, gains, updated, merit, settings)
            changed["mean_weight"] = update_mean_weights(now, weight_C, settings)
        changed["peak_weight"] = xp.maximum(now["peak_weight"], abs(weight_C))
    if present_C is not None:
        changed = {
            name: new if new is now[name] else xp.where(present_C, new, now[name]) for name, new in changed.items()
        }
    return MovedArrays(changed, weight_C, merit)


def find_smoothing(method: DualMethod) -> float | None:
    """Return the share of the past that a rule keeps in what it sees; None where the values are to show it."""
    return None if method.ema is None and method.scale_free else method.ema or 0.0


def _average_values(
    now: Mapping[str, Array], value_C: Array, present_C: Array | None, keep: float | None, one_C: Array
) -> tuple[dict[str, Array], Array]:
    """Return what a step changes of the moving averages, and what they say; of an absent row that means nothing."""
    value_C = _mask(value_C, present_C)  # what an absent row holds may be 0/0
    shown: dict[str, Array] = {}
    kept: float | Array | None = keep
    if kept is None:
        shown = _measure_noise(now, value_C)
        kept = shown["smoothing"]
    elif not keep:
        return {"average_weight": one_C if len(one_C) == len(value_C) else one_C[: len(value_C)]}, value_C
    sum_C = kept * now["average_sum"] + (1 - kept) * value_C
    weight_C = kept * now["average_weight"] + (1 - kept)
    shown |= {"average_sum": sum_C, "average_weight": weight_C}
    return shown, sum_C / weight_C  # the start counts for nothing


def _measure_noise(now: Mapping[str, Array], value_C: Array) -> dict[str, Array]:
    """Return what values show of their noise; the first change is taken for noise."""
    xp, forget = namespace_of(value_C), 1 - 1 / SMOOTHING.memory
    change_C, last_C = xp.where(now["average_weight"] > 0, value_C - now["seen_value"], 0.0), now["seen_change"]
    size_C = abs(change_C) + abs(last_C)
    is_first_C = now["seen_changes"] == 0
    sizes_C = forget * xp.where(is_first_C, size_C, now["seen_changes"]) + (1 - forget) * size_C
    reversals_C = forget * xp.where(is_first_C, size_C, now["seen_reversals"])
    reversals_C = reversals_C + (1 - forget) * (size_C - abs(change_C + last_C))
    share_C = reversals_C / sizes_C.clip(min=1e-300)
    noise_C = ((share_C - SMOOTHING.smooth) / (SMOOTHING.noise - SMOOTHING.smooth)).clip(0.0, 1.0)
    return {
        "seen_value": value_C,
        "seen_change": change_C,
        "seen_changes": sizes_C,
        "seen_reversals": reversals_C,
        "smoothing": SMOOTHING.most * noise_C,
    }


def _check_merit(
    now: Mapping[str, Array],
    changed: dict[str, Array],
    gains: Gains,
    updated: tuple[Array, Array],
    merit: MeritState,
    settings: GainSettings,
) -> tuple[Array, Array]:
    """Return multipliers and weights, held back where primal steps are too long for them (``_merit``)."""
    excessive = merit.is_excessive(gains.weight_C, changed["violation_range"])
    if excessive is False:  # else it is true, or a GPU knows, which is not waited for
        return updated
    xp = namespace_of(gains.weight_C)
    # what is thrown to and fro by steps that are too long says nothing of the gain
    range_C = xp.maximum(now["violation_range"], abs(changed["last_violation"]))
    changed["least_range"] = xp.where(excessive, now["least_range"], changed["least_range"])
    changed["violation_range"] = xp.where(excessive, range_C, changed["violation_range"])
    lambda_C, weight_C = updated
    held_C = xp.where(excessive, hold_back(lambda_C, now["multiplier"], settings), lambda_C)
    return held_C, held_C if weight_C is lambda_C else weight_C


def _mask(value_C: Array, present_C: Array | None) -> Array:
    return value_C if present_C is None else namespace_of(value_C).where(present_C, value_C, 0.0)
