"""The epsilon-constraint sweep: the least objective at each target, then targets of its own into the widest gaps.

Every solution of an epsilon problem is weakly Pareto optimal, concave parts included (Miettinen 1999, theorem 3.2.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from ._epsilon_targets import EpsilonTargets
from ._pareto_frontier import FrontierGap
from ._point_solver import SolvedPoint
from ._sweep_planner import BudgetSpent, list_largest_gaps


@dataclass
class EpsilonSweep(EpsilonTargets):
    """Targets, the best point for each, and what fills the gaps between them.

    Attributes:
        smallest_gap: Gaps up to this distance are left, 1 is a range.
        everywhere: Whether all wider gaps are filled, not only those that multipliers do not explain.
        gaps: What does not close.
    """

    smallest_gap: float = field(kw_only=True)
    everywhere: bool = field(kw_only=True)
    gaps: list[FrontierGap] = field(default_factory=list)
    _walls: set[int] = field(default_factory=set)  # points beyond which ``constrained`` gets no lower nearby
    _slack_until: dict[int, float] = field(default_factory=dict)  # the loosest target to which a point was the best
    _looked: set[int] = field(default_factory=set)

    def run(self) -> None:
        """Sweep until nothing contradicts, gaps are looked into, or the budget is spent."""
        left, right = self.ends.left, self.ends.right
        for t in self.targets:
            if abs(t - left.c) <= self.slack_c or self.is_below(t):
                self.best[t] = left
            elif t >= right.c - self.slack_c:
                self.best[t] = right
        for t in list(self.best):
            self.on_point(t, self.best[t])
        try:
            self._tighten()
            self._mend()
            self.solver.limit_steps(self.settings.short_steps)
            self._look_elsewhere()
            self._mend_ends()
            self._fill()
        except BudgetSpent:
            pass
        self._share()

    def _fill(self) -> None:
        """Set targets into the widest gap until each is small, closed or narrowed down."""
        if self.ends.is_point:
            return
        ended: set[tuple[int, int]] = set()
        while (pair := self._widest_gap(ended)) is not None:
            left, right = pair
            if self._is_steep(left, right) and id(right) not in self._walls:
                self._step_up(left, right)
                continue
            if right.c - left.c > self.smallest_gap * self.width_c and self._look_between(left, right):
                continue
            low, high = self._slack_until_target(left), right.c
            if high - low > self.settings.narrow * self.width_c:
                self._halve((low + high) / 2, left, right)
                continue
            ended.add((id(left), id(right)))
            wide = high - left.c > 2 * self.settings.narrow * self.width_c
            if wide or id(right) in self._walls or self._is_unexplained(left, right):
                self._record(left, right)

    def _widest_gap(self, ended: set[tuple[int, int]]) -> tuple[SolvedPoint, SolvedPoint] | None:
        """Return the widest gap that is worth a solve, None where there is none."""
        points = self._distinct_points()
        # a point that a neighbor to its left beats is no part of the frontier
        front = [p for i, p in enumerate(points) if all(p.f < q.f - self.slack_f for q in points[:i])]
        values = [(p.c, p.f) for p in front]
        gaps = list_largest_gaps(values, len(front), self.smallest_gap, (self.width_c, self.width_f)) if front else []
        pairs = ((front[i], front[j]) for i, j in gaps)
        return next((p for p in pairs if (id(p[0]), id(p[1])) not in ended and self._may_hide_points(*p)), None)

    def _may_hide_points(self, left: SolvedPoint, right: SolvedPoint) -> bool:
        past = self._slack_until_target(left) > left.c + self.settings.narrow * self.width_c
        return self.everywhere or past or id(right) in self._walls or self._is_unexplained(left, right)

    def _halve(self, middle: float, left: SolvedPoint, right: SolvedPoint) -> None:
        """Solve in the middle of a gap; keep what is below the left end's objective."""
        is_asked = middle in self.best
        self._solve_between(middle, left, right)
        point = self.best[middle] if is_asked else self.best.pop(middle)
        if point is left or not point.f < left.f - self.slack_f:
            self._slack_until[id(left)] = middle
            return
        self.best[middle] = point
        if not is_asked:
            self.filled.add(middle)
        self._kept.append(point)
        self.on_point(middle, point)

    def _slack_until_target(self, left: SolvedPoint) -> float:
        """Return the loosest target at which nothing better than a point is known."""
        as_good = [t for t, point in self.best.items() if point.f >= left.f - self.slack_f]
        return min(max([left.c, self._slack_until.get(id(left), left.c), *as_good]), self.ends.right.c)

    def _look_between(self, left: SolvedPoint, right: SolvedPoint) -> bool:
        """Begin from places on the line between two points, once; whether one led below the left one's objective."""
        if id(left) in self._looked:
            return False
        self._looked.add(id(left))
        self._kept += [left, right]
        better = False
        for part in self.settings.between:
            target = left.c + part * (right.c - left.c)
            is_asked = target in self.best
            x = left.x + part * (right.x - left.x)
            self._solve(target, replace(right, x=x, target=math.nan))
            point = self.best[target] if is_asked else self.best.pop(target)
            if self._meets(point, target) and point.f < left.f - self.slack_f:
                self.best[target] = point
                if not is_asked:
                    self.filled.add(target)
                self.on_point(target, point)
                better = True
        if better:
            self._mend()
        return better

    def _is_steep(self, left: SolvedPoint, right: SolvedPoint) -> bool:
        """Whether the objective falls faster than ``constrained`` grows: then levels of the objective tell more."""
        return (left.f - right.f) / self.width_f > self.settings.steep * (right.c - left.c) / self.width_c

    def _step_up(self, left: SolvedPoint, right: SolvedPoint) -> None:
        """Find the least ``constrained`` with an objective half way up; where that is no less, it is a wall."""
        before = self.solver.evaluations
        point = self.solver.solve(right, target=(left.f + right.f) / 2, swapped=True)
        new = point.converged and left.c + self.slack_c < point.c < right.c - self.slack_c and point.f < left.f
        if not new or point.f < (left.f + right.f) / 2 - self.slack_f:
            self._walls.add(id(point if new else right))
        self._kept += [point, right]
        if not new:
            self.evaluations[right.c] = self.evaluations.get(right.c, 0) + self.solver.evaluations - before
            return
        if point.c in self.best and not self._is_better(point, self.best[point.c], point.c):
            return
        if point.c not in self.best:
            self.filled.add(point.c)
        self.best[point.c] = point
        self.evaluations[point.c] = self.solver.evaluations - before
        self.on_point(point.c, point)

    def _solve_between(self, target: float, left: SolvedPoint, right: SolvedPoint) -> None:
        if left.multiplier > self.settings.flat * self.width_f / self.width_c:
            self._solve(target, left)
            explained = id(right) in self._walls or not self._is_unexplained(self.best[target], right)
            if self.best[target].converged and explained:
                return
        self._solve(target, right)
        if self._is_better(left, self.best[target], target):
            self.best[target] = left

    def _record(self, left: SolvedPoint, right: SolvedPoint) -> None:
        if right.c - left.c > 2 * self.settings.narrow * self.width_c:
            cause = "the objective does not fall in between: the best answer there is that of the left end"
        else:
            cause = "the objective jumps there: nothing in between was found"
        message = (
            f"From {left.c:.6g} to {right.c:.6g} of constrained (objective {left.f:.6g} to {right.f:.6g}) the frontier "
            f"has no points; {cause}."
        )
        self.gaps.append(FrontierGap((left.c, left.f), (right.c, right.f), message))
