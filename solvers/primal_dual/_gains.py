"""The gains of a controller in the units of its constraint: how strongly a violation weighs, how soon it is summed up.

One principle: gains are measured in what the row itself has shown.  A violation as large as its range, the largest of
late, weighs as much as the row has weighed on average; the integral part adds the same again in thirty steps:

    gain           =  mean weight / range, at most the largest gain (``_multiplier_scale``)
    mean weight    of the last thirty steps, at least a tenth and at most ten times the row's multiplier scale
    range          largest |e|, fading over a hundred steps; at least the least range
    least range    eight times the largest reversal, and ``least_range`` of the engine
    reversal       the smaller of two changes of e that follow each other with opposite signs: oscillation or noise;
                   of exact values the share that the row weighs of its multiplier scale, at most 1

The multiplier scale (``_multiplier_scale``: where the gradients of row and objective are equally large) is read when
the row is first violated, and where it is violated at steps 1, 2, 4, 8 and so on, since a fresh student is nowhere near
the place where the multiplier is decided.  So the start is gentle; a cheap constraint is held by a small gain, which
one batch's noise moves little; one that needs a large multiplier reaches it in a number of steps that grows with its
logarithm; where the learning rate is small, the multiplier waits for the student instead of winding up on the way; and
the last part of the way is not made at the speed of the first.  Oscillation, by noise or by a primal step too long for
the gain, shows as reversals, and makes the gain small for good.  A row that weighs little beside the objective causes
no oscillation: the first steps of Adam throw any student to and fro, and what they do to a row says nothing of the gain
that it can bear later.  A change of gain never moves a multiplier by itself (``PIGain``).  A run of fewer than 600
steps is controlled in proportionately less time.  Axes: C rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from ._native_arrays import Array, namespace_of

State = Mapping[str, Array]

# what rows begin with whose scale nothing has shown yet: they go by a scale of 1; all (C,)
FIRST_GAIN_STATE = {
    "mean_weight": 0.0,  # of the last steps, in units of the multiplier
    "multiplier_scale": 0.0,  # 0 while it is unknown
    "least_weight": 1.0,  # between these two the mean weight counts
    "largest_weight": 1.0,
    "largest_gain": float("inf"),  # gain beyond which the row's curvature outgrows the objective's
    "least_range": 1e-30,  # in units of the row, like the next two; above 0, so that a quotient stays finite
    "violation_range": 0.0,  # largest violation, fading
    "last_change": 0.0,  # of the violation
}


@dataclass(frozen=True)
class GainSettings:
    """Numbers of the gains, the same for every problem.

    ``python -m benchmarks.primal_dual --families cells`` notices each of them.

    Attributes:
        memory: Steps over which the mean weight is taken.
        least_scales: Multiplier scales below which the mean weight does not count.  With 1 a fresh student is pushed
            too hard (full batches of digits end at a loss of .055 instead of .050).
        largest_scales: Multiplier scales above which it does not count.  Without that end a threshold out of reach
            doubles its weight again and again: 5,000 where a multiplier of 10 holds it.
        fading: Steps over which the range fades.  Without fading a small multiplier creeps (780 steps instead of 380 on
            breast cancer).
        reversals: Reversals that the range is at least.  At 0 gradient descent at .5 throws two constraints to and fro
            for ever (``tests/safekd/training/test_trainer.py``).
        least_reversals: Share of a reversal that counts whatever the row weighs: all where values may hold noise, none
            of exact ones (``PrimalDual(exact=)``).
        integral: Integral time, in steps.  At 25 five thousand noisy steps swing by .065 instead of .06
            (``tests/solvers/primal_dual/test_gains.py``), at 50 two constraints on three logits take 1,280, not 1,000.
        whole: Steps of a run from which all times are as given; shorter runs have that share of them.
        shortest: Least share.
        first_readings: How often rows without a multiplier scale are asked for it in between.
    """

    memory: float = 30.0
    least_scales: float = 0.1
    largest_scales: float = 10.0
    fading: float = 100.0
    reversals: float = 8.0
    least_reversals: float = 1.0
    integral: float = 30.0
    whole: int = 600
    shortest: float = 0.1
    first_readings: int = 20

    def shorten(self, horizon: int | None) -> GainSettings:
        """Return the settings of a run of so many steps, None for one of unknown length."""
        share = 1.0 if horizon is None else min(max(horizon / self.whole, self.shortest), 1.0)
        times = {name: share * getattr(self, name) for name in ("memory", "fading", "integral")}
        return replace(self, **times)


SETTINGS = GainSettings()


def is_reading(step: int) -> bool:
    """Tell whether multiplier scales are read at this step, counted from 1: at powers of two."""
    return step & (step - 1) == 0


def update_scales(now: State, scale_C: Array, gain_C: Array, asked_C: Array) -> dict[str, Array]:
    """Return what of the state a reading of scales and largest gains changes, where it was asked for; NaN says nothing.

    The mean weight begins at a multiplier that was handed over.  Later readings move the scale halfway, in logarithms,
    so that one noisy batch changes little.
    """
    xp = namespace_of(scale_C)
    known_C = asked_C & (scale_C == scale_C)
    first_C = known_C & (now["multiplier_scale"] == 0)
    scale_C = _move_halfway(now["multiplier_scale"], scale_C, known_C)
    old_C = xp.where(now["largest_gain"] < xp.inf, now["largest_gain"], 0.0)
    largest_gain_C = _move_halfway(old_C, gain_C, asked_C & (gain_C == gain_C))
    weights = {name: xp.where(scale_C > 0, new_C, now[name]) for name, new_C in weigh_by_scale(scale_C).items()}
    return weights | {
        "multiplier_scale": scale_C,
        "largest_gain": xp.where(largest_gain_C > 0, largest_gain_C, xp.inf),
        "mean_weight": xp.where(first_C, abs(now["multiplier"]), now["mean_weight"]),
    }


def weigh_by_scale(scale_C: Array) -> dict[str, Array]:
    """Return between which two the mean weights of rows with these multiplier scales count."""
    return {"least_weight": SETTINGS.least_scales * scale_C, "largest_weight": SETTINGS.largest_scales * scale_C}


def _move_halfway(old_C: Array, new_C: Array, known_C: Array) -> Array:
    """Return the geometric mean of two readings where the new one is known, the new one where there is no old one."""
    xp = namespace_of(old_C)
    return xp.where(known_C, xp.where(old_C > 0, (old_C * new_C) ** 0.5, new_C), old_C)


class Gains(NamedTuple):
    """What a violation as large as its range weighs, and the gain that makes it so, (C,) each."""

    weight_C: Array
    gain_C: Array


def measure_gains(now: State, e_C: Array, before_C: Array, settings: GainSettings) -> tuple[dict[str, Array], Gains]:
    """Return what of the state a violation e, and the one a step before, change; and the gains of the rows.

    Two changes that follow each other with opposite signs differ in size from their sum by twice the smaller one.
    """
    xp = namespace_of(e_C)
    change_C, last_C = e_C - before_C, now["last_change"]
    reversal_C = abs(change_C) + abs(last_C) - abs(change_C + last_C)
    weight_C = xp.minimum(xp.maximum(now["mean_weight"], now["least_weight"]), now["largest_weight"])
    part_C = (settings.largest_scales * weight_C / now["largest_weight"]).clip(settings.least_reversals, 1.0)
    least_C = xp.maximum(now["least_range"], settings.reversals / 2 * part_C * reversal_C)
    range_C = xp.maximum(xp.maximum(now["violation_range"] * (1 - 1 / settings.fading), least_C), abs(e_C))
    gain_C = xp.minimum(weight_C / range_C, now["largest_gain"])
    return {"least_range": least_C, "violation_range": range_C, "last_change": change_C}, Gains(weight_C, gain_C)


def update_mean_weights(now: State, weight_C: Array, settings: GainSettings) -> Array:
    """Return the mean weights after a step in which rows had the weights ``weight_C``."""
    return now["mean_weight"] + (abs(weight_C) - now["mean_weight"]) / settings.memory
