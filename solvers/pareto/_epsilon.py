"""The epsilon-constraint sweep: the least objective at each target, every solve begun from a neighbour's answer.

Targets are tightened first; then, on the way back, those are solved again whose neighbours contradict them: an answer
that a tighter target beats, or a fall of the objective that no multiplier explains.  Every solution of an epsilon
problem is weakly Pareto optimal, concave parts included (Miettinen 1999, theorem 3.2.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from ._anchors import MORE, Ends, mend_ends
from ._frontier import Gap
from ._task import Answer, BudgetSpent, Task

_EQUAL = 1e-6  # in units of the range: values that do not differ
_EXPLAINED = 0.25  # the part of a multiplier by which a secant may lie beyond those at its ends
_FLAT = 1e-3  # and a slope in units of the ranges that counts as none
_AHEAD = 3.0  # a straight line through two answers is followed so many times their distance
_ROUNDS = 3
_BETWEEN = (0.5, 0.25, 0.75)  # where, on the line between two answers, other pieces are looked for
_NARROW = 1e-3  # in units of the range of targets: where a gap's end is known well enough
_SHORT = 15  # outer steps of solves that only look whether there is something better
_LOOKS = (0.5, 0.2, 0.8)  # where other starts are tried, as parts of the way through the targets
_OTHER = 1e-4
_STEEP = 2.0
_CLOSE = 1e-5  # in units of the range: near enough for a difference to be a slope


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
    walls: set[int] = field(default_factory=set)  # answers beyond which ``constrained`` gets no lower nearby
    slack_at: dict[int, float] = field(default_factory=dict)  # looser targets to which an answer was the best
    looked: set[int] = field(default_factory=set)
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
            self.task.steps = min(self.task.steps, _SHORT)
            self._look_elsewhere()
            self._mend_ends()
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

    def _mend_ends(self) -> None:
        """Where other minima were seen, or an end is beaten, begin the ends anew from the answers next to them."""
        for _ in range(_ROUNDS):
            points = [a for a in self.branches() if a is not self.ends.left and a is not self.ends.right]
            if not points or not (self.ends.several or points[-1].f < self.ends.right.f - self.slack_f):
                return
            old = self.ends.left, self.ends.right
            if not mend_ends(self.task, self.ends, points[0], min(points, key=lambda a: a.f)):
                return
            self.width_c, self.width_f = self.ends.width_2
            self.slack_c, self.slack_f = _EQUAL * self.width_c, _EQUAL * self.width_f
            for end in (self.ends.left, self.ends.right):
                if all(abs(t - end.c) > self.slack_c for t in self.best):
                    self.best[end.c] = end
                    self.filled.add(end.c)
            for t, answer in self.best.items():
                now = {id(old[0]): self.ends.left, id(old[1]): self.ends.right}.get(id(answer), answer)
                for end in (self.ends.left, self.ends.right):
                    now = end if self._better(end, now, t) else now
                self.best[t] = now
            self._mend()

    def _pass(self, *, loosen: bool) -> None:
        inner = [t for t in sorted(self.best) if self.ends.left.c < t < self.ends.right.c]
        near = self.ends.left if loosen else self.ends.right
        for t in inner if loosen else inner[::-1]:
            now = self.best[t]
            pair = (near, now) if loosen else (now, near)
            at_hole = not loosen and now.c < t - self.slack_c and near.c > t  # its end may lie before t
            if near is not now and (t, id(near)) not in self.tried and (at_hole or self.suspicious(*pair)):
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
        if not (tight.sound and loose.sound) or any(math.isnan(price) for price in prices):
            return False
        secant, none = fall / step, _FLAT * self.width_f / self.width_c
        low = prices[0] * (1 - _EXPLAINED) if math.isfinite(prices[0]) else prices[0]
        return not low - none <= secant <= prices[1] * (1 + _EXPLAINED) + none

    def _look_elsewhere(self) -> None:
        """Begin from seeded starts at a few targets; more of them once one has led to something else."""
        inner = [t for t in sorted(self.best) if self.ends.left.c + self.slack_c < t < self.ends.right.c - self.slack_c]
        if self.starts < 2 or not inner:
            return
        number = MORE * self.starts
        for part in _LOOKS:
            t = inner[min(int(part * len(inner)), len(inner) - 1)]
            seen, tried, vain = self.ends.several, 0, 0
            while tried + 1 < self.starts * (MORE if seen else 1) and vain < 2 * self.starts:
                tried, number, vain, old = tried + 1, number + 1, vain + 1, self.best[t]
                x = self.task.start(number, old.x)
                new = self._solve(t, replace(self.ends.right, x=x, asked=math.nan))
                seen = seen or (new.sound and abs(new.f - old.f) > _OTHER * self.width_f)
                if not seen:
                    return
                if new is self.best[t] and new.f < old.f - self.slack_f:
                    vain = 0
            self.ends.several = True
            self._mend()

    def confirms(self, target: float) -> bool:
        """Whether a target very near to one agrees with its multiplier, where those farther off did not."""
        answer = self.best[target]
        step = _CLOSE * self.width_c * (1 if target - self.ends.left.c < 2 * _CLOSE * self.width_c else -1)
        try:
            near = self.task.solve(answer, target=target + step)
        except BudgetSpent:
            return False
        secant = (answer.f - near.f) / step
        return near.sound and abs(secant - answer.price) <= _EXPLAINED * answer.price / 2

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
        while True:
            open_pairs = [
                pair for pair in self._neighbours()
                if (id(pair[0]), id(pair[1])) not in ended and self._worth(*pair)
            ]  # fmt: skip
            if not open_pairs:
                return
            left, right = max(open_pairs, key=lambda pair: (round(self._apart(*pair), 12), -pair[0].c))
            if self._is_steep(left, right) and id(right) not in self.walls:
                self._step_up(left, right)
                continue
            if right.c - left.c > self.smallest * self.width_c and self._look_between(left, right):
                continue
            low, high = self._reach(left), right.c
            if high - low <= _NARROW * self.width_c:
                ended.add((id(left), id(right)))
                if (
                    high - left.c > 2 * _NARROW * self.width_c
                    or id(right) in self.walls
                    or self.suspicious(left, right)
                ):
                    self._record(left, right)
                continue
            middle = (low + high) / 2
            asked = middle in self.best
            self._between(middle, left, right)
            found = self.best[middle] if asked else self.best.pop(middle)
            if self._is_left(found, left):
                self.slack_at[id(left)] = middle
                continue
            self.best[middle] = found
            if not asked:
                self.filled.add(middle)
            self.kept.append(found)
            self.on_answer(middle, found)

    def _reach(self, left: Answer) -> float:
        """Return the loosest target at which nothing better than an answer is known."""
        as_good = [t for t, answer in self.best.items() if answer.f >= left.f - self.slack_f]
        return min(max([left.c, self.slack_at.get(id(left), left.c), *as_good]), self.ends.right.c)

    def _look_between(self, left: Answer, right: Answer) -> bool:
        """Begin from points on the line between two answers, once; whether one led below the left one's objective."""
        if id(left) in self.looked:
            return False
        self.looked.add(id(left))
        self.kept += [left, right]
        better = False
        for part in _BETWEEN:
            target = left.c + part * (right.c - left.c)
            asked = target in self.best
            x = left.x + part * (right.x - left.x)
            self._solve(target, replace(right, x=x, asked=math.nan))
            found = self.best[target] if asked else self.best.pop(target)
            if self._feasible(found, target) and found.f < left.f - self.slack_f:
                self.best[target] = found
                if not asked:
                    self.filled.add(target)
                self.on_answer(target, found)
                better = True
        if better:
            self._mend()
        return better

    def _is_steep(self, left: Answer, right: Answer) -> bool:
        """Whether the objective falls faster than ``constrained`` grows: then levels of the objective tell more."""
        return (left.f - right.f) / self.width_f > _STEEP * (right.c - left.c) / self.width_c

    def _step_up(self, left: Answer, right: Answer) -> None:
        """Find the least ``constrained`` with an objective half way up; where that is no less, it is a wall."""
        before = self.task.evaluations
        found = self.task.solve(right, target=(left.f + right.f) / 2, swapped=True)
        new = found.sound and left.c + self.slack_c < found.c < right.c - self.slack_c and found.f < left.f
        if not new or found.f < (left.f + right.f) / 2 - self.slack_f:
            self.walls.add(id(found if new else right))
        self.kept += [found, right]
        if not new:
            self.spent[right.c] = self.spent.get(right.c, 0) + self.task.evaluations - before
            return
        if found.c in self.best and not self._better(found, self.best[found.c], found.c):
            return
        if found.c not in self.best:
            self.filled.add(found.c)
        self.best[found.c] = found
        self.spent[found.c] = self.task.evaluations - before
        self.on_answer(found.c, found)

    def _between(self, target: float, left: Answer, right: Answer) -> None:
        if left.price > _FLAT * self.width_f / self.width_c:
            self._solve(target, left)
            if self.best[target].sound and (id(right) in self.walls or not self.suspicious(self.best[target], right)):
                return
        self._solve(target, right)
        if self._better(left, self.best[target], target):
            self.best[target] = left

    def _is_left(self, found: Answer, left: Answer) -> bool:
        return found is left or not found.f < left.f - self.slack_f

    def _neighbours(self) -> list[tuple[Answer, Answer]]:
        points = self.branches()
        # a point that a neighbour to its left beats is no part of the frontier
        front = [p for i, p in enumerate(points) if all(p.f < q.f - self.slack_f for q in points[:i])]
        return list(pairwise(front))

    def _apart(self, left: Answer, right: Answer) -> float:
        return float(np.hypot((right.c - left.c) / self.width_c, (left.f - right.f) / self.width_f))

    def _worth(self, left: Answer, right: Answer) -> bool:
        if self._apart(left, right) <= self.smallest:
            return False
        past = self._reach(left) > left.c + _NARROW * self.width_c
        return self.everywhere or past or id(right) in self.walls or self.suspicious(left, right)

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
