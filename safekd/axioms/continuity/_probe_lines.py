"""Lines along which weights might jump: where teachers change places, rows do, and everywhere else.

Rules jump where something ties or passes a threshold.  Two teachers that change places tie half-way; rows that change
places pass every threshold that tells them apart; shrinking and stretching a signal passes those that all rows lie on
one side of; the rest is random, in several sizes.  Axes: ... positions, K teachers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...weights import Signals
from ._jump_search import Line
from ._movable_signals import MovableSignals

Weights = Callable[[Signals], Tensor]


@dataclass(frozen=True)
class ProbeLineSettings:
    """How far the lines of a search reach; ``tests/safekd/axioms/test_continuity.py`` notices.

    Attributes:
        sizes: Lengths of random steps, in standard deviations of the signal: near, ordinary and far thresholds.
        stretch: By how much signals are stretched, to pass thresholds that all rows lie below.
    """

    sizes: tuple[float, ...] = (0.05, 0.5, 3.0)
    stretch: float = 8.0


_LINES = ProbeLineSettings()
_UNIT_INTERVAL = ("performance", "safety", "token_safety")


def changes_weights(name: str, movable: MovableSignals, weights: Weights, generator: torch.Generator) -> bool:
    """Tell whether weights change from one end of a line to the other, along any line that moves this signal."""
    start_BK: Tensor | None = None
    for line in _draw_group([name], movable, weights, 1, generator):
        here_B = torch.zeros_like(line.speed_B)
        try:
            start_BK = line.evaluate(here_B).nan_to_num() if start_BK is None else start_BK  # where all lines begin
            if not torch.equal(start_BK, line.evaluate(here_B + 1).nan_to_num()):
                return True
        except InvalidInput:
            return True
    return False


def draw_lines(
    movable: MovableSignals, vary: Sequence[str], weights: Weights, tries: int, generator: torch.Generator
) -> Iterator[Iterator[SignalLine]]:
    """Yield lines in groups: each signal named in ``vary`` alone and, if there are several, all of them together.

    Args:
        movable: What can be moved.
        vary: What is moved.
        weights: From signals to weights.
        tries: Half of how many pairs of teachers, twice how many random steps of each size, a group.
        generator: Of the random choices.
    """
    for group in [[name] for name in vary] + ([list(vary)] if len(vary) > 1 else []):
        yield _draw_group(group, movable, weights, tries, generator)


def _draw_group(
    group: Sequence[str], movable: MovableSignals, weights: Weights, tries: int, generator: torch.Generator
) -> Iterator[SignalLine]:
    for kind, end in _draw_ends(movable, tries, generator):
        ends = {name: end(movable.sources[name]) for name in group}
        line = _draw_signal_line(f"{' and '.join(group)}, {kind}", movable, ends, weights)
        if bool((line.speed_B > 0).any()):
            yield line


_End = Callable[[Tensor], Tensor]


def _draw_ends(movable: MovableSignals, tries: int, generator: torch.Generator) -> Iterator[tuple[str, _End]]:
    lead, K = movable.lead, movable.teachers
    pairs = list(combinations(range(K), 2))
    chosen = torch.randperm(len(pairs), generator=generator)[: 2 * tries].tolist()
    for j, k in (pairs[i] for i in sorted(chosen)):
        yield f"teachers {j} and {k} changing places", lambda x, j=j, k=k: _swap_teachers(x, lead, K, j, k)  # type: ignore[misc]
    if K > 1:
        yield "all teachers mirrored at their mean", lambda x: _mirror_teachers(x, lead, K)
    rows = lead.numel()
    for _ in range(2 if rows > 1 else 0):
        order = torch.randperm(rows, generator=generator)
        yield "positions changing places", lambda x, order=order: _permute_positions(x, lead, order)  # type: ignore[misc]
    yield "shrinking to nothing", torch.zeros_like
    yield f"stretched {_LINES.stretch:g} times", lambda x: _LINES.stretch * x
    for size in _LINES.sizes:
        for _ in range((tries + 1) // 2):
            yield f"random steps of {size:g}", lambda x, size=size: x + size * _draw_random_step(x, generator)  # type: ignore[misc]


@dataclass(frozen=True)
class SignalLine(Line):
    """A line through signals, which can be cut down to some rows, and laid beside others.

    Attributes:
        movable: The signals at its start.
        directions: How far each source moves from place 0 to 1, shaped as the source.
        ranges: Where each source must stay: among distributions, at 0 or above, or anywhere.
        weights: From signals to weights.
    """

    movable: MovableSignals
    directions: dict[str, Tensor]
    ranges: dict[str, str]
    weights: Weights

    def select(self, rows_R: Tensor) -> SignalLine:
        """Return the same line of some rows alone.

        Args:
            rows_R: Their numbers, (R,).
        """
        axes = len(self.movable.lead)
        some = {
            source: direction.reshape(len(self.speed_B), *direction.shape[axes:])[rows_R]
            for source, direction in self.directions.items()
        }
        return _make_line(self.name, self.movable.gather_rows(rows_R), some, self.ranges, self.weights)


def stack_lines(lines: Sequence[SignalLine]) -> SignalLine:
    """Return one line whose rows are those of all lines, one line after the other.

    Args:
        lines: Of one start, moving the same sources.
    """
    first, B = lines[0], len(lines[0].speed_B)
    axes = len(first.movable.lead)
    directions = {
        source: torch.cat([line.directions[source].reshape(B, *start.shape[axes:]) for line in lines])
        for source, start in first.movable.sources.items()
        if source in first.directions
    }
    rows = torch.arange(B, device=first.speed_B.device).repeat(len(lines))
    return _make_line("", first.movable.gather_rows(rows), directions, first.ranges, first.weights)


def _make_line(
    name: str, movable: MovableSignals, directions: dict[str, Tensor], ranges: dict[str, str], weights: Weights
) -> SignalLine:
    lead, K = movable.lead, movable.teachers
    B = lead.numel()

    def evaluate(place_B: Tensor) -> Tensor:
        changed = {
            source: _move_signal(movable.sources[source], direction, place_B, lead, ranges[source])
            for source, direction in directions.items()
        }
        return weights(movable.replace_sources(changed)).detach().reshape(-1, K)

    squares = [direction.double().reshape(B, -1).square().sum(-1) for direction in directions.values()]
    speed_B = torch.stack(squares).sum(0).sqrt()
    coarsest = max((direction.dtype for direction in directions.values()), key=lambda dtype: torch.finfo(dtype).eps)
    return SignalLine(name, evaluate, speed_B.to(coarsest), movable, directions, ranges, weights)


def _draw_signal_line(name: str, movable: MovableSignals, ends: dict[str, Tensor], weights: Weights) -> SignalLine:
    starts = {source: movable.sources[source] for source in ends}
    # a probability of zero stays one: minus infinity has no direction
    directions = {source: (end - starts[source]).nan_to_num(0, 0, 0) for source, end in ends.items()}
    ranges = {source: _find_range(source, start, movable.lead) for source, start in starts.items()}
    return _make_line(name, movable, directions, ranges, weights)


def _find_range(name: str, start: Tensor, lead: torch.Size) -> str:
    if _are_distributions(start, lead):
        return "distributions"
    positive = bool((start >= 0).all())  # a loss, a distance
    return ("unit" if positive else "below one") if name in _UNIT_INTERVAL else "positive" if positive else "any"


def _move_signal(start: Tensor, direction: Tensor, place_B: Tensor, lead: torch.Size, within: str) -> Tensor:
    place = place_B.to(start).reshape(lead + (1,) * (start.ndim - len(lead)))
    point = start + place * direction
    if within == "distributions":
        return point - point.logsumexp(-1, keepdim=True)  # of few classes, in half the time of log_softmax
    if within in ("positive", "unit"):
        point = point.clamp_min(0)
    return point.clamp_max(1) if within in ("unit", "below one") else point


def _are_distributions(x: Tensor, lead: torch.Size) -> bool:
    return x.ndim > len(lead) and bool((x.logsumexp(-1).abs() < 1e-3).all())


def _teacher_axis(x: Tensor, lead: torch.Size, K: int) -> int | None:
    """Return the axis of teachers: the last but one where classes follow, else the last; None if there is none."""
    axis = x.ndim - 2 if x.ndim - len(lead) >= 2 else x.ndim - 1
    return axis if axis >= len(lead) and x.shape[axis] == K else None


def _swap_teachers(x: Tensor, lead: torch.Size, K: int, j: int, k: int) -> Tensor:
    axis = _teacher_axis(x, lead, K)
    if axis is None:
        return x
    order = torch.arange(K, device=x.device)
    order[j], order[k] = k, j
    return x.index_select(axis, order)


def _mirror_teachers(x: Tensor, lead: torch.Size, K: int) -> Tensor:
    axis = _teacher_axis(x, lead, K)
    return x if axis is None else 2 * x.mean(axis, keepdim=True) - x


def _permute_positions(x: Tensor, lead: torch.Size, order: Tensor) -> Tensor:
    return x.reshape(lead.numel(), -1)[order.to(x.device)].reshape(x.shape)


def _draw_random_step(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random step whose size is the spread of what is there."""
    finite = x[x.isfinite()]
    spread = float(finite.std()) if finite.numel() > 1 else 0.0
    if not spread > 0:
        spread = max(float(finite.abs().mean()), 1.0) if finite.numel() else 1.0
    return spread * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
