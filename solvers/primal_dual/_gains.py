"""The gains of a controller in the units of its constraint: how strongly a violation weighs, how soon it is summed up.

One principle: gains are measured in what the row itself has shown.  A violation as large as its range, the largest of
late, weighs as much as the row has weighed on average; the integral part adds the same again in as many steps as the
row took to halve its largest violation:

    gain           =  mean weight / range, at most the stiffest (``_multiplier_scale``)
    mean weight    of the last thirty steps, at least a tenth and at most ten times the row's multiplier scale
    range          largest |e|, fading over a hundred steps; at least eight times the largest reversal, and least_range
    reversal       the smaller of two changes of e that follow each other with opposite signs
    integral time  first step at which |e| <= largest / 2, the steps so far until then; 20 to 30 steps

The multiplier scale (``_multiplier_scale``: where row and objective pull alike) is read at steps 1, 2, 4, 8 and so on,
since a fresh student is nowhere near the place where the multiplier is decided.  So the start is gentle; a cheap
constraint is held by a soft controller, which one batch's noise moves little; one that needs a large multiplier reaches
it in a number of steps that grows with its logarithm; where the learning rate is small, the multiplier waits for the
student instead of winding up on the way; and the last part of the way is not made at the pace of the first.  What goes
to and fro, by noise or by a primal step too long for the gain, shows as reversals, and makes the gain soft for good.  A
change of gain never moves a multiplier by itself (``PIGain``).  A run of fewer than 600 steps is controlled in
proportionately less time.  Axes: C rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ._multiplier_scale import Scales

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class GainSettings:
    """Numbers of the gains, the same for every problem.

    ``python -m benchmarks.primal_dual --families cells`` notices each of them.

    Attributes:
        memory: Steps over which the mean weight is taken.
        least, most: Multiplier scales between which the mean weight counts.  With a lower end of 1 a fresh student is
            pushed too hard (full batches of digits end at a loss of .055 instead of .050); without an upper end a
            threshold out of reach doubles its weight again and again: 5,000 where a multiplier of 10 holds it.
        fading: Steps over which the range fades.  Without fading a small multiplier creeps (780 steps instead of 380 on
            breast cancer).
        reversals: Reversals that the range is at least.  At 0 gradient descent at .5 throws two constraints to and fro
            for ever (``tests/safekd/test_trainer.py``).
        soonest: Least integral time, in steps.  At 10 the multiplier overshoots where the student is slow.
        whole: Steps of a run from which all times are as given; shorter runs have that share of them.
        shortest: Least share.
        latest: Largest integral time, in steps.  At 50 two constraints on three logits take 1,280 steps, not 1,000.
    """

    memory: float = 30.0
    least: float = 0.1
    most: float = 10.0
    fading: float = 100.0
    reversals: float = 8.0
    soonest: float = 20.0
    latest: float = 30.0
    whole: int = 600
    shortest: float = 0.1

    def within(self, horizon: int | None) -> GainSettings:
        """Return the settings of a run of so many steps, None for one of unknown length."""
        share = 1.0 if horizon is None else min(max(horizon / self.whole, self.shortest), 1.0)
        times = {name: share * getattr(self, name) for name in ("memory", "fading", "soonest", "latest")}
        return replace(self, **times)


SETTINGS = GainSettings()


def is_reading(step: int) -> bool:
    """Tell whether multiplier scales are read at this step, counted from 1: at powers of two."""
    return step & (step - 1) == 0


def read_scales(now: State, found: Scales, asked_C: Tensor) -> dict[str, Tensor]:
    """Return what of the state a reading of scales changes, where it was asked for; NaN says nothing.

    The mean weight begins at a multiplier that was handed over.  Later readings move the scale halfway, in logarithms,
    so that one noisy batch changes little.
    """
    first_C = asked_C & ~found.multiplier.isnan() & (now["scale"] == 0)
    return {
        "scale": _halfway(now["scale"], found.multiplier, asked_C),
        "stiffest": _halfway(now["stiffest"], found.stiffest, asked_C),
        "mean_weight": torch.where(first_C, now["multiplier"].abs(), now["mean_weight"]),
    }


def _halfway(old_C: Tensor, new_C: Tensor, asked_C: Tensor) -> Tensor:
    """Return the geometric mean of two readings, the new one where there is no old one, 0 for none."""
    moved_C = torch.where(old_C > 0, (old_C * new_C).sqrt(), new_C)
    return torch.where(asked_C & ~new_C.isnan(), moved_C, old_C)


def ranges(now: State, e_C: Tensor, before_C: Tensor, settings: GainSettings) -> dict[str, Tensor]:
    """Return what of the state a violation e, and the one a step before, change; the range among it."""
    size_C, change_C = e_C.abs(), e_C - before_C
    smaller_C = torch.minimum(change_C.abs(), now["change"].abs())
    reversal_C = torch.maximum(now["reversal"], torch.where(change_C * now["change"] < 0, smaller_C, 0.0))
    faded_C = torch.maximum(now["range"] * (1 - 1 / settings.fading), settings.reversals * reversal_C)
    faded_C = torch.maximum(faded_C, now["least_range"])
    return {
        "largest": torch.maximum(now["largest"], size_C),
        "range": torch.maximum(faded_C, size_C),
        "reversal": reversal_C,
        "change": change_C,
    }


def gains(now: State, range_C: Tensor) -> Tensor:
    """Return the gain of each row, (C,), above 0; a row whose scale nothing has shown goes by a scale of 1."""
    scale_C = now["scale"]
    size_C = torch.minimum(torch.maximum(now["mean_weight"], SETTINGS.least * scale_C), SETTINGS.most * scale_C)
    gain_C = torch.where(scale_C > 0, size_C, 1.0) / torch.where(range_C > 0, range_C, 1.0)
    return torch.where(now["stiffest"] > 0, torch.minimum(gain_C, now["stiffest"]), gain_C)


def integral_times(
    now: State, e_C: Tensor, largest_C: Tensor, settings: GainSettings
) -> tuple[dict[str, Tensor], Tensor]:
    """Return what of the state changes, and the integral time of each row, in steps in which it was present, (C,)."""
    count_C = now["count"] + 1
    halved_C = torch.where((now["halved"] == 0) & (e_C.abs() <= largest_C / 2), count_C, now["halved"])
    time_C = torch.where(halved_C > 0, halved_C, count_C).clamp(settings.soonest, settings.latest)
    return {"count": count_C, "halved": halved_C}, time_C


def mean_weights(now: State, weight_C: Tensor, settings: GainSettings) -> Tensor:
    """Return the mean weights after a step in which rows had the weights ``weight_C``."""
    return now["mean_weight"] + (weight_C.abs() - now["mean_weight"]) / settings.memory
