"""The epsilon-constraint sweep: the least objective at each target, every solve begun from a neighbour's answer.

Targets are tightened first; then, on the way back, those are solved again whose neighbours contradict them: an answer
that a tighter target beats, or a fall of the objective that no multiplier explains.  Every solution of an epsilon
problem is weakly Pareto optimal, concave parts included (Miettinen 1999, theorem 3.2.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from ._anchors import Ends
from ._frontier import Gap
from ._task import Answer, BudgetSpent, Task

_EQUAL = 1e-6  # in units of the range: values that do not differ
_EXPLAINED = 0.25  # the part of a multiplier by which a secant may lie beyond those at its ends
_FLAT = 1e-3  # and a slope in units of the ranges that counts as none
_AHEAD = 3.0  # a straight line through two answers is followed so many times their distance
_ROUNDS = 3
_BETWEEN = (0.5, 0.25, 0.75)  # where, on the line between two answers, other pieces are looked for
_NARROW = 1e-3  # in units of the range of targets: where a gap's end is known well enough
_LOOKS = (0.5, 0.2, 0.8)  # where other starts are tried, as parts of the way through the targets
_OTHER = 1e-4


@dataclass
class Sweep:
    """best: the answer to each target so far.  spent: evaluations a target.  filled: targets nobody asked for."""

    task: Task
    ends: Ends
    targets: list[float]
    starts: int
    smallest: float
    everywhere: bool
    on_answer: Callable[[float, Answer], None]
    best: dict[float, Answer] = field(default_factory=dict)
    spent: dict[float, int] = field(default_factory=dict)
    filled: set[float] = field(default_factory=set)
    gaps: list[Gap] = field(default_factory=list)
    tried: set[tuple[float, int]] = field(default_factory=set)
    looked: set[tuple[int, int]] = field(default_factory=set)
    kept: list[Answer] = field(default_factory=list)  # so that no id is used twice

    def __post_init__(self) -> None:
        self.width_c, self.width_f = self.ends.width_2
        self.slack_c, self.slack_f = _EQUAL * self.width_c, _EQUAL * self.width_f

    def run(self) -> None:
        """Sweep until nothing contradicts, gaps are looked into, or the budget is spent."""
        left, right = self.ends.left, self.ends.right
        for t in self.targets:
            if abs(t - left.c) <= self.slack_c or self.below(t):
                self.best[t] = left
            elif t >= right.c - self.slack_c:
                self.best[t] = right
        for t in list(self.best):
            self.on_answer(t, self.best[t])
        try:
            self._tighten()
            self._mend()
            self._look_elsewhere()
            self._fill()
        except BudgetSpent:
            pass
        self._share()

    def below(self, target: float) -> bool:
        """Whether nothing reaches a target."""
        return target < self.ends.left.c - self.slack_c

    def _feasible(self, answer: Answer, target: float) -> bool:
        return (answer.sound or answer.violation <= self.task.feasible) and answer.c <= target + self.slack_c

    def _better(self, new: Answer, old: Answer | None, target: float) -> bool:
        """Whether an answer is to replace another."""
        if old is None:
            return True
        feasible = [self._feasible(a, target) for a in (new, old)]
        if feasible[0] != feasible[1]:
            return feasible[0]
        if not feasible[0]:
            return new.missed(target) < old.missed(target)
        if abs(new.f - old.f) > self.slack_f:
            return new.f < old.f
        return new.sound and not old.sound

    def _solve(self, target: float, start: Answer, guess: object = None) -> Answer:
        """Solve for a target from an answer to another one; keep what is better."""
        before = self.task.evaluations
        self.tried.add((target, id(start)))
        self.kept.append(start)
        try:
            found = self.task.solve(start, target=target, guess=guess)  # type: ignore[arg-type]
        finally:
            self.spent[target] = self.spent.get(target, 0) + self.task.evaluations - before
        found = replace(found, origin=start.c if math.isinf(start.asked) else start.asked)
        if self._better(found, self.best.get(target), target):
            self.best[target] = found
        return found

    def _tighten(self) -> None:
        """Answer all targets, from the loosest to the tightest."""
        loose, before = self.ends.right, None
        for t in sorted((t for t in self.targets if t not in self.best), reverse=True):
            if loose.c <= t and self._feasible(loose, t):
                self.best[t] = loose  # its row is slack here too
            else:
                self._solve(t, loose, self._ahead(before, loose, t))
                self._insist(t)
                before, loose = loose, self.best[t]
            self.on_answer(t, self.best[t])

    def _ahead(self, before: Answer | None, last: Answer, target: float) -> object:
        """Return the point on the line through two answers that is to meet the target."""
        if before is None or not (before.sound and last.sound) or before.price == 0 or last.price == 0:
            return None
        step = last.c - before.c
        part = (target - last.c) / step if step else math.inf
        return last.x + part * (last.x - before.x) if 0 < part <= _AHEAD else None

    def _insist(self, target: float) -> None:
        """Try other starts where a neighbour's answer led to none."""
        for start in (self.ends.left, replace(self.ends.right, x=self.task.x0)):
            if self.best[target].sound and self._feasible(self.best[target], target):
                return
            self._solve(target, start)
        if self._feasible(self.ends.left, target) and self._better(self.ends.left, self.best[target], target):
            self.best[target] = self.ends.left

    def _mend(self) -> None:
        """Pass over the targets, back and forth, until no neighbours contradict each other in a new way."""
        for _ in range(_ROUNDS):
            before = dict(self.best)
            self._pass(loosen=True)
            self._pass(loosen=False)
            if all(before[t] is self.best[t] for t in before):
                return

    def _pass(self, *, loosen: bool) -> None:
        inner = [t for t in sorted(self.best) if self.ends.left.c < t < self.ends.right.c]
        near = self.ends.left if loosen else self.ends.right
        for t in inner if loosen else inner[::-1]:
            now = self.best[t]
            pair = (near, now) if loosen else (now, near)
            if near is not now and (t, id(near)) not in self.tried and self.suspicious(*pair):
                self._solve(t, near)
            if self._feasible(near, t) and self._better(near, self.best[t], t):
                self.best[t] = near
            near = self.best[t] if self._feasible(self.best[t], t) else near

    def _share(self) -> None:
        """Let one answer stand for all targets at which it is as good as any."""
        loose = self.ends.right
        for t in sorted(self.best, reverse=True):
            now = self.best[t]
            if loose.c <= t and self._feasible(loose, t) and loose.sound and loose.f <= now.f + self.slack_f:
                self.best[t] = loose
            loose = self.best[t]

    def suspicious(self, tight: Answer, loose: Answer) -> bool:
        """Whether the fall of the objective between two answers is not what their multipliers say it is."""
        step, fall = loose.c - tight.c, tight.f - loose.f
        if fall < -self.slack_f:
            return True
        if step <= self.slack_c:
            return fall > _FLAT * self.width_f
        prices = sorted((tight.price, loose.price))
        if any(math.isnan(price) for price in prices):
            return False
        secant, none = fall / step, _FLAT * self.width_f / self.width_c
        low = prices[0] * (1 - _EXPLAINED) if math.isfinite(prices[0]) else prices[0]
        return not low - none <= secant <= prices[1] * (1 + _EXPLAINED) + none

    def _look_elsewhere(self) -> None:
        """Begin from seeded starts at a few targets; one more for each that leads to something else."""
        inner = [t for t in sorted(self.best) if self.ends.left.c + self.slack_c < t < self.ends.right.c - self.slack_c]
        if self.starts < 2 or not inner:
            return
        number = self.starts
        for part in _LOOKS:
            t = inner[min(int(part * len(inner)), len(inner) - 1)]
            seen = self.ends.several
            for _ in range(1, self.starts):
                number += 1
                old = self.best[t]
                new = self._solve(t, replace(self.ends.right, x=self.task.start(number), asked=math.nan))
                if new.sound and abs(new.f - old.f) > _OTHER * self.width_f:
                    seen = True
                if not seen:
                    break
            if not seen:
                break
            self.ends.several = True
            self._mend()

    def branches(self) -> list[Answer]:
        """Return the distinct feasible answers, from left to right."""
        found: list[Answer] = []
        for t in sorted(self.best):
            answer = self.best[t]
            if self._feasible(answer, t) and not any(answer is other for other in found):
                found.append(answer)
        return sorted(found, key=lambda a: (a.c, a.f))

    def _fill(self) -> None:
        """Set targets into the widest gap until each is small, closed or narrowed down."""
        if self.ends.is_point:
            return
        ended: set[tuple[int, int]] = set()
        reach = {}
        for t, answer in self.best.items():
            reach[id(answer)] = max(reach.get(id(answer), -math.inf), min(t, self.ends.right.c))
        while True:
            open_pairs = [
                pair for pair in self._neighbours()
                if (id(pair[0]), id(pair[1])) not in ended and self._worth(*pair, reach)
            ]  # fmt: skip
            if not open_pairs:
                return
            left, right = max(open_pairs, key=lambda pair: (round(self._apart(*pair), 12), -pair[0].c))
            if self._look_between(left, right):
                for t, answer in self.best.items():
                    reach[id(answer)] = max(reach.get(id(answer), -math.inf), min(t, self.ends.right.c))
                continue
            low, high = max(left.c, reach.get(id(left), -math.inf)), right.c
            if high - low <= _NARROW * self.width_c:
                ended.add((id(left), id(right)))
                if high - left.c > 2 * _NARROW * self.width_c or self.suspicious(left, right):
                    self._record(left, right)
                continue
            middle = (low + high) / 2
            self._between(middle, left, right)
            found = self.best.pop(middle)
            if self._is_left(found, left):
                reach[id(left)] = middle
                continue
            self.best[middle] = found
            self.filled.add(middle)
            self.kept.append(found)
            self.on_answer(middle, found)

    def _look_between(self, left: Answer, right: Answer) -> bool:
        """Begin from points on the line between two answers, once; whether one led below the left one's objective."""
        pair = (id(left), id(right))
        if pair in self.looked:
            return False
        self.looked.add(pair)
        self.kept += [left, right]
        better = False
        for part in _BETWEEN:
            target = left.c + part * (right.c - left.c)
            x = left.x + part * (right.x - left.x)
            self._solve(target, replace(right, x=x, asked=math.nan))
            found = self.best.pop(target)
            if self._feasible(found, target) and found.f < left.f - self.slack_f:
                self.best[target] = found
                self.filled.add(target)
                self.on_answer(target, found)
                better = True
        if better:
            self._mend()
        return better

    def _between(self, target: float, left: Answer, right: Answer) -> None:
        self._solve(target, right)
        if left.price > _FLAT * self.width_f / self.width_c or not self.best[target].sound:
            self._solve(target, left)
        if self._better(left, self.best[target], target):
            self.best[target] = left

    def _is_left(self, found: Answer, left: Answer) -> bool:
        return found is left or not found.f < left.f - self.slack_f

    def _neighbours(self) -> list[tuple[Answer, Answer]]:
        points = self.branches()
        # a point that a neighbour to its left beats is no part of the frontier
        front = [p for i, p in enumerate(points) if all(p.f < q.f - self.slack_f for q in points[:i])]
        return list(zip(front[:-1], front[1:], strict=True))

    def _apart(self, left: Answer, right: Answer) -> float:
        return float(np.hypot((right.c - left.c) / self.width_c, (left.f - right.f) / self.width_f))

    def _worth(self, left: Answer, right: Answer, reach: dict[int, float]) -> bool:
        if self._apart(left, right) <= self.smallest:
            return False
        past = reach.get(id(left), -math.inf) > left.c + _NARROW * self.width_c
        return self.everywhere or past or self.suspicious(left, right)

    def _record(self, left: Answer, right: Answer) -> None:
        if right.c - left.c > 2 * _NARROW * self.width_c:
            cause = "the objective does not fall in between: the best answer there is that of the left end"
        else:
            cause = "the objective jumps there: nothing in between was found"
        message = (
            f"From {left.c:.6g} to {right.c:.6g} of constrained (objective {left.f:.6g} to {right.f:.6g}) the frontier "
            f"has no points; {cause}."
        )
        self.gaps.append(Gap((left.c, left.f), (right.c, right.f), message))
