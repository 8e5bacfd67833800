"""Targets of an epsilon-constraint sweep: the least objective at each, every solve begun from a neighbor's answer.

Targets are tightened first; then, on the way back, those are solved again whose neighbors contradict them: an answer
that a tighter target beats, or a fall of the objective that no multiplier explains.  Then other starts, and the ends
once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from ._frontier_ends import FrontierEnds, mend_ends
from ._point_solver import PointSolver, SolvedPoint
from ._sweep_planner import BudgetSpent, Standing, explain_fall, is_better, measure_extrapolation


@dataclass(frozen=True)
class EpsilonSettings:
    """How an epsilon sweep looks for what it missed.  tests/solvers/pareto/test_pareto.py would notice (known fronts,
    pieces, steps, local minima), and benchmarks/frontier.py the cost.

    Attributes:
        equal: In units of the range: values that do not differ; solves agree to 1e-8.
        explained: The part of a multiplier by which a secant may lie beyond those at its ends: curvature of a grid.
        flat: A trade-off in units of the ranges that counts as none.
        extrapolation: A line through two answers is followed so many times their distance: beyond, it helps no more.
        passes: Back and forth, at most; one settles nearly all, each starts from what the last one changed.
        between: Where, on the line between two answers, other pieces of the frontier are looked for.
        narrow: In units of the range of targets: where the end of a gap is known well enough.
        short_steps: Outer steps of solves that only look whether there is something better.
        look_at: Where other starts are tried, as parts of the way through the targets.
        other_minimum: Objectives farther apart than this, in units of the range, are of two minima.
        steep: Beyond this ratio of the objective's fall to the step, levels of the objective tell more than targets.
        close: In units of the range: near enough for a difference to be a derivative.
    """

    equal: float = 1e-6
    explained: float = 0.25
    flat: float = 1e-3
    extrapolation: float = 3.0
    passes: int = 3
    between: tuple[float, ...] = (0.5, 0.25, 0.75)
    narrow: float = 1e-3
    short_steps: int = 15
    look_at: tuple[float, ...] = (0.5, 0.2, 0.8)
    other_minimum: float = 1e-4
    steep: float = 2.0
    close: float = 1e-5


@dataclass
class EpsilonTargets:
    """Targets, and the best point for each.

    Attributes:
        solver: Who solves.
        ends: Both ends of the frontier; mended where a point beats one.
        targets: Levels asked for, ascending, each once.
        starts: How many starts other minima are looked for from.
        on_point: Told of each target and its point when it is first answered.
        settings: How it looks for what it missed.
        best: The point of each target so far.
        evaluations: That were spent on each target.
        filled: Targets that nobody asked for.
    """

    solver: PointSolver
    ends: FrontierEnds
    targets: list[float]
    starts: int
    on_point: Callable[[float, SolvedPoint], None]
    settings: EpsilonSettings = EpsilonSettings()
    best: dict[float, SolvedPoint] = field(default_factory=dict)
    evaluations: dict[float, int] = field(default_factory=dict)
    filled: set[float] = field(default_factory=set)
    _tried: set[tuple[float, int]] = field(default_factory=set)
    _kept: list[SolvedPoint] = field(default_factory=list)  # so that no id is used twice

    def __post_init__(self) -> None:
        self._measure_ranges()

    def _measure_ranges(self) -> None:
        self.width_c, self.width_f = self.ends.width_2
        self.slack_c, self.slack_f = self.settings.equal * self.width_c, self.settings.equal * self.width_f

    def is_below(self, target: float) -> bool:
        """Whether nothing reaches a target."""
        return target < self.ends.left.c - self.slack_c

    def _meets(self, point: SolvedPoint, target: float) -> bool:
        return (point.converged or point.violation <= self.solver.feasible) and point.c <= target + self.slack_c

    def _is_better(self, new: SolvedPoint, old: SolvedPoint | None, target: float) -> bool:
        """Whether a point is to replace another as the answer to a target."""
        if old is None:
            return True
        return is_better(self._judge_standing(new, target), self._judge_standing(old, target), self.slack_f)

    def _judge_standing(self, point: SolvedPoint, target: float) -> Standing:
        return Standing(point.f, point.violation_with(target), self._meets(point, target), point.converged)

    def _solve(self, target: float, start: SolvedPoint, guess: Tensor | None = None) -> SolvedPoint:
        """Solve for a target from the answer to another one; keep what is better."""
        before = self.solver.evaluations
        self._tried.add((target, id(start)))
        self._kept.append(start)
        try:
            point = self.solver.solve(start, target=target, guess=guess)
        finally:
            self.evaluations[target] = self.evaluations.get(target, 0) + self.solver.evaluations - before
        point = replace(point, origin=start.c if math.isinf(start.target) else start.target)
        if self._is_better(point, self.best.get(target), target):
            self.best[target] = point
        return point

    def _tighten(self) -> None:
        """Answer all targets, from the loosest to the tightest."""
        loose, before = self.ends.right, None
        for t in sorted((t for t in self.targets if t not in self.best), reverse=True):
            if loose.c <= t and self._meets(loose, t):
                self.best[t] = loose  # its row is slack here too
            else:
                self._solve(t, loose, self._extrapolate(before, loose, t))
                self._insist(t)
                before, loose = loose, self.best[t]
            self.on_point(t, self.best[t])

    def _extrapolate(self, before: SolvedPoint | None, last: SolvedPoint, target: float) -> Tensor | None:
        """Return the place on the line through two points that is to meet the target."""
        if (
            before is None
            or not (before.converged and last.converged)
            or before.multiplier == 0
            or last.multiplier == 0
        ):
            return None
        part = measure_extrapolation(before.c, last.c, target)
        return last.x + part * (last.x - before.x) if 0 < part <= self.settings.extrapolation else None

    def _insist(self, target: float) -> None:
        """Try other starts where a neighbor's answer led to none."""
        for start in (self.ends.left, replace(self.ends.right, x=self.solver.x0)):
            if self.best[target].converged and self._meets(self.best[target], target):
                return
            self._solve(target, start)
        if self._meets(self.ends.left, target) and self._is_better(self.ends.left, self.best[target], target):
            self.best[target] = self.ends.left

    def _mend(self) -> None:
        """Pass over the targets, back and forth, until no neighbors contradict each other in a new way."""
        for _ in range(self.settings.passes):
            before = dict(self.best)
            self._pass(loosen=True)
            self._pass(loosen=False)
            if all(before[t] is self.best[t] for t in before):
                return

    def _mend_ends(self) -> None:
        """Where other minima were seen, or an end is beaten, begin the ends anew from the points next to them."""
        for _ in range(self.settings.passes):
            points = [a for a in self._distinct_points() if a is not self.ends.left and a is not self.ends.right]
            if not points or not (self.ends.several or points[-1].f < self.ends.right.f - self.slack_f):
                return
            old = self.ends.left, self.ends.right
            if not mend_ends(self.solver, self.ends, points[0], min(points, key=lambda a: a.f)):
                return
            self._measure_ranges()
            for end in (self.ends.left, self.ends.right):
                if all(abs(t - end.c) > self.slack_c for t in self.best):
                    self.best[end.c] = end
                    self.filled.add(end.c)
            for t, point in self.best.items():
                now = {id(old[0]): self.ends.left, id(old[1]): self.ends.right}.get(id(point), point)
                for end in (self.ends.left, self.ends.right):
                    now = end if self._is_better(end, now, t) else now
                self.best[t] = now
            self._mend()

    def _pass(self, *, loosen: bool) -> None:
        inner = [t for t in sorted(self.best) if self.ends.left.c < t < self.ends.right.c]
        near = self.ends.left if loosen else self.ends.right
        for t in inner if loosen else inner[::-1]:
            now = self.best[t]
            pair = (near, now) if loosen else (now, near)
            at_hole = not loosen and now.c < t - self.slack_c and near.c > t  # its end may lie before t
            if near is not now and (t, id(near)) not in self._tried and (at_hole or self._is_unexplained(*pair)):
                self._solve(t, near)
            if self._meets(near, t) and self._is_better(near, self.best[t], t):
                self.best[t] = near
            near = self.best[t] if self._meets(self.best[t], t) else near

    def _share(self) -> None:
        """Let one point stand for all targets at which it is as good as any."""
        loose = self.ends.right
        for t in sorted(self.best, reverse=True):
            now = self.best[t]
            if loose.c <= t and self._meets(loose, t) and loose.converged and loose.f <= now.f + self.slack_f:
                self.best[t] = loose
            loose = self.best[t]

    def _is_unexplained(self, tight: SolvedPoint, loose: SolvedPoint) -> bool:
        """Whether the fall of the objective between two points is not what their multipliers say it is."""
        step, fall = loose.c - tight.c, tight.f - loose.f
        if fall < -self.slack_f:
            return True
        if step <= self.slack_c:
            return fall > self.settings.flat * self.width_f
        multipliers = (tight.multiplier, loose.multiplier)
        if not (tight.converged and loose.converged) or any(math.isnan(multiplier) for multiplier in multipliers):
            return False
        none = self.settings.flat * self.width_f / self.width_c
        low, high = explain_fall(step, multipliers, relative=self.settings.explained, absolute=none * step)
        return not low <= fall <= high

    def _look_elsewhere(self) -> None:
        """Begin from seeded starts at a few targets; more of them once one has led to something else."""
        inner = [t for t in sorted(self.best) if self.ends.left.c + self.slack_c < t < self.ends.right.c - self.slack_c]
        if self.starts < 2 or not inner:
            return
        more = self.ends.settings.more_starts
        number = more * self.starts
        for part in self.settings.look_at:
            t = inner[min(int(part * len(inner)), len(inner) - 1)]
            several, tried, vain = self.ends.several, 0, 0
            while tried + 1 < self.starts * (more if several else 1) and vain < 2 * self.starts:
                tried, number, vain, old = tried + 1, number + 1, vain + 1, self.best[t]
                x = self.solver.seed_start(number, old.x)
                new = self._solve(t, replace(self.ends.right, x=x, target=math.nan))
                several = several or (new.converged and abs(new.f - old.f) > self.settings.other_minimum * self.width_f)
                if not several:
                    return
                if new is self.best[t] and new.f < old.f - self.slack_f:
                    vain = 0
            self.ends.several = True
            self._mend()

    def confirms(self, target: float) -> bool:
        """Whether a target very near to one agrees with its multiplier, where those farther off did not."""
        point = self.best[target]
        close = self.settings.close * self.width_c
        step = close if target - self.ends.left.c < 2 * close else -close
        try:
            near = self.solver.solve(point, target=target + step)
        except BudgetSpent:
            return False
        secant = (point.f - near.f) / step
        return near.converged and abs(secant - point.multiplier) <= self.settings.explained * point.multiplier / 2

    def _distinct_points(self) -> list[SolvedPoint]:
        """Return the distinct feasible points, from left to right."""
        points: list[SolvedPoint] = []
        for t in sorted(self.best):
            point = self.best[t]
            if self._meets(point, t) and not any(point is other for other in points):
                points.append(point)
        return sorted(points, key=lambda a: (a.c, a.f))
