"""The outer loop: multipliers and penalty between inner minimisations, and when to stop.

Multipliers step after each inner solve; rho grows where violations do not fall fast enough (Birgin and Martinez 2014).
After each, Newton's method tries to finish; what it finds counts only if multipliers stand still there: where none
exists they grow for ever while the residuals look small.  Axes: n variables, M inequalities, C rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..conflict import Conflict
from ._augmented import DENSE, augmented, minimise_augmented
from ._conflict import Shape, conflict_at, shape_of
from ._curvature import falling_by_trial, falling_direction
from ._degenerate import is_kink, without_multiplier
from ._newton import Polished, polish, worst_residual
from ._point import Floats, Point, weights
from ._problem import Problem
from ._restore import FEASIBLE, is_stationary, restore, restore_from_elsewhere, violation
from ._solution import Status

RHO_MAX = 1e14
_GROWTH = 10.0
_FALL = 0.25  # what is left of a violation after an outer step that made progress
_STEADY = 1e-5  # relative change of multipliers that stand still
_ESCAPES, _BACK, _FALLS, _RESTORED, _RESCALED, _STUCK, _GROWN = 6, 3, 6, 3, 3, 3, 3
_FINE = 1e-5
_UNMOVED, _GREW, _NEARLY = 1e-7, 1.2, 1e-3
_EXACT = 1e-12  # residuals of points with multipliers get below this
_STEEP = 100.0  # a scaled gradient beyond this was far too flat at the start
_FAR = 10.0  # scales that are wrong by more than this are taken again
_REACH = 100.0  # the first box of an inner minimisation, in units of 1 + |x|


@dataclass
class Search:
    """What changes while the loop runs.  lambda_C: multipliers of scaled rows.  cause: what speaks for the status."""

    problem: Problem
    point: Point
    lambda_C: Floats
    rho: float
    tolerance: float
    on_step: Callable[[Mapping[str, float]], None] | None = None
    status: Status | None = None
    cause: str = ""
    conflict: Conflict | None = None
    shape: Shape | None = None
    kink: bool = False
    missed: float = math.inf
    change: float = math.inf
    reach: float = _REACH
    goal: float = 1e-2
    still: int = 0
    left: list[Floats] = field(default_factory=list)  # points that were stationary, but no minima
    falls: int = 0
    stuck: int = 0
    growing: int = 0
    near: bool = False
    restored: int = 0
    rescaled: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.penalty = self.rho

    def run(self, steps: int, *, warm: bool) -> None:
        """Search until a status is settled or steps are spent; ``warm``: begin with Newton's method."""
        if warm and self._finish(warm=True):
            self.record(0)
            return
        for step in range(steps):
            if not self._outer():
                if self.status is not None:
                    return
                continue
            settled = self._finish() or self._stands() or self._runs_away()
            self.record(step)
            if settled or (self.still >= 2 and not self.may_be_feasible()):
                return
            if self.rho >= RHO_MAX or self.stuck >= _STUCK:
                break
            self.goal = max(self.goal * 0.1, 0.1 * self.tolerance)
        if self.status is None and violation(self.problem, self.point) > FEASIBLE:
            self.may_be_feasible()
        if self.status is None and self.stuck >= _STUCK:
            self.kink = is_kink(self.problem, self.point, self.lambda_C, self.rho)

    def _outer(self) -> bool:
        """Minimise, and take the multiplier step there; False if the inner problem had no bottom."""
        reach = self.reach * (1 + float(np.abs(self.point.x_n).max()))
        inner = minimise_augmented(
            self.problem, self.point.x_n, self.lambda_C, self.rho, self.goal, reach, near=self.near
        )
        if inner.falling:
            self._fell(inner.point)
            return False
        self.reach = _REACH
        moved = float(np.abs(inner.point.x_n - self.point.x_n).max()) / (1 + float(np.abs(inner.point.x_n).max()))
        self.stuck = self.stuck + 1 if not inner.done and moved <= _UNMOVED else 0
        self.near = inner.done
        self._advance(inner.point)
        self._coarsen()
        return True

    def _fell(self, point: Point) -> None:
        """Tell an objective without bottom from a penalty too weak to hold it."""
        self.falls += 1
        far = 1 + float(np.abs(point.x_n).max())
        if violation(self.problem, point) <= FEASIBLE * far or self.falls > _FALLS:
            self.point, self.status = point, "diverged"
            held = "with every row met" if violation(self.problem, point) <= FEASIBLE * far else "against any penalty"
            self.cause = f"The objective falls without end, {held}: {point.f * self.problem.f_scale:.3g} was seen."
        # near the start a stronger penalty may hold it
        self.rho, self.reach = self.rho * _GROWTH, 1.0

    def _advance(self, point: Point) -> None:
        before_C, M = self.lambda_C, self.problem.M
        after_C = weights(before_C, point.c_C, self.rho, M)
        # what is missed, complementarity included: a row that is slack counts as far as its multiplier goes
        gap_C = np.where(np.arange(len(after_C)) < M, np.maximum(point.c_C, -before_C / self.rho), point.c_C)
        missed = float(np.abs(gap_C).max(initial=0.0))
        self.change = _relative(after_C, before_C)
        grew = float(np.abs(after_C).sum()) > _GREW * float(np.abs(before_C).sum())
        self.growing = self.growing + 1 if grew and violation(self.problem, point) <= _NEARLY else 0
        worse = violation(self.problem, point) > FEASIBLE and missed > 0.9 * self.missed
        self.still = self.still + 1 if worse else 0
        self.point, self.lambda_C = point, after_C
        # within tolerance more of rho only costs digits, unless it is to find out whether multipliers have an end
        if missed > _FALL * self.missed and (missed > self.tolerance or self.change > _STEADY):
            self.rho *= _GROWTH
        self.missed = missed

    def _finish(self, *, warm: bool = False) -> bool:
        """Try Newton's method from here; True if it settled the status."""
        if not self._second():
            return False
        try:
            found = polish(self.problem, self.point, self.lambda_C, self.rho, self.tolerance, warm=warm)
        except RuntimeError:  # no second derivatives
            self.problem.smooth = False
            return False
        if not (found.worst <= self.tolerance and found.change <= self.steady):
            return False
        before = self.point, self.lambda_C, self.change
        self.point, self.lambda_C, self.change = found.point, found.lambda_C, found.change
        settled, left = self.verify(found), len(self.left)
        if not settled and left and self.left[-1] is found.point.x_n and self._was_lower(before[0], found):
            self.point, self.lambda_C, self.change = before  # on the way down Newton's method turned back to a saddle
        return settled

    def _was_lower(self, before: Point, found: Polished) -> bool:
        """Whether the loop stood elsewhere, and lower, than the point that Newton's method found."""
        M, far = self.problem.M, float(np.abs(before.x_n - found.point.x_n).max())
        values = [augmented(point, found.lambda_C, self.rho, M)[0] for point in (before, found.point)]
        return far > 1e-3 * (1 + float(np.abs(before.x_n).max())) and values[0] < values[1]

    def _runs_away(self) -> bool:
        """Whether multipliers grow because no multiplier exists at a point nearby; leaves that point if it can."""
        near = self._cancelling(self.point, self.lambda_C) if self.growing >= _GROWN else None
        if near is None:
            return False
        try:
            direction_n = falling_direction(self.problem, self.point, self.lambda_C)
        except RuntimeError:  # no second derivatives here
            direction_n = None
        if direction_n is not None and len(self.left) < _ESCAPES:
            self._leave(direction_n)
            self.lambda_C, self.rho = np.zeros_like(self.lambda_C), self.penalty
            return False
        self._without_multiplier(near)
        return True

    def _cancelling(self, point: Point, lambda_C: Floats) -> Point | None:
        """Return the point nearby that has no multiplier, if there is one and second derivatives to find it."""
        try:
            return without_multiplier(self.problem, point, lambda_C) if self._second() else None
        except RuntimeError:
            self.problem.smooth = False
            return None

    def _without_multiplier(self, near: Point) -> None:
        self.point, self.status = near, "no_multiplier"
        self.cause = (
            f"x is feasible within {violation(self.problem, near):.1e}, and the gradients of the binding rows vanish "
            "or cancel there: no multiplier balances the objective, and the ones shown grow as x is approached."
        )

    def _second(self) -> bool:
        """Whether second derivatives can be had."""
        return self.problem.smooth and len(self.point.x_n) <= DENSE

    def _stands(self) -> bool:
        """Whether the loop itself has come to an end: residuals within tolerance, multipliers still."""
        worst = worst_residual(self.problem, self.point, self.lambda_C)
        if not (worst <= self.tolerance and self.change <= self.steady):
            return False
        return self.verify(Polished(self.point, self.lambda_C, worst, self.change))

    @property
    def steady(self) -> float:
        """The change of multipliers that counts as none."""
        return max(_STEADY, 10 * self.tolerance)

    def verify(self, found: Polished) -> bool:
        """Look for a way down from a point whose residuals are within tolerance; True if the status is settled."""
        if self._rescale(found.worst):
            return False
        problem, point = self.problem, found.point
        near = self._cancelling(point, found.lambda_C) if found.worst > _EXACT else None
        if near is not None:
            self._without_multiplier(near)
            return True
        seen = "nothing falls along the constraints"
        try:
            direction_n = falling_direction(problem, point, found.lambda_C)
        except ValueError as unseen:
            direction_n, seen = None, f"curvature was not looked at for {unseen}"
        except RuntimeError:
            direction_n = falling_by_trial(problem, point, found.lambda_C)
            seen = "the functions have no second derivatives; nothing falls in the directions that were tried"
        back = sum(np.abs(point.x_n - old_n).max() <= 1e-5 * (1 + np.abs(old_n).max()) for old_n in self.left)
        if direction_n is None:
            self.status = "converged"
            self.cause = f"Residuals are within tolerance; {seen}."
        elif back == _BACK or len(self.left) == _ESCAPES:
            self.status = "stationary_unverified"
            self.cause = "Residuals are within tolerance, but something falls along the constraints."
        else:
            if back:  # a concave objective may need a stronger penalty to stay away
                self.rho *= _GROWTH
            self._leave(direction_n)
        return self.status is not None

    def _leave(self, direction_n: Floats) -> None:
        """Step off a stationary point that is no minimum, to where the augmented Lagrangian is lowest."""
        problem, old = self.problem, self.point
        self.left.append(old.x_n)
        self.near = False
        self.goal = min(self.goal, _FINE)  # gradients are small here: anything coarser stops before it has begun
        best = augmented(old, self.lambda_C, self.rho, problem.M)[0]
        reach = 1 + float(np.abs(old.x_n).max())
        for stride in (1e-3, 1e-2, 1e-1):
            for sign in (1, -1):
                new_n = np.clip(old.x_n + sign * stride * reach * direction_n, problem.lower_n, problem.upper_n)
                new = problem.at(new_n)
                value = augmented(new, self.lambda_C, self.rho, problem.M)[0] if new.finite else math.inf
                if value < best or (self.point is old and value < math.inf):
                    best, self.point = min(value, best), new
        self.missed = math.inf

    def _coarsen(self) -> None:
        """Shrink what turns out to be far steeper than it was near the start."""
        point = self.point
        steep = np.concatenate([[np.abs(point.gradient_n).max()], np.linalg.norm(point.jacobian_Cn, axis=1)])
        if (steep > _STEEP).any():
            factor = np.where(steep > _STEEP, steep, 1.0)
            self._use(self.problem.f_scale * factor[0], self.problem.c_scale_C * factor[1:])

    def _rescale(self, worst: float) -> bool:
        """Take scales anew if those of the start are far from those here, and too coarse; True if they were."""
        problem = self.problem
        f_scale, c_scale_C = problem.sizes(self.point)
        coarse = max([problem.f_scale / f_scale, *(problem.c_scale_C / c_scale_C)])
        if worst * coarse <= _FAR * self.tolerance or self.rescaled == _RESCALED:
            return False
        self.rescaled += 1
        self._use(f_scale, c_scale_C)
        return True

    def _use(self, f_scale: float, c_scale_C: Floats) -> None:
        price_C = self.problem.user_multipliers(self.lambda_C)
        self.problem.rescale(f_scale, c_scale_C)
        self.lambda_C, self.point = self.problem.scaled_multipliers(price_C), self.problem.at(self.point.x_n)
        self.missed = math.inf

    def may_be_feasible(self) -> bool:
        """Look for a feasible point, here and elsewhere, and go on from it; False once rows are shown to conflict."""
        if self.restored == _RESTORED:
            return True
        problem, self.still, self.restored = self.problem, 0, self.restored + 1
        near = restore(problem, self.point)
        if violation(problem, near) > FEASIBLE:
            conflict = conflict_at(problem, near, FEASIBLE)
            shape = shape_of(problem, near, conflict.farkas_C) if conflict else "curved"
            elsewhere = restore_from_elsewhere(problem, near) if shape == "curved" else None
            if elsewhere is None:
                if is_stationary(problem, near):
                    self.status, self.point, self.conflict, self.shape = "infeasible", near, conflict, shape
                return self.status is None
            near = elsewhere
        self.point, self.missed, self.rho, self.near = near, math.inf, self.rho * _GROWTH, False
        return True

    def record(self, step: int) -> None:
        """Add a row to the history."""
        problem = self.problem
        self.rows.append(
            {
                "step": step,
                "objective": self.point.f * problem.f_scale,
                "violation": violation(problem, self.point),
                "multiplier_change": self.change,
                "largest_multiplier": float(np.abs(problem.user_multipliers(self.lambda_C)).max(initial=0.0)),
                "rho": self.rho,
                "evaluations": problem.evaluations,
                "hessians": problem.hessians,
            }
        )
        if self.on_step is not None:
            self.on_step(self.rows[-1])


def _relative(after_C: Floats, before_C: Floats) -> float:
    return float(np.abs(after_C - before_C).max(initial=0.0)) / (1 + float(np.abs(after_C).max(initial=0.0)))
