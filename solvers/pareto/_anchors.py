"""The two ends of a frontier: the least objective, and the least constrained value, each with the other as tie-break.

Lexicographic: a second solve adds the other function with a weight of a millionth, in units of the ranges; unlike a row
``f <= least f`` it has a multiplier.  It counts only if it finds more than such a weight buys along the frontier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linprog

from ..kkt import gradients
from ._task import Answer, Task

MORE = 4  # so many times the starts once another minimum was seen
_BEYOND, _STRIDE = 12, 0.04  # steps beyond an end, and their length in units of the range
_PLATEAU = 1e-2  # a fall below this part of what is left to the best is none
_WEIGHT = 1e-6
_BOUGHT = 1e-4  # in units of the range: what such a weight may buy along a frontier that flattens out
_SAME = 1e-6  # in units of the range: values that do not differ
_OTHER = 1e-4  # and values that do: another minimum
_VERTICAL = 1e5  # a slope in units of the ranges beyond which there is none
_LOOSE = (1e-8, 1e-6, 1e-5)  # what stationarity may lack, relative to the gradients; the first that can be met
_TOUCHES = 1e-7


@dataclass
class Ends:
    """left: least constrained value; right: least objective.  several: whether other local minima were seen."""

    left: Answer
    right: Answer
    several: bool = False

    @property
    def width_2(self) -> tuple[float, float]:
        """The ranges of constrained and objective; where one is nothing, 1e-9 of its size, to divide by."""
        c = max(self.right.c - self.left.c, 1e-9 * (1 + abs(self.left.c)))
        f = max(self.left.f - self.right.f, 1e-9 * (1 + abs(self.right.f)))
        return c, f

    @property
    def is_point(self) -> bool:
        """Whether one point is best in both."""
        c, f = self.right.c - self.left.c, self.left.f - self.right.f
        return not (c > _SAME * (1 + abs(self.left.c)) * 1e-3 and f > _SAME * (1 + abs(self.right.f)) * 1e-3)


def find_ends(task: Task, starts: int) -> Ends:
    """Return both ends; from some starts, and from more once they lead to something else."""
    right, several_right = _least(task, task.x0, starts, swapped=False)
    left, several_left = _least(task, right.x, starts, swapped=True)
    ends = Ends(left, right, several_right or several_left)
    if ends.several:
        _look_beyond(task, ends)
    _settle_both(task, ends)
    return ends


def _look_beyond(task: Task, ends: Ends) -> None:
    """Climb out of the valley at the right end, the way the frontier would go on, and see what lies behind."""
    width_c, width_f = ends.width_2
    at, level = ends.right, ends.right.c
    for _ in range(_BEYOND):
        level += _STRIDE * width_c
        if at.c < level:  # else a step has slid into another valley already
            at = task.solve(at, floor=level)
        if not at.sound or at.c < level - _SAME * width_c:
            return
        if at.c > level + _SAME * width_c and at.f < ends.right.f - _OTHER * width_f:
            new = task.solve(at)
            ends.right = new if new.sound and new.f <= at.f else ends.right


def mend_ends(task: Task, ends: Ends, leftmost: Answer, lowest: Answer) -> bool:
    """Begin the ends anew from answers that may lead to better ones; whether one did."""
    before, width_c, width_f = (ends.left, ends.right), *ends.width_2
    if lowest.f < ends.right.f - _SAME * width_f:
        new = task.solve(lowest, swapped=False)
        ends.right = new if new.sound and new.f <= lowest.f else lowest
    new = task.solve(leftmost, swapped=True)
    if new.sound and new.c <= ends.left.c + _SAME * width_c:
        tied = abs(new.c - ends.left.c) <= _SAME * width_c
        probe = Ends(new, ends.right)
        probe.left = _settle(task, probe, swapped=True)
        if not tied or probe.left.f < ends.left.f - _SAME * width_f:
            ends.left = probe.left
    if ends.left is before[0] and ends.right is before[1]:
        return False
    _settle_both(task, ends)
    return True


def _settle_both(task: Task, ends: Ends) -> None:
    for _ in range(2):  # the first weight is wrong where a tie has left the range far too wide
        before = ends.width_2
        ends.left = _settle(task, ends, swapped=True)
        if ends.width_2[1] > 0.1 * before[1]:
            break
    ends.right = _settle(task, ends, swapped=False)
    if not ends.is_point:
        prices = [end_price(task, ends, left=left) for left in (True, False)]
        ends.left, ends.right = replace(ends.left, price=prices[0]), replace(ends.right, price=prices[1])


def _least(task: Task, x: torch.Tensor, starts: int, *, swapped: bool) -> tuple[Answer, bool]:
    best, several, number = task.solve(x, swapped=swapped), False, 0
    while number + 1 < (MORE * starts if several else starts):
        number += 1
        start = task.start(number, best.x)
        new = task.solve(start, swapped=swapped)
        now, old = ((a.c if swapped else a.f) for a in (new, best))
        if task.at(start.to(task.dtype))[1 if swapped else 0] - now < _PLATEAU * (now - old):
            continue  # no valley: where a function levels off every point looks like a minimum
        usable = new.sound or new.violation <= task.feasible
        if usable and (abs(now - old) > _OTHER * (1 + abs(old)) or not best.sound):
            several = True
            best = new if now < old or (new.sound and not best.sound) else best
        elif not several and swapped:  # valleys are the objective's habit: there all starts are tried
            break
    return best, several


def _settle(task: Task, ends: Ends, *, swapped: bool) -> Answer:
    """Among the points that are least in one function, go to the least in the other."""
    old = ends.left if swapped else ends.right
    width_c, width_f = ends.width_2
    if not (old.sound or old.violation <= task.feasible) or not math.isfinite(width_c * width_f):
        return old
    if not ends.is_point:
        price = end_price(task, ends, left=swapped)
        if math.isfinite(price) and (swapped or price > _SAME * width_f / width_c):
            return old  # a multiplier of the other function exists: to first order nothing lowers that here
    new = task.solve(old, swapped=swapped, weight=_WEIGHT * (width_c / width_f if swapped else width_f / width_c))
    if swapped:
        kept, gained = new.c <= old.c + _SAME * width_c, old.f - new.f > _BOUGHT * width_f
    else:
        kept, gained = new.f <= old.f + _SAME * width_f, old.c - new.c > _BOUGHT * width_c
    return new if kept and gained and (new.sound or not old.sound) else old


def end_price(task: Task, ends: Ends, *, left: bool) -> float:
    """Return minus the slope of the frontier at an end, towards the other end; infinite where it is vertical there.

    Multipliers of the target are not unique at an end.  The one-sided slope is the largest of them at the right end
    and the smallest at the left one, which a linear program finds (Gauvin and Dubeau 1982).
    """
    width_c, width_f = ends.width_2
    x = (ends.left if left else ends.right).x.clone().requires_grad_()
    task.evaluations += 1
    f, c, g_M, h_E = task._values(x)
    rows = (
        gradients([f.reshape(()) / width_f, c.reshape(()) / width_c, *g_M.unbind(), *h_E.unbind()], [x]).cpu().numpy()
    )
    if not np.isfinite(rows).all():
        return math.inf
    slope_n, of_c_n, M = rows[0], rows[1], len(g_M)
    size_C = np.maximum(np.linalg.norm(rows[2:], axis=1), 1e-300)
    tight_M = g_M.detach().double().cpu().numpy() >= -_TOUCHES * np.maximum(size_C[:M], 1.0)
    kept = np.concatenate([tight_M, np.ones(len(h_E), dtype=bool)])
    used = (rows[2:] / size_C[:, None])[kept]
    columns = np.column_stack([of_c_n, used.T])
    low, high = (side.numpy().ravel() for side in task.sides())
    x_n = x.detach().double().cpu().numpy().ravel()
    on_low = x_n <= low + _TOUCHES * (1 + np.abs(x_n))
    on_high = x_n >= high - _TOUCHES * (1 + np.abs(x_n))
    cost = np.zeros(columns.shape[1])
    cost[0] = 1.0 if left else -1.0
    free = [(0.0, None)] * (1 + int(tight_M.sum())) + [(None, None)] * len(h_E)
    for loose in _LOOSE:
        room = loose * max(float(np.abs(slope_n).max()), float(np.abs(of_c_n).max()))
        # what is left of the slope may push against a bound, and nowhere else
        most = np.where(on_low, np.inf, room - slope_n)
        least = np.where(on_high, -np.inf, -room - slope_n)
        rows_le = np.concatenate([columns[np.isfinite(most)], -columns[np.isfinite(least)]])
        right_le = np.concatenate([most[np.isfinite(most)], -least[np.isfinite(least)]])
        found = linprog(cost, A_ub=rows_le, b_ub=right_le, bounds=free, method="highs")
        if found.status == 0:
            price = float(found.x[0])
            return price * width_f / width_c if price < _VERTICAL else math.inf
    return math.inf if left or found.status == 3 else math.nan
