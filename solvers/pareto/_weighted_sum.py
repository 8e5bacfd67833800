"""The mu sweep: minimize ``objective + mu constrained``, and say where no weight leads.

Between two points the next weight is the one at which both are worth the same (``find_balancing_weight``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from ._frontier_ends import FrontierEnds
from ._pareto_frontier import FrontierGap
from ._point_solver import PointSolver, SolvedPoint
from ._sweep_planner import BudgetSpent, find_balancing_weight, lies_inside, list_largest_gaps


@dataclass(frozen=True)
class WeightedSumSettings:
    """What a weight must gain.  The mu tests of tests/solvers/pareto/test_pareto.py would notice.

    Attributes:
        equal: In units of the range: values that do not differ; solves agree to 1e-8.
    """

    equal: float = 1e-6


@dataclass
class WeightedSumSweep:
    """Weights, and the points that they lead to.

    Attributes:
        solver: Who solves.
        ends: Both ends of the frontier.
        weights: The weights, or how many points there are to be.
        smallest_gap: Jumps up to this distance are left, 1 is a range.
        on_point: Told of each weight and its point.
        settings: What a weight must gain.
        solved: (weight, point, evaluations) of each solve.
        unreached: (weight, left, right, evaluations) of each jump that no weight leads into.
        gaps: These, and what was not looked into.
    """

    solver: PointSolver
    ends: FrontierEnds
    weights: int | list[float]
    smallest_gap: float
    on_point: Callable[[float, SolvedPoint], None]
    settings: WeightedSumSettings = WeightedSumSettings()
    solved: list[tuple[float, SolvedPoint, int]] = field(default_factory=list)
    unreached: list[tuple[float, SolvedPoint, SolvedPoint, int]] = field(default_factory=list)
    gaps: list[FrontierGap] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.width_c, self.width_f = self.ends.width_2

    def run(self) -> None:
        """Answer the weights asked for, or as many as there are to be points, and look into every jump."""
        self._keep(0.0, self.ends.right, 0)
        if not isinstance(self.weights, int) or not self.ends.is_point:
            self._keep(math.inf, self.ends.left, 0)
        try:
            if not isinstance(self.weights, int):
                self._solve_given(self.weights)
            self._divide(self.weights if isinstance(self.weights, int) else 0)
        except BudgetSpent:
            pairs = sorted(self._open_jumps(set()), key=lambda pair: (pair[0].c, pair[0].f))
            self.gaps += [
                FrontierGap(*_end_points(*pair), "The budget was spent before this gap was looked into.")
                for pair in pairs
            ]

    def _keep(self, weight: float, point: SolvedPoint, evaluations: int) -> None:
        self.solved.append((weight, point, evaluations))
        self.on_point(weight, point)

    def _solve_given(self, weights: list[float]) -> None:
        near = self.ends.right
        for weight in weights:
            if weight == 0:
                continue
            near, evaluations = self._solve_best(weight, [near])
            self._keep(weight, near, evaluations)

    def _solve_best(self, weight: float, starts: list[SolvedPoint]) -> tuple[SolvedPoint, int]:
        """Return the lowest of the points that several starts lead to, and its evaluations."""
        before, best = self.solver.evaluations, None
        for start in starts:
            new = self.solver.solve(start, weight=weight)
            usable = new.converged or new.violation <= self.solver.feasible
            if usable and (best is None or _weigh(new, weight) < _weigh(best, weight)):
                best = new
        best = starts[0] if best is None else best
        return replace(best, multiplier=weight), self.solver.evaluations - before

    def _divide(self, wanted: int) -> None:
        """Set weights into the widest jump until there are ``wanted`` points (0: until none is left)."""
        ended: set[tuple[int, int]] = set()
        while (pairs := self._open_jumps(ended)) and not (wanted and len(self._points()) >= wanted):
            left, right = pairs[0]
            weight = find_balancing_weight(*_end_points(left, right))
            new, evaluations = self._solve_best(weight, [left, right])
            gain = min(_weigh(left, weight), _weigh(right, weight)) - _weigh(new, weight)
            apart = min(self._distance(left, new), self._distance(new, right)) > self.settings.equal
            if gain > self.settings.equal * self.width_f and lies_inside(new.c, left.c, right.c, 0.0) and apart:
                self._keep(weight, new, evaluations)
                continue
            ended.add((id(left), id(right)))
            self._record_unreached(weight, left, right, evaluations)

    def _record_unreached(self, weight: float, left: SolvedPoint, right: SolvedPoint, evaluations: int) -> None:
        self.unreached.append((weight, left, right, evaluations))
        message = (
            f"From {left.c:.6g} to {right.c:.6g} of constrained (objective {left.f:.6g} to {right.f:.6g}) is out of "
            f"reach of any weight: at mu = {weight:.6g} both ends are worth the same and nothing below was found, so "
            "the frontier is concave, straight or missing there; use method='epsilon'."
        )
        self.gaps.append(FrontierGap(*_end_points(left, right), message))

    def _points(self) -> list[SolvedPoint]:
        points: list[SolvedPoint] = []
        for point in sorted((point for _, point, _ in self.solved), key=lambda a: (a.c, a.f)):
            if not points or self._distance(points[-1], point) > self.settings.equal:
                points.append(point)
        return points

    def _open_jumps(self, ended: set[tuple[int, int]]) -> list[tuple[SolvedPoint, SolvedPoint]]:
        """Return the jumps that no solve has ended, the widest first."""
        points = self._points()
        values = [(p.c, p.f) for p in points]
        gaps = list_largest_gaps(values, len(points), self.smallest_gap, (self.width_c, self.width_f)) if points else []
        pairs = [(points[i], points[j]) for i, j in gaps]
        return [(p, q) for p, q in pairs if (id(p), id(q)) not in ended and p.f > q.f and q.c > p.c]

    def _distance(self, left: SolvedPoint, right: SolvedPoint) -> float:
        return float(np.hypot((right.c - left.c) / self.width_c, (left.f - right.f) / self.width_f))


def _weigh(point: SolvedPoint, weight: float) -> float:
    return point.f + weight * point.c


def _end_points(left: SolvedPoint, right: SolvedPoint) -> tuple[tuple[float, float], tuple[float, float]]:
    return (left.c, left.f), (right.c, right.f)
