"""One step of any number of rows, anywhere and by any rule.  Axes: C rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ._gains import Gains, GainSettings, measure_gains, update_mean_weights
from ._merit import MeritState, hold_back
from ._methods import DualInputs, DualMethod
from ._native_arrays import Array, namespace_of


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
        changed, e_C = _average_values(now, value_C, present_C, method.ema or 0.0, one_C)
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


def _average_values(
    now: Mapping[str, Array], value_C: Array, present_C: Array | None, keep: float, one_C: Array
) -> tuple[dict[str, Array], Array]:
    """Return the moving averages after a step, and what they say; of an absent row that means nothing."""
    value_C = _mask(value_C, present_C)  # what an absent row holds may be 0/0
    if not keep:
        return {"average_weight": one_C if len(one_C) == len(value_C) else one_C[: len(value_C)]}, value_C
    sum_C = keep * now["average_sum"] + (1 - keep) * value_C
    weight_C = keep * now["average_weight"] + (1 - keep)
    return {"average_sum": sum_C, "average_weight": weight_C}, sum_C / weight_C  # the start counts for nothing


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
