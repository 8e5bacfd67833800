"""The gains of a controller in the units of its constraint: how strongly a violation weighs, and how soon it is summed up.

One principle: gains are measured in what the row itself has shown.  A violation as large as its range, the largest of
late, weighs as much as the row has weighed on average; the integral part adds the same again in as many steps as the row
took to halve its largest violation:

    gain           =  mean weight / range
    mean weight    of the last hundred steps, at least a tenth and at most ten times the row's multiplier scale
    range          largest |e|, fading over a hundred steps to a fifth of the largest ever
    integral time  first step at which |e| <= largest / 2, the steps so far until then; 10 to 50 steps

The multiplier scale (``_multiplier_scale``: where row and objective pull alike) is read at steps 1, 2, 4, 8 and so on,
since a fresh student is nowhere near the place where the multiplier is decided.  So the start is gentle; a cheap
constraint is held by a soft controller, which one batch's noise moves little; one that needs a large multiplier reaches
it in a number of steps that grows with its logarithm; where the learning rate is small, the multiplier waits for the
student instead of winding up on the way; and the last part of the way is not made at the pace of the first.  A change of
gain never moves a multiplier by itself (``PIGain``).  Axes: C rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class GainSettings:
    """Numbers of the gains, the same for every problem.

    ``python -m benchmarks.primal_dual --families cells`` notices each of them.

    Attributes:
        memory: Steps over which the mean weight is taken and the range fades; below 20 noise of batches shows in the gain.
        least, most: Multiplier scales between which the mean weight counts.  With a lower end of 1 a fresh student is
            pushed too hard (full batches of digits end at a loss of .054 instead of .050); without an upper end a
            threshold out of reach doubles its weight again and again: multipliers of 5,000 where 10 hold the constraint.
        narrowest: Share of the largest violation ever below which the range does not fade.  At 1 a small multiplier
            creeps (780 steps instead of 420 on breast cancer), at .05 the noise of batches swings safety more.
        soonest: Least integral time, in steps.
        latest: Largest integral time, in steps.  At 300 far thresholds are not reached in 2,000 steps.
    """

    memory: float = 100.0
    least: float = 0.1
    most: float = 10.0
    narrowest: float = 0.2
    soonest: float = 10.0
    latest: float = 50.0


SETTINGS = GainSettings()


def is_reading(step: int) -> bool:
    """Tell whether multiplier scales are read at this step, counted from 1: at powers of two."""
    return step & (step - 1) == 0


def read_scales(now: State, scale_C: Tensor) -> dict[str, Tensor]:
    """Return what of the state a reading of multiplier scales changes; NaN says nothing.

    The mean weight begins at a multiplier that was handed over.  Later readings move the scale halfway, in logarithms,
    so that one noisy batch changes little.
    """
    read_C = ~scale_C.isnan()
    first_C = read_C & (now["scale"] == 0)
    moved_C = torch.where(first_C, scale_C, (now["scale"] * scale_C).sqrt())
    return {
        "scale": torch.where(read_C, moved_C, now["scale"]),
        "mean_weight": torch.where(first_C, now["multiplier"].abs(), now["mean_weight"]),
    }


def ranges(now: State, e_C: Tensor) -> dict[str, Tensor]:
    """Return the largest violation so far, and the range after this step, (C,) each."""
    size_C = e_C.abs()
    largest_C = torch.maximum(now["largest"], size_C)
    faded_C = torch.maximum(now["range"] * (1 - 1 / SETTINGS.memory), SETTINGS.narrowest * largest_C)
    return {"largest": largest_C, "range": torch.maximum(faded_C, size_C)}


def gains(now: State, range_C: Tensor) -> Tensor:
    """Return the gain of each row, (C,), above 0; a row whose scale nothing has shown goes by a scale of 1."""
    scale_C = now["scale"]
    size_C = torch.minimum(torch.maximum(now["mean_weight"], SETTINGS.least * scale_C), SETTINGS.most * scale_C)
    return torch.where(scale_C > 0, size_C, 1.0) / torch.where(range_C > 0, range_C, 1.0)


def integral_times(now: State, e_C: Tensor, largest_C: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return what of the state changes, and the integral time of each row, in steps in which it was present, (C,)."""
    count_C = now["count"] + 1
    halved_C = torch.where((now["halved"] == 0) & (e_C.abs() <= largest_C / 2), count_C, now["halved"])
    time_C = torch.where(halved_C > 0, halved_C, count_C).clamp(SETTINGS.soonest, SETTINGS.latest)
    return {"count": count_C, "halved": halved_C}, time_C


def mean_weights(now: State, weight_C: Tensor) -> Tensor:
    """Return the mean weights after a step in which rows had the weights ``weight_C``."""
    return now["mean_weight"] + (weight_C.abs() - now["mean_weight"]) / SETTINGS.memory
