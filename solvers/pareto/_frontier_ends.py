"""The two ends of a frontier: the least objective, and the least constrained value, each with the other as tie-break.

Lexicographic: a second solve adds the other function with a weight of a millionth, in units of the ranges; unlike a row
``f <= least f`` it has a multiplier.  It counts only if it gains more than such a weight buys along the frontier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linprog

from ..kkt import gradients
from ._point_solver import PointSolver, SolvedPoint


@dataclass(frozen=True)
class EndSettings:
    """How the ends are searched.  tests/solvers/pareto/test_pareto.py (ends, local minima, one point) would notice.

    Attributes:
        more_starts: So many times the starts once another minimum was seen: where there are two there are often many.
        plateau: A fall below this part of what is left to the best is none: where a function levels off every point
            looks like a minimum.
        other_minimum: Values farther apart than this, relative, are of two minima; solves agree to 1e-8.
        tie_weight: Of the other function in the second solve, in units of the ranges: small enough not to move an end.
        bought: What such a weight may gain along a frontier that flattens out, in units of the range.
        same: In units of the range: values that do not differ.
        vertical: A multiplier beyond this, in units of the ranges, is that of a vertical frontier.
        stationarity_slack: What stationarity may lack, relative to the gradients; the first that can be met.
        active: Rows and bounds nearer than this, relative, are active.
        beyond_steps: How many steps beyond the right end are taken to look behind its valley.
        beyond_stride: Their length, in units of the range.
    """

    more_starts: int = 4
    plateau: float = 1e-2
    other_minimum: float = 1e-4
    tie_weight: float = 1e-6
    bought: float = 1e-4
    same: float = 1e-6
    vertical: float = 1e5
    stationarity_slack: tuple[float, ...] = (1e-8, 1e-6, 1e-5)
    active: float = 1e-7
    beyond_steps: int = 12
    beyond_stride: float = 0.04


@dataclass
class FrontierEnds:
    """Both ends of a frontier.

    Attributes:
        left: The point of least constrained value.
        right: The point of least objective.
        several: Whether other local minima were seen.
        settings: How they are searched.
    """

    left: SolvedPoint
    right: SolvedPoint
    several: bool = False
    settings: EndSettings = EndSettings()

    @property
    def width_2(self) -> tuple[float, float]:
        """The ranges of constrained and objective; where one is nothing, 1e-9 of its size, to divide by."""
        c = max(self.right.c - self.left.c, 1e-9 * (1 + abs(self.left.c)))
        f = max(self.left.f - self.right.f, 1e-9 * (1 + abs(self.right.f)))
        return c, f

    @property
    def is_point(self) -> bool:
        """Whether one point is best in both."""
        c, f, same = self.right.c - self.left.c, self.left.f - self.right.f, self.settings.same
        return not (c > same * (1 + abs(self.left.c)) * 1e-3 and f > same * (1 + abs(self.right.f)) * 1e-3)


def find_ends(solver: PointSolver, starts: int, settings: EndSettings) -> FrontierEnds:
    """Return both ends; from some starts, and from more once they lead to something else."""
    right, several_right = _find_least(solver, solver.x0, starts, settings, swapped=False)
    left, several_left = _find_least(solver, right.x, starts, settings, swapped=True)
    ends = FrontierEnds(left, right, several_right or several_left, settings)
    if ends.several:
        _look_beyond(solver, ends)
    _break_ties(solver, ends)
    return ends


def _look_beyond(solver: PointSolver, ends: FrontierEnds) -> None:
    """Climb out of the valley at the right end, the way the frontier would go on, and see what lies behind."""
    width_c, width_f = ends.width_2
    slack_c = ends.settings.same * width_c
    point, level = ends.right, ends.right.c
    for _ in range(ends.settings.beyond_steps):
        level += ends.settings.beyond_stride * width_c
        if point.c < level:  # else a step has slid into another valley already
            point = solver.solve(point, floor=level)
        if not point.converged or point.c < level - slack_c:
            return
        if point.c > level + slack_c and point.f < ends.right.f - ends.settings.other_minimum * width_f:
            new = solver.solve(point)
            ends.right = new if new.converged and new.f <= point.f else ends.right


def mend_ends(solver: PointSolver, ends: FrontierEnds, leftmost: SolvedPoint, lowest: SolvedPoint) -> bool:
    """Begin the ends anew from points that may lead to better ones; whether one did."""
    before, width_c, width_f, same = (ends.left, ends.right), *ends.width_2, ends.settings.same
    if lowest.f < ends.right.f - same * width_f:
        new = solver.solve(lowest, swapped=False)
        ends.right = new if new.converged and new.f <= lowest.f else lowest
    new = solver.solve(leftmost, swapped=True)
    if new.converged and new.c <= ends.left.c + same * width_c:
        tied = abs(new.c - ends.left.c) <= same * width_c
        probe = FrontierEnds(new, ends.right, settings=ends.settings)
        probe.left = _break_tie(solver, probe, swapped=True)
        if not tied or probe.left.f < ends.left.f - same * width_f:
            ends.left = probe.left
    if ends.left is before[0] and ends.right is before[1]:
        return False
    _break_ties(solver, ends)
    return True


def _break_ties(solver: PointSolver, ends: FrontierEnds) -> None:
    for _ in range(2):  # the first weight is wrong where a tie has left the range far too wide
        before = ends.width_2
        ends.left = _break_tie(solver, ends, swapped=True)
        if ends.width_2[1] > 0.1 * before[1]:
            break
    ends.right = _break_tie(solver, ends, swapped=False)
    if not ends.is_point:
        multipliers = [compute_end_multiplier(solver, ends, left=left) for left in (True, False)]
        ends.left = replace(ends.left, multiplier=multipliers[0])
        ends.right = replace(ends.right, multiplier=multipliers[1])


def _find_least(
    solver: PointSolver, x: torch.Tensor, starts: int, settings: EndSettings, *, swapped: bool
) -> tuple[SolvedPoint, bool]:
    best, several, number = solver.solve(x, swapped=swapped), False, 0
    while number + 1 < (settings.more_starts * starts if several else starts):
        number += 1
        start = solver.seed_start(number, best.x)
        new = solver.solve(start, swapped=swapped)
        now, old = ((a.c if swapped else a.f) for a in (new, best))
        if solver.evaluate(start.to(solver.dtype))[1 if swapped else 0] - now < settings.plateau * (now - old):
            continue  # no valley
        usable = new.converged or new.violation <= solver.feasible
        if usable and (abs(now - old) > settings.other_minimum * (1 + abs(old)) or not best.converged):
            several = True
            best = new if now < old or (new.converged and not best.converged) else best
        elif not several and swapped:  # valleys are the objective's habit: there all starts are tried
            break
    return best, several


def _break_tie(solver: PointSolver, ends: FrontierEnds, *, swapped: bool) -> SolvedPoint:
    """Among the points that are least in one function, go to the least in the other."""
    old, s = ends.left if swapped else ends.right, ends.settings
    width_c, width_f = ends.width_2
    if not (old.converged or old.violation <= solver.feasible) or not math.isfinite(width_c * width_f):
        return old
    if not ends.is_point:
        multiplier = compute_end_multiplier(solver, ends, left=swapped)
        if math.isfinite(multiplier) and (swapped or multiplier > s.same * width_f / width_c):
            return old  # a multiplier of the other function exists: to first order nothing lowers that here
    weight = s.tie_weight * (width_c / width_f if swapped else width_f / width_c)
    new = solver.solve(old, swapped=swapped, weight=weight)
    if swapped:
        kept, gained = new.c <= old.c + s.same * width_c, old.f - new.f > s.bought * width_f
    else:
        kept, gained = new.f <= old.f + s.same * width_f, old.c - new.c > s.bought * width_c
    return new if kept and gained and (new.converged or not old.converged) else old


def compute_end_multiplier(solver: PointSolver, ends: FrontierEnds, *, left: bool) -> float:
    """Return minus the directional derivative of the frontier at an end, towards the other; infinite where vertical.

    Multipliers of the target are not unique at an end.  The directional derivative is the largest of them at the right
    end and the smallest at the left one, which a linear program finds.  Source: Gauvin and Dubeau 1982.
    """
    width_c, width_f = ends.width_2
    x = (ends.left if left else ends.right).x.clone().requires_grad_()
    solver.evaluations += 1
    f, c, g_M, h_E = solver.evaluate_rows(x)
    values = [f.reshape(()) / width_f, c.reshape(()) / width_c, *g_M.unbind(), *h_E.unbind()]
    rows = gradients(values, [x]).cpu().numpy()
    if not np.isfinite(rows).all():
        return math.inf
    s = ends.settings
    of_f_n, of_c_n, M = rows[0], rows[1], len(g_M)
    size_C = np.maximum(np.linalg.norm(rows[2:], axis=1), 1e-300)
    active_M = g_M.detach().double().cpu().numpy() >= -s.active * np.maximum(size_C[:M], 1.0)
    kept = np.concatenate([active_M, np.ones(len(h_E), dtype=bool)])
    used = (rows[2:] / size_C[:, None])[kept]
    columns = np.column_stack([of_c_n, used.T])
    low, high = (side.numpy().ravel() for side in solver.bound_sides())
    x_n = x.detach().double().cpu().numpy().ravel()
    on_low = x_n <= low + s.active * (1 + np.abs(x_n))
    on_high = x_n >= high - s.active * (1 + np.abs(x_n))
    cost = np.zeros(columns.shape[1])
    cost[0] = 1.0 if left else -1.0
    free = [(0.0, None)] * (1 + int(active_M.sum())) + [(None, None)] * len(h_E)
    for slack in s.stationarity_slack:
        room = slack * max(float(np.abs(of_f_n).max()), float(np.abs(of_c_n).max()))
        # what is left of the gradient may push against a bound, and nowhere else
        most = np.where(on_low, np.inf, room - of_f_n)
        least = np.where(on_high, -np.inf, -room - of_f_n)
        rows_le = np.concatenate([columns[np.isfinite(most)], -columns[np.isfinite(least)]])
        right_le = np.concatenate([most[np.isfinite(most)], -least[np.isfinite(least)]])
        program = linprog(cost, A_ub=rows_le, b_ub=right_le, bounds=free, method="highs")
        if program.status == 0:
            multiplier = float(program.x[0])
            return multiplier * width_f / width_c if multiplier < s.vertical else math.inf
    return math.inf if left or program.status == 3 else math.nan
