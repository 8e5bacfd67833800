"""How a scale-free rule changes on the way: penalty softer where a row rings, stiffer where its violation rests, and
multipliers no faster than what they drive.

A violation e under weight lambda + rho e moves by -s (lambda + rho e - price) a step: the penalty takes away the share
s rho of it.  With a multiplier step h rho the two settle fastest, without much swing, at a damping of 0.7, which is
h = s rho / 2.  That share is at least the largest by which the row has moved in one step, its pace.  Short steps, and
those of Adam far from the boundary, move a row at a small pace: a multiplier that did not wait for it would wind up all
the way.  Axes: C rows; S steps that follow each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

RINGS = 4  # steps in a row whose signs alternate: a primal step too long for its penalty
CALM = 0.5  # of the rho at which a row rang is the most that it grows back to: it would ring again
SOFTEST = 1e-3  # how far ringing may take rho down, as a share of what is stiff
_LOUD = 1e-3  # a penalty term smaller than this share of the multiplier is the last digits', not ringing
_FIRST_LOOK, _FASTER = 16, 10.0
_STALLED = 0.5  # of the way that a row would have made at its own pace
_FOLLOWS = 0.5
_UNSEEN = 1 / 16  # a pace too small for the steps so far to show is not ruled out
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


def violations(e_C: Tensor, floor_C: Tensor) -> Tensor:
    """Return by how much rows are missed, 0 where they are not; floor_C tells equalities by minus infinity."""
    return e_C.abs().where(floor_C < 0, e_C.clamp_min(0))


def paces(pace_C: Tensor, e_C: Tensor, before_C: Tensor, known_C: Tensor) -> Tensor:
    """Return the largest share of a violation by which a step has changed it so far, 0 to 2.

    before_C: violations a step ago, where ``known_C``.
    """
    largest_C = torch.maximum(e_C.abs(), before_C.abs())
    moved_C = torch.where(known_C & (largest_C > 0), (e_C - before_C).abs() / largest_C, 0.0)
    return torch.maximum(pace_C, moved_C)


def followed(share: float, pace_C: Tensor, steps: int) -> Tensor:
    """Return the multiplier step as a share of rho: ``share``, less where the row moves more slowly than that."""
    return (_FOLLOWS * pace_C).clamp(min=_UNSEEN / steps).clamp(max=share)


def keeps_up(share: float) -> float:
    """Return the pace from which multipliers need not wait."""
    return share / _FOLLOWS


def is_look(step: int) -> bool:
    """Tell whether violations are compared at this step, from 1: the first one, then the powers of two from 16."""
    return step == 1 or (step >= _FIRST_LOOK and step & (step - 1) == 0)


def hurried(
    rho_C: Tensor,
    missed_C: Tensor,
    watched_C: Tensor,
    price_C: Tensor,
    most_C: Tensor,
    way_C: Tensor,
) -> Tensor:
    """Return rho, ten times as much where a violation rests, up to ``most_C``.

    It rests when it has not halved since the last look, and not for lack of time: it has come nearer by less than half
    of what steps at its pace would have done.  missed_C, watched_C: violations now and at the last look, 0 for none.
    way_C: pace times the steps since.
    """
    slow_C = (missed_C > 0.5 * watched_C) & (watched_C > 0) & (rho_C * missed_C > _AUDIBLE * price_C.abs())
    slow_C &= watched_C - missed_C <= _STALLED * way_C * watched_C
    return torch.where(slow_C, torch.minimum(_FASTER * rho_C, torch.maximum(most_C, rho_C)), rho_C)


def since_look(step: int) -> int:
    """Return how many steps lie between a look and the one before it."""
    return step - 1 if step <= _FIRST_LOOK else step // 2
