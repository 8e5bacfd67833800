"""How a scale-free penalty changes on the way: softer where a row rings, stiffer where its violation rests.

Axes: C rows; S steps that follow each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

RINGS = 4  # steps in a row whose signs alternate: a primal step too long for its penalty
SOFTEST = 1e-3  # how far ringing may take rho down, as a share of what is stiff
_LOUD = 1e-3  # a penalty term smaller than this share of the multiplier is the last digits', not ringing
_FIRST_LOOK, _FASTER = 16, 10.0
_AUDIBLE = 0.01  # where rho adds less than this to the multiplier, another rho would change little


def softened(rho_C: Tensor, e_SC: Tensor, price_C: Tensor, softest_C: Tensor) -> Tensor:
    """Return rho, smaller where a row changes sides step after step without coming closer.

    Without noise that has one cause: a primal step too long for rho.  A row that grows by r a step is 1 + r times too
    stiff.  e_SC: the violations of the last steps, slacks below 0.
    """
    growth_C = (e_SC[-1].abs() / e_SC[0].abs()) ** (1 / (len(e_SC) - 1))
    rings_C = ((e_SC[1:] * e_SC[:-1]) < 0).all(0) & (growth_C >= 1)
    rings_C &= rho_C * e_SC[-1].abs() > _LOUD * price_C.abs()
    return torch.where(rings_C, torch.maximum(rho_C / (1 + growth_C), softest_C), rho_C)


def is_look(step: int) -> bool:
    """Tell whether violations are compared at this step, from 1: the first one, then the powers of two from 16."""
    return step == 1 or (step >= _FIRST_LOOK and step & (step - 1) == 0)


def hurried(rho_C: Tensor, missed_C: Tensor, watched_C: Tensor, price_C: Tensor, most_C: Tensor) -> Tensor:
    """Return rho, ten times as much where a violation has not halved since the last look, up to ``most_C``.

    missed_C, watched_C: violations now and at the last look, 0 for none.
    """
    slow_C = (missed_C > 0.5 * watched_C) & (watched_C > 0) & (rho_C * missed_C > _AUDIBLE * price_C.abs())
    return torch.where(slow_C, torch.minimum(_FASTER * rho_C, torch.maximum(most_C, rho_C)), rho_C)
