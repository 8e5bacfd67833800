"""The mu sweep: minimise ``objective + mu constrained``, and say where no weight leads.

Between two answers the next weight is minus the slope of the chord between them: there both are worth the same, and a
point below the chord, if there is one, is worth less (Aneja and Nair 1979).  One solve that finds nothing lower thus
settles the matter: what lies between is concave, straight or missing, and no other weight leads there either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from ._anchors import Ends
from ._frontier import Gap
from ._task import Answer, BudgetSpent, Task

_EQUAL = 1e-6  # in units of the range


@dataclass
class Weighted:
    """found: (weight, answer, evaluations) of each solve.  unreached: (weight, left, right, evaluations)."""

    task: Task
    ends: Ends
    wanted: int | list[float]
    smallest: float
    on_answer: Callable[[float, Answer], None]
    found: list[tuple[float, Answer, int]] = field(default_factory=list)
    unreached: list[tuple[float, Answer, Answer, int]] = field(default_factory=list)
    not_solved: list[float] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.width_c, self.width_f = self.ends.width_2

    def run(self) -> None:
        """Answer the weights asked for, or as many as there are to be points, and look into every jump."""
        self._keep(0.0, self.ends.right, 0)
        if not isinstance(self.wanted, int) or not self.ends.is_point:
            self._keep(math.inf, self.ends.left, 0)
        most = self.wanted if isinstance(self.wanted, int) else 0
        try:
            if not isinstance(self.wanted, int):
                self._given(self.wanted)
            self._divide(most)
        except BudgetSpent:
            done = [weight for weight, _, _ in self.found]
            self.not_solved = [] if isinstance(self.wanted, int) else [w for w in self.wanted if w not in done]
            left = [pair for pair in self._open(set()) if self._apart(*pair) > self.smallest]
            self.gaps += [
                Gap(*_ends_of(*pair), "The budget was spent before this gap was looked into.") for pair in left
            ]

    def _keep(self, weight: float, answer: Answer, spent: int) -> None:
        self.found.append((weight, answer, spent))
        self.on_answer(weight, answer)

    def _given(self, weights: list[float]) -> None:
        near = self.ends.right
        for weight in weights:
            if weight == 0:
                continue
            near, spent = self._best(weight, [near])
            self._keep(weight, near, spent)

    def _best(self, weight: float, starts: list[Answer]) -> tuple[Answer, int]:
        """Return the lowest of the answers that several starts lead to, those themselves included."""
        before, best = self.task.evaluations, None
        for start in starts:
            new = self.task.solve(start, weight=weight)
            usable = new.sound or new.violation <= self.task.feasible
            if usable and (best is None or self._worth(new, weight) < self._worth(best, weight)):
                best = new
        best = starts[0] if best is None else best
        return replace(best, price=weight), self.task.evaluations - before

    def _worth(self, answer: Answer, weight: float) -> float:
        return answer.f + weight * answer.c

    def _divide(self, most: int) -> None:
        """Set weights into the widest jump until there are ``most`` points; jumps of asked weights are looked into."""
        ended: set[tuple[int, int]] = set()
        while True:
            pairs = [pair for pair in self._open(ended) if self._apart(*pair) > self.smallest]
            if not pairs or (most and len(self._points()) >= most):
                break
            left, right = max(pairs, key=lambda pair: (round(self._apart(*pair), 12), -pair[0].c))
            weight = (left.f - right.f) / (right.c - left.c)
            new, spent = self._best(weight, [left, right])
            gain = min(self._worth(left, weight), self._worth(right, weight)) - self._worth(new, weight)
            inside = left.c < new.c < right.c and min(self._apart(left, new), self._apart(new, right)) > _EQUAL
            if gain > _EQUAL * self.width_f and inside:
                self._keep(weight, new, spent)
                continue
            ended.add((id(left), id(right)))
            self._out_of_reach(weight, left, right, spent)

    def _out_of_reach(self, weight: float, left: Answer, right: Answer, spent: int) -> None:
        self.unreached.append((weight, left, right, spent))
        message = (
            f"From {left.c:.6g} to {right.c:.6g} of constrained (objective {left.f:.6g} to {right.f:.6g}) is out of "
            f"reach of any weight: at mu = {weight:.6g} both ends are worth the same and nothing below was found, so "
            "the frontier is concave, straight or missing there; use method='epsilon'."
        )
        self.gaps.append(Gap(*_ends_of(left, right), message))

    def _points(self) -> list[Answer]:
        points: list[Answer] = []
        for answer in sorted((answer for _, answer, _ in self.found), key=lambda a: (a.c, a.f)):
            if not points or self._apart(points[-1], answer) > _EQUAL:
                points.append(answer)
        return points

    def _open(self, ended: set[tuple[int, int]]) -> list[tuple[Answer, Answer]]:
        points = self._points()
        return [(p, q) for p, q in pairwise(points) if (id(p), id(q)) not in ended and p.f > q.f and q.c > p.c]

    def _apart(self, left: Answer, right: Answer) -> float:
        return float(np.hypot((right.c - left.c) / self.width_c, (left.f - right.f) / self.width_f))


def _ends_of(left: Answer, right: Answer) -> tuple[tuple[float, float], tuple[float, float]]:
    return (left.c, left.f), (right.c, right.f)
