"""The gains of a controller in the units of its constraint: how strongly a violation weighs, and how soon it is summed up.

One principle: gains are measured in what the row itself has shown.  A violation as large as the largest one so far is to
weigh as much as the row has weighed on average, over the last hundred steps; the integral part adds the same again in as
many steps as the row took to halve that violation:

    gain           =  mean weight / range,     range = largest |e| so far
    integral time  =  first step at which |e| <= range / 2, and the steps so far until then

The mean weight begins at the row's multiplier scale (``_multiplier_scale``: where row and objective pull alike), and is
kept between a third and ten times of it; the scale is read again at steps 2, 4, 8, 16 and so on, since a fresh student is
nowhere near the place where the multiplier is decided.  So a cheap constraint is held by a soft controller, which one
batch's noise moves little; one that needs a large multiplier reaches it in a number of steps that grows with its
logarithm; and where the learning rate is small, the multiplier waits for the student instead of winding up on the way.
A change of gain never moves a multiplier by itself (``PIGain``).  Axes: C rows.
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
        memory: Steps over which the mean weight is taken; below 20 noise of batches shows in the gain.
        least, most: Multiplier scales between which the mean weight counts.  Without an upper end a threshold out of
            reach doubles its weight again and again: multipliers of 5,000 where 10 hold the constraint.
        soonest: Least integral time, in steps.  At 10 the multiplier overshoots where the student is slow.
        latest: Largest integral time, in steps.  At 300 far thresholds are not reached in 2,000 steps.
    """

    memory: float = 100.0
    least: float = 1 / 3
    most: float = 10.0
    soonest: float = 20.0
    latest: float = 100.0


SETTINGS = GainSettings()


def is_reading(step: int) -> bool:
    """Tell whether multiplier scales are read at this step, counted from 1: at powers of two."""
    return step & (step - 1) == 0


def read_scales(now: State, scale_C: Tensor) -> dict[str, Tensor]:
    """Return what of the state a reading of multiplier scales changes; NaN says nothing.

    A first reading begins the mean weight, at a multiplier that was handed over if that is larger.  Later ones move the
    scale halfway, in logarithms, so that one noisy batch changes little.
    """
    read_C = ~scale_C.isnan()
    first_C = read_C & (now["scale"] == 0)
    moved_C = torch.where(first_C, scale_C, (now["scale"] * scale_C).sqrt())
    return {
        "scale": torch.where(read_C, moved_C, now["scale"]),
        "mean_weight": torch.where(first_C, torch.maximum(scale_C, now["multiplier"].abs()), now["mean_weight"]),
    }


def gains(now: State, range_C: Tensor) -> Tensor:
    """Return the gain of each row, (C,), above 0; a row whose scale nothing has shown goes by a scale of 1."""
    scale_C = now["scale"]
    size_C = torch.minimum(torch.maximum(now["mean_weight"], SETTINGS.least * scale_C), SETTINGS.most * scale_C)
    return torch.where(scale_C > 0, size_C, 1.0) / torch.where(range_C > 0, range_C, 1.0)


def integral_times(now: State, e_C: Tensor, range_C: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return what of the state changes, and the integral time of each row, in steps in which it was present, (C,)."""
    count_C = now["count"] + 1
    halved_C = torch.where((now["halved"] == 0) & (e_C.abs() <= range_C / 2), count_C, now["halved"])
    time_C = torch.where(halved_C > 0, halved_C, count_C).clamp(SETTINGS.soonest, SETTINGS.latest)
    return {"count": count_C, "halved": halved_C}, time_C


def mean_weights(now: State, weight_C: Tensor) -> Tensor:
    """Return the mean weights after a step in which rows had the weights ``weight_C``."""
    return now["mean_weight"] + (weight_C.abs() - now["mean_weight"]) / SETTINGS.memory
