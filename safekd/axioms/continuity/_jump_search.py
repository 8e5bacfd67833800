"""A directed search for jumps of a function along lines.

Each line is looked at in ticks.  Where a row changes most between two ticks, and where it changes otherwise than its
neighbors foretell, the interval is halved again and again, keeping the half with the larger change.  Along a Lipschitz
function the change shrinks as the interval does; at a jump it stays.  Rows that do not look at each other are searched
side by side, each in its own interval, and those of many lines at once; a row that has settled is evaluated no more.
Otherwise all share the interval of the row that changes most.

A search can miss a jump, above all one below a hundredth of what the function changes beside it; it cannot invent
one: both ends of the last interval are evaluated as they are.
Axes: B rows, K values, T ticks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Line:
    """A way through the inputs of B rows.

    Attributes:
        name: Where it leads.
        evaluate: Values (B, K) at places (B,), from 0, where the inputs are, to 1.
        speed_B: How far a row's inputs move between places 0 and 1, (B,).
    """

    name: str
    evaluate: Callable[[Tensor], Tensor]
    speed_B: Tensor

    def select(self, rows_R: Tensor) -> Line | None:
        """Return the same line of some rows alone; None where rows cannot be taken apart.

        Args:
            rows_R: Their numbers, (R,).
        """
        return None


@dataclass(frozen=True)
class LineResult:
    """What each row does along a line.

    Attributes:
        jump_B: Change of a value over the narrowest interval where it did not shrink, 0 if none, NaN if a value is no
            number, (B,).
        slope_B: Largest change seen a unit of input, jumps left out, (B,).
        growing_B: Whether it was still growing at the narrowest interval: continuous, as far as could be seen, but not
            Lipschitz, (B,).
        width_B: How far apart the inputs were, (B,).
    """

    jump_B: Tensor
    slope_B: Tensor
    growing_B: Tensor
    width_B: Tensor


@dataclass(frozen=True)
class JumpSearchSettings:
    """How finely lines are searched, and what counts as a jump; ``tests/safekd/axioms/test_continuity.py`` notices.

    Attributes:
        ticks: How many points of a line are looked at first; each costs one evaluation of the rule.
        first: Place of the first tick, in lengths of the line.
        last: Place of the last tick; with ``first`` and ``ticks`` it leaves no tick in the middle of a line, where two
            teachers that change places are alike.
        halvings: How often an interval is halved: 2^-40 of a line can still be told apart in float64.
        blocks: In how many blocks the halvings come; after each one a row that has settled ends the search.
        foretold: What neighbors foretell up to this share of the largest change needs no second look.
        growth: A slope that grows by more than this factor over a block of halvings has not settled.
        floor: Changes of a value up to this one are no jump, in units of weight.
        noise_ulps: Changes up to so many ulp of 1 count as rounding and not as slope.
        eps: Relative precision of the floats that are searched in.
        row_rtol: Values of a row that differ by less than this when other rows move do not look at them, relative.
        row_atol: The same, absolute.
    """

    ticks: int = 20
    first: float = -0.1
    last: float = 1.13
    halvings: int = 40
    blocks: int = 4
    foretold: float = 1e-3
    growth: float = 4.0
    floor: float = 1e-6
    noise_ulps: float = 1e3
    eps: float = torch.finfo(torch.float64).eps
    row_rtol: float = 1e-5
    row_atol: float = 1e-7

    @classmethod
    def for_dtype(cls, dtype: torch.dtype) -> JumpSearchSettings:
        """Return the settings that floats of ``dtype`` bear: shorter ones end sooner, at larger changes."""
        eps = torch.finfo(dtype).eps
        return cls(eps=eps) if dtype == torch.float64 else cls(halvings=16, floor=1e-4, eps=eps)

    def agrees(self, one: Tensor, other: Tensor) -> bool:
        """Say whether two answers are one, but for rounding."""
        return one.shape == other.shape and torch.allclose(
            one, other, rtol=self.row_rtol, atol=self.row_atol, equal_nan=True
        )

    @property
    def noise(self) -> float:
        """The largest change that counts as rounding."""
        return self.noise_ulps * self.eps


_DEFAULTS = JumpSearchSettings()


def rows_interact(line: Line, settings: JumpSearchSettings = _DEFAULTS) -> bool:
    """Tell whether a row's values change when other rows move."""
    B = len(line.speed_B)
    place_B = torch.linspace(0.1, 0.9, B).to(line.speed_B)
    mixed_BK = line.evaluate(place_B)
    for b in {0, B // 2, B - 1}:
        alone_K = line.evaluate(place_B[b].expand(B))[b]
        if not settings.agrees(mixed_BK[b], alone_K):
            return True
    return False


def search_line(line: Line, together: bool, settings: JumpSearchSettings) -> LineResult:
    """Search one line for jumps.

    Args:
        line: The line.
        together: Whether rows look at each other, so that all of them move together.
        settings: How finely.

    Returns:
        What each row does.
    """
    place_T = torch.linspace(settings.first, settings.last, settings.ticks).to(line.speed_B)
    B = len(line.speed_B)
    w_TBK = torch.stack([line.evaluate(place.expand(B)) for place in place_T])
    change_TB = _largest_change(w_TBK[1:], w_TBK[:-1])
    most_B, start_B = change_TB.amax(0), change_TB.argmax(0)
    slope_B = _divide_by_distance(change_TB.nan_to_num(0).amax(0), place_T[1] - place_T[0], line)
    nothing_B = torch.zeros_like(slope_B)
    look = LineResult(nothing_B, slope_B, nothing_B.bool(), nothing_B)
    surprise_TB = _unforeseen_change(w_TBK)
    surprised_B, other_B = ~(surprise_TB.amax(0) <= settings.foretold * most_B), surprise_TB.argmax(0)
    starts = [(start_B, most_B != 0), (other_B, surprised_B & (other_B != start_B))]
    if together:
        starts = [(start_B, (most_B != 0).any().expand(B)), (other_B, surprised_B.any().expand(B))]
    for first_B, chosen_B in starts:
        if not bool(chosen_B.any()):
            continue
        if together:
            first_B = first_B[change_TB.gather(0, first_B[None])[0].argmax()].expand(B)
        rows = chosen_B.nonzero().squeeze(-1)
        some = None if together or len(rows) == B else line.select(rows)
        if some is None:
            some, rows = line, torch.arange(B, device=rows.device)
        tick_R = first_B[rows]
        interval = _Interval(place_T[tick_R], place_T[tick_R + 1], w_TBK[tick_R, rows], w_TBK[tick_R + 1, rows])
        look = _keep_worse(look, rows, _halve_interval(some, interval, together, settings))
    return look


@dataclass
class _Interval:
    """The interval of each row: its ends, and what the function gives there."""

    low_B: Tensor
    high_B: Tensor
    low_BK: Tensor
    high_BK: Tensor

    def halve(self, line: Line, together: bool) -> Tensor:
        """Keep the half with the larger change; return that change."""
        middle_B = (self.low_B + self.high_B) / 2
        middle_BK = line.evaluate(middle_B)
        left_B, right_B = _largest_change(self.low_BK, middle_BK), _largest_change(middle_BK, self.high_BK)
        go_left_B = left_B.isnan() | (left_B > right_B)
        if together:
            go_left_B = go_left_B[torch.maximum(left_B, right_B).argmax()].expand_as(go_left_B)
        left_BK = go_left_B.unsqueeze(-1)
        self.low_B, self.high_B = (
            torch.where(go_left_B, self.low_B, middle_B),
            torch.where(go_left_B, middle_B, self.high_B),
        )
        self.low_BK, self.high_BK = (
            torch.where(left_BK, self.low_BK, middle_BK),
            torch.where(left_BK, middle_BK, self.high_BK),
        )
        return torch.where(go_left_B, left_B, right_B)

    def select(self, rows: Tensor) -> _Interval:
        return _Interval(self.low_B[rows], self.high_B[rows], self.low_BK[rows], self.high_BK[rows])


def _halve_interval(line: Line, interval: _Interval, together: bool, settings: JumpSearchSettings) -> LineResult:
    B = len(line.speed_B)
    change_B = _largest_change(interval.low_BK, interval.high_BK)
    look = LineResult(*(torch.zeros_like(change_B, dtype=kind) for kind in (None, None, torch.bool, None)))
    rows, per_block = torch.arange(B, device=change_B.device), settings.halvings // settings.blocks
    for _ in range(settings.blocks):
        before_B, slope_B = change_B, torch.zeros_like(change_B)
        for _ in range(per_block):
            change_B = interval.halve(line, together)
            counted_B = change_B.where(change_B > settings.noise, torch.zeros_like(change_B))
            slope_B = torch.maximum(slope_B, _divide_by_distance(counted_B, interval.high_B - interval.low_B, line))
        look.slope_B[rows] = torch.maximum(look.slope_B[rows], slope_B)
        look.width_B[rows] = (interval.high_B - interval.low_B) * line.speed_B
        unsettled_B = ~(change_B <= settings.floor) & ~(change_B * 2**per_block <= settings.growth * before_B)
        if not bool(unsettled_B.any()):
            return look
        left = unsettled_B.nonzero().squeeze(-1)
        some = None if together or len(left) == len(rows) else line.select(left)
        if some is not None:
            line, interval, rows = some, interval.select(left), rows[left]
            change_B, before_B, unsettled_B = change_B[left], before_B[left], unsettled_B[left]
    # the ends were looked at while other rows stood elsewhere
    change_B = _largest_change(line.evaluate(interval.low_B), line.evaluate(interval.high_B))
    jumps_B = unsettled_B & ~(change_B <= before_B / 2)
    look.jump_B[rows] = torch.where(jumps_B, change_B, 0.0)
    look.slope_B[rows] = torch.where(jumps_B, 0.0, look.slope_B[rows])
    look.growing_B[rows] = unsettled_B & ~jumps_B
    return look


def _keep_worse(one: LineResult, rows: Tensor, other: LineResult) -> LineResult:
    """Return what is worse of ``one``, and of ``other`` for some rows."""
    takes_R = other.jump_B.isnan() | (other.jump_B > one.jump_B[rows])
    return LineResult(
        jump_B=one.jump_B.index_put((rows,), torch.where(takes_R, other.jump_B, one.jump_B[rows])),
        slope_B=one.slope_B.index_put((rows,), torch.maximum(one.slope_B[rows], other.slope_B)),
        growing_B=one.growing_B.index_put((rows,), one.growing_B[rows] | other.growing_B),
        width_B=one.width_B.index_put((rows,), torch.where(takes_R, other.width_B, one.width_B[rows])),
    )


def _largest_change(one_K: Tensor, other_K: Tensor) -> Tensor:
    return (one_K - other_K).abs().amax(-1)


def _unforeseen_change(w_TBK: Tensor) -> Tensor:
    """Return by how much each interval's change differs from what its neighbors foretell, (T - 1, B)."""
    step_TBK = w_TBK.diff(dim=0)
    near_TBK, far_TBK = step_TBK[1:-3] + step_TBK[3:-1], step_TBK[:-4] + step_TBK[4:]
    apart_TB = (step_TBK[2:-2] - (4 * near_TBK - far_TBK) / 6).abs().amax(-1)  # exact for polynomials of degree four
    edge_TB = torch.zeros_like(apart_TB[:2])
    return torch.cat([edge_TB, apart_TB, edge_TB])


def _divide_by_distance(change_B: Tensor, width: Tensor, line: Line) -> Tensor:
    distance_B = width * line.speed_B
    return torch.where(distance_B > 0, change_B / distance_B, torch.zeros_like(change_B))
