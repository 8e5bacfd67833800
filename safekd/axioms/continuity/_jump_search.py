"""A directed search for jumps of a function along lines.

Each line is looked at in ticks.  Where a row changes most between two ticks, and where it changes otherwise than its
neighbors foretell, the interval is halved again and again, keeping the half with the larger change.  Along a Lipschitz
function the change shrinks as the interval does; at a jump it stays.  Rows that do not look at each other are searched
side by side, each in its own interval; otherwise all share the interval of the row that changes most.

A search can miss a jump, above all one below a hundredth of what the function changes beside it; it cannot invent
one: both ends of the last interval are evaluated as they are.
Axes: B rows, K values, T ticks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_TICKS = 20
_FIRST, _LAST = -0.1, 1.13  # no tick in the middle of a line, where two teachers that change places are alike
_BLOCKS = 4
_FORETOLD = 1e-3  # what neighbors foretell this well needs no second look
_GROWS = 4.0  # a slope that grows by more when the interval is halved ten times has not settled


@dataclass(frozen=True)
class Line:
    """A way through the inputs of B rows.

    name: where it leads.  at: values (B, K) at places (B,), from 0, where the inputs are, to 1.  speed_B: how far a
    row's inputs move between places 0 and 1.
    """

    name: str
    evaluate: Callable[[Tensor], Tensor]
    speed_B: Tensor


@dataclass(frozen=True)
class LineResult:
    """What a row does along a line, each (B,).

    jump_B: change of a value over the narrowest interval where it did not shrink, 0 if none, NaN if a value is no
    number.  slope_B: largest change seen a unit of input, jumps left out.  growing_B: it was still growing at the
    narrowest interval: continuous, as far as could be seen, but not Lipschitz.  width_B: how far apart the inputs were.
    """

    jump_B: Tensor
    slope_B: Tensor
    growing_B: Tensor
    width_B: Tensor


@dataclass(frozen=True)
class Precision:
    """How far halving goes, and which changes are too small to count, by dtype."""

    halvings: int
    floor: float
    noise: float

    @staticmethod
    def for_dtype(dtype: torch.dtype) -> Precision:
        """Return what the floats of ``dtype`` bear."""
        eps = torch.finfo(dtype).eps
        return Precision(40, 1e-6, 1e3 * eps) if dtype == torch.float64 else Precision(16, 1e-4, 1e3 * eps)


def rows_interact(line: Line) -> bool:
    """Tell whether a row's values change when other rows move."""
    B = len(line.speed_B)
    place_B = torch.linspace(0.1, 0.9, B).to(line.speed_B)
    mixed_BK = line.evaluate(place_B)
    for b in {0, B // 2, B - 1}:
        alone_K = line.evaluate(place_B[b].expand(B))[b]
        if not torch.allclose(mixed_BK[b], alone_K, rtol=1e-5, atol=1e-7, equal_nan=True):
            return True
    return False


def search_line(line: Line, together: bool, precision: Precision) -> LineResult:
    """Search one line.  together: rows look at each other, so all of them move together."""
    place_T = torch.linspace(_FIRST, _LAST, _TICKS).to(line.speed_B)
    B = len(line.speed_B)
    w_TBK = torch.stack([line.evaluate(place.expand(B)) for place in place_T])
    change_TB = _change(w_TBK[1:], w_TBK[:-1])
    slope_B = _per_unit(change_TB.nan_to_num(0).amax(0), place_T[1] - place_T[0], line)
    nothing_B = torch.zeros_like(slope_B)
    look = LineResult(nothing_B, slope_B, nothing_B.bool(), nothing_B)
    if bool((change_TB == 0).all()):
        return look
    starts = [change_TB.argmax(0)]
    surprise_TB = _surprise(w_TBK)
    if not bool((surprise_TB.amax(0) <= _FORETOLD * change_TB.amax(0)).all()):
        starts.append(surprise_TB.argmax(0))
    for start_B in starts:
        if together:
            worst = change_TB.gather(0, start_B[None])[0].argmax()
            start_B = start_B[worst].expand(B)
        look = _worse(look, _narrow(line, place_T[start_B], place_T[start_B + 1], together, precision))
    return look


def _narrow(line: Line, low_B: Tensor, high_B: Tensor, together: bool, precision: Precision) -> LineResult:
    low_BK, high_BK = line.evaluate(low_B), line.evaluate(high_B)
    change_B = _change(low_BK, high_BK)
    slope_B = torch.zeros_like(change_B)
    per_block = precision.halvings // _BLOCKS
    for _ in range(_BLOCKS):
        before_B = change_B
        for _ in range(per_block):
            middle_B = (low_B + high_B) / 2
            middle_BK = line.evaluate(middle_B)
            left_B, right_B = _change(low_BK, middle_BK), _change(middle_BK, high_BK)
            go_left_B = left_B.isnan() | (left_B > right_B)
            if together:
                go_left_B = go_left_B[torch.maximum(left_B, right_B).argmax()].expand_as(go_left_B)
            left_BK = go_left_B.unsqueeze(-1)
            low_B, high_B = torch.where(go_left_B, low_B, middle_B), torch.where(go_left_B, middle_B, high_B)
            low_BK, high_BK = torch.where(left_BK, low_BK, middle_BK), torch.where(left_BK, middle_BK, high_BK)
            change_B = torch.where(go_left_B, left_B, right_B)
            counted_B = change_B.where(change_B > precision.noise, torch.zeros_like(change_B))
            slope_B = torch.maximum(slope_B, _per_unit(counted_B, high_B - low_B, line))
        unsettled_B = ~(change_B <= precision.floor) & ~(change_B * 2**per_block <= _GROWS * before_B)
        if not bool(unsettled_B.any()):
            break
    if bool(unsettled_B.any()):  # the ends were looked at while other rows stood elsewhere
        change_B = _change(line.evaluate(low_B), line.evaluate(high_B))
    jumps_B = unsettled_B & ~(change_B <= before_B / 2)
    return LineResult(
        jump_B=torch.where(jumps_B, change_B, 0.0),
        slope_B=torch.where(jumps_B, 0.0, slope_B),
        growing_B=unsettled_B & ~jumps_B,
        width_B=(high_B - low_B) * line.speed_B,
    )


def _worse(one: LineResult, other: LineResult) -> LineResult:
    takes_B = other.jump_B.isnan() | (other.jump_B > one.jump_B)
    return LineResult(
        jump_B=torch.where(takes_B, other.jump_B, one.jump_B),
        slope_B=torch.maximum(one.slope_B, other.slope_B),
        growing_B=one.growing_B | other.growing_B,
        width_B=torch.where(takes_B, other.width_B, one.width_B),
    )


def _change(one_K: Tensor, other_K: Tensor) -> Tensor:
    return (one_K - other_K).abs().amax(-1)


def _surprise(w_TBK: Tensor) -> Tensor:
    """Return by how much each interval's change differs from what its neighbors foretell, (T - 1, B)."""
    step_TBK = w_TBK.diff(dim=0)
    near_TBK, far_TBK = step_TBK[1:-3] + step_TBK[3:-1], step_TBK[:-4] + step_TBK[4:]
    apart_TB = (step_TBK[2:-2] - (4 * near_TBK - far_TBK) / 6).abs().amax(-1)  # exact for polynomials of degree four
    edge_TB = torch.zeros_like(apart_TB[:2])
    return torch.cat([edge_TB, apart_TB, edge_TB])


def _per_unit(change_B: Tensor, width: Tensor, line: Line) -> Tensor:
    moved_B = width * line.speed_B
    return torch.where(moved_B > 0, change_B / moved_B, torch.zeros_like(change_B))
