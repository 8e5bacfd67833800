"""The sweep over weights: ``min loss + mu (threshold - safety)`` for weights mu, each a point of the frontier.

Theorem VIII.5 holds on convex frontiers only: elsewhere weights jump, since the minimiser of a weighted sum lies on the
convex hull.  So every jump is looked into: the weight at which both its ends cost the same (the slope of the chord,
Cohon 1978; Aneja and Nair 1979) finds a point between them, or shows that no weight does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ._cells import Cell, Request
from ._chain import Chain, Entry, Steps

_FIRST, _FACTOR, _MOST_GROWTH = 0.25, 4.0, 16
_SATURATED = 3  # weights in a row that raise safety no more
_NOTHING = 1e-4  # of what is left to the highest target
_AT_AN_END = 0.05  # of a jump, in safety
_CLOSE = 0.05  # of the range that asked targets span: as near as a weight has to come to one of a list


@dataclass(frozen=True)
class _Point:
    weight: float
    cell: Cell

    @property
    def safety(self) -> float:
        return self.cell.safety


class WeightChain(Chain):
    """One slice of a sweep over weights: weights grow until the highest target is met, then jumps are bisected."""

    def _traced(self, grid: list[float]) -> Steps:
        anchor = self.entries[0]
        assert anchor.cell is not None
        self.entries[0] = replace(anchor, asked=anchor.cell.safety, weight=0.0)
        self.points = [_Point(0.0, anchor.cell)]
        grid = [target for target in grid if target > anchor.cell.safety]
        if grid:
            yield from self._outwards(grid[-1])
            yield from self._inwards(grid)

    def landed(self, request: Request, cell: Cell) -> None:
        """Weights come one by one."""

    def _outwards(self, highest: float) -> Steps:
        """Raise the weight until the highest target is met, or safety rises no more."""
        weight, flat = _FIRST, 0
        for _ in range(_MOST_GROWTH):
            top = self.points[-1]
            if top.safety >= highest or flat == _SATURATED or self.runs >= self.most:
                return
            (cell,) = yield [self._weighed(weight, top.cell)]
            self._take(weight, cell, top)
            if cell.finite and cell.status != "diverged":
                flat = flat + 1 if cell.safety - top.safety < _NOTHING * (highest - top.safety) else 0
            weight *= _FACTOR

    def _inwards(self, grid: list[float]) -> Steps:
        """Look into the widest jump that holds a target, until none is left or the budget is spent."""
        span = grid[-1] - self.points[0].safety
        near = span / (2 * len(grid)) if self.plan.targets is None else _CLOSE * span
        jumps: list[tuple[float, float, str]] = []
        while (jump := self._widest(grid, near, jumps)) is not None and self.runs < self.most:
            low, high = jump
            weight = self._chord(low, high)
            found = None
            for start in (low, high):  # a run may stay where it began; from both ends it would have to
                if self.runs >= self.most:
                    break
                (cell,) = yield [self._weighed(weight, start.cell)]
                self._count(cell)
                room = _AT_AN_END * (high.safety - low.safety)
                if cell.finite and low.safety + room < cell.safety < high.safety - room:
                    found = cell
                    break
            else:
                why = (
                    f"out of reach of weights: below {weight:.6g} they lead to safety {low.safety:.6g}, above it to "
                    f"{high.safety:.6g}, and at it to one of the two; method='epsilon' looks between them"
                )
                jumps.append((low.safety, high.safety, why))
            if found is not None:
                self._add_point(weight, found, low)
        self._leave(grid, near, jumps)

    def _widest(
        self, grid: list[float], near: float, jumps: list[tuple[float, float, str]]
    ) -> tuple[_Point, _Point] | None:
        found = []
        for low, high in zip(self.points, self.points[1:], strict=False):
            inside = [t for t in grid if low.safety + near < t < high.safety - near]
            shut = any(a <= low.safety and high.safety <= b for a, b, _ in jumps)
            if inside and not shut:
                found.append((low, high))
        return max(found, key=lambda pair: pair[1].safety - pair[0].safety, default=None)

    def _chord(self, low: _Point, high: _Point) -> float:
        """Return the weight at which both ends cost the same; halfway where rounding puts that outside."""
        weight = (high.cell.loss - low.cell.loss) / (high.safety - low.safety)
        return weight if low.weight < weight < high.weight else (low.weight + high.weight) / 2

    def _weighed(self, weight: float, start: Cell) -> Request:
        return Request(
            f"{self.name}weight-{self.runs:03d}-{weight!r}",  # one weight may be tried from both ends of a jump
            self.seed,
            0.0,
            self.held,
            self.tolerance,
            weight=weight,
            start=start.request.name,
            trace_every=self._interval(),
        )

    def _take(self, weight: float, cell: Cell, start: _Point) -> None:
        self._count(cell)
        if cell.finite and cell.status != "diverged":
            self._add_point(weight, cell, start)
        else:
            self._add(self._row(weight, cell, start))

    def _add_point(self, weight: float, cell: Cell, start: _Point) -> None:
        self._add(self._row(weight, cell, start))
        self.points = sorted([*self.points, _Point(weight, cell)], key=lambda point: point.weight)

    def _row(self, weight: float, cell: Cell, start: _Point) -> Entry:
        return Entry(cell.safety, cell, cell.status, start.safety, cell.note, cell.steps, cell.wall_s, weight)

    def _leave(self, grid: list[float], near: float, jumps: list[tuple[float, float, str]]) -> None:
        """Add a row for every target that no weight came near, saying why."""
        top = self.points[-1]
        reached = [point.safety for point in self.points]
        for target in grid:
            if min(abs(target - safety) for safety in reached) <= near:
                continue
            why = next((why for a, b, why in jumps if a < target < b), None)
            if why is not None:
                self._add(Entry(target, None, "unreachable", note=why))
            elif target > top.safety:
                note = f"the largest weight, {top.weight:.6g}, leads to safety {top.safety:.6g}"
                self._add(Entry(target, None, "unreachable", note=note))
            else:
                self._add(self._unsolved(target))
