"""The sweep over weights: ``min loss + mu (threshold - safety)`` for weights mu, each a point of the frontier.

Theorem VIII.5 holds on convex frontiers only: elsewhere weights jump, since the minimizer of a weighted sum lies on the
convex hull.  So every jump is looked into at the weight that balances its ends (``find_balancing_weight``): it leads to
a point between them, or shows that no weight does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from solvers.pareto import find_balancing_weight, lies_inside

from ..store import RunSpec, TrainedPoint
from ._slice_sweep import RunRequests, SliceSweep, TargetRow


@dataclass(frozen=True)
class WeightSettings:
    """Which weights are tried.  The weight tests of tests/safekd/frontier/test_slice_sweep.py would notice.

    Attributes:
        first: The first weight, nats a unit of safety: small beside losses of a nat, and soon outgrown.
        factor: By which weights grow: 16 of them span nine powers of ten.
        most_growth: How many weights at most are tried outwards.
        saturated: Weights in a row that raise safety no more, after which it is taken to stay.
        no_gain: What counts as no more safety, of what is left to the highest target.
        end_margin: Of a jump, in safety: a run that lands so near one of its ends is that end.
        close: Of the range that given targets span: as near as a weight has to come to one of them.
    """

    first: float = 0.25
    factor: float = 4.0
    most_growth: int = 16
    saturated: int = 3
    no_gain: float = 1e-4
    end_margin: float = 0.05
    close: float = 0.05


SETTINGS = WeightSettings()


@dataclass(frozen=True)
class _WeightedPoint:
    weight: float
    point: TrainedPoint

    @property
    def safety(self) -> float:
        return self.point.safety


Jump = tuple[float, float, str]  # safety at both ends, and why no weight leads between them


class WeightSweep(SliceSweep):
    """One slice of a sweep over weights: weights grow until the highest target is met, then jumps are bisected."""

    def _trace(self, targets: list[float]) -> RunRequests:
        anchor = self.rows[0]
        assert anchor.point is not None
        self.rows[0] = replace(anchor, target=anchor.point.safety, weight=0.0)
        self.points = [_WeightedPoint(0.0, anchor.point)]
        targets = [target for target in targets if target > anchor.point.safety]
        if targets:
            yield from self._raise_weights(targets[-1])
            yield from self._divide_jumps(targets)

    def report_early(self, spec: RunSpec, point: TrainedPoint) -> None:
        """Weights come one by one."""

    def _raise_weights(self, highest: float) -> RunRequests:
        """Raise the weight until the highest target is met, or safety rises no more."""
        weight, flat = SETTINGS.first, 0
        for _ in range(SETTINGS.most_growth):
            top = self.points[-1]
            if top.safety >= highest or flat == SETTINGS.saturated or self.budget.left == 0:
                return
            (point,) = yield [self._specify_weight(weight, top.point)]
            self._count(point)
            if point.finite and point.status != "diverged":
                self._add_point(weight, point, top)
                flat = flat + 1 if point.safety - top.safety < SETTINGS.no_gain * (highest - top.safety) else 0
            else:
                self._add(self._build_weight_row(weight, point, top))
            weight *= SETTINGS.factor

    def _divide_jumps(self, targets: list[float]) -> RunRequests:
        """Look into the widest jump that holds a target, until none is left or the budget is spent."""
        span = targets[-1] - self.points[0].safety
        near = span / (2 * len(targets)) if self.plan.targets is None else SETTINGS.close * span
        jumps: list[Jump] = []
        while (jump := self._find_widest(targets, near, jumps)) is not None and self.budget.left:
            low, high = jump
            weight = find_balancing_weight((-high.safety, high.point.loss), (-low.safety, low.point.loss))
            if not low.weight < weight < high.weight:  # rounding
                weight = (low.weight + high.weight) / 2
            for start in (low, high):  # a run may stay where it began; from both ends it would have to
                if self.budget.left == 0:
                    break
                (point,) = yield [self._specify_weight(weight, start.point)]
                self._count(point)
                if point.finite and lies_inside(point.safety, low.safety, high.safety, SETTINGS.end_margin):
                    self._add_point(weight, point, low)
                    break
            else:
                why = (
                    f"out of reach of weights: below {weight:.6g} they lead to safety {low.safety:.6g}, above it to "
                    f"{high.safety:.6g}, and at it to one of the two; method='epsilon' looks between them"
                )
                jumps.append((low.safety, high.safety, why))
        self._add_unreached(targets, near, jumps)

    def _find_widest(
        self, targets: list[float], near: float, jumps: list[Jump]
    ) -> tuple[_WeightedPoint, _WeightedPoint] | None:
        pairs = []
        for low, high in zip(self.points, self.points[1:], strict=False):
            inside = [target for target in targets if low.safety + near < target < high.safety - near]
            shut = any(left <= low.safety and high.safety <= right for left, right, _ in jumps)
            if inside and not shut:
                pairs.append((low, high))
        return max(pairs, key=lambda pair: pair[1].safety - pair[0].safety, default=None)

    def _specify_weight(self, weight: float, start: TrainedPoint) -> RunSpec:
        return RunSpec(
            f"{self.name}weight-{self.budget.spent:03d}-{weight!r}",  # one weight may be tried from both ends of a jump
            self.seed,
            0.0,
            self.held,
            self.tolerance,
            weight=weight,
            start=start.spec.name,
            trace_every=self._choose_interval(),
        )

    def _add_point(self, weight: float, point: TrainedPoint, start: _WeightedPoint) -> None:
        self._add(self._build_weight_row(weight, point, start))
        self.points = sorted([*self.points, _WeightedPoint(weight, point)], key=lambda weighted: weighted.weight)

    def _build_weight_row(self, weight: float, point: TrainedPoint, start: _WeightedPoint) -> TargetRow:
        return TargetRow(point.safety, point, point.status, start.safety, point.note, point.steps, point.wall_s, weight)

    def _add_unreached(self, targets: list[float], near: float, jumps: list[Jump]) -> None:
        """Add a row for every target that no weight came near, saying why."""
        top = self.points[-1]
        reached = [point.safety for point in self.points]
        for target in targets:
            if min(abs(target - safety) for safety in reached) <= near:
                continue
            why = next((why for left, right, why in jumps if left < target < right), None)
            if why is not None:
                self._add(TargetRow(target, None, "unreachable", note=why))
            elif target > top.safety:
                note = f"the largest weight, {top.weight:.6g}, leads to safety {top.safety:.6g}"
                self._add(TargetRow(target, None, "unreachable", note=note))
            else:
                self._add(self._build_unsolved(target))
