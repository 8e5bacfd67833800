"""The outer loop: multipliers and penalty between inner minimizations, and when to stop.

Multipliers step after each inner solve; rho grows where violations do not fall fast enough (Birgin and Martinez 2014).
After each, Newton's method tries to finish; its end counts only if multipliers settle there: where none exists they
grow for ever while the residuals look small.  Axes: n variables, M inequalities, C rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..infeasibility import FarkasProof, prove_linearized_infeasible
from ..statuses import Status
from ._degenerate import find_point_without_multiplier, is_kink
from ._descent_directions import find_descent_direction, is_strict_minimum, try_descent_directions
from ._inner_minimization import minimize_augmented
from ._least_violation import SETTINGS as RESTORATION
from ._least_violation import (
    RowShape,
    classify_rows,
    is_feasible,
    is_least_violation,
    restore_feasibility,
    restore_from_elsewhere,
)
from ._loop_settings import SETTINGS
from ._newton_kkt import KKTCandidate, estimate_multipliers, largest_residual, refine_by_newton, relative_change
from ._unboundedness import falls_without_end
from .problem._scaled_point import ScaledPoint
from .problem._scaled_problem import Floats, ScaledProblem


@dataclass
class OuterLoop:
    """What changes while the loop runs.

    Attributes:
        problem: The scaled problem.
        point: Where it is.
        lambda_C: Multipliers of the scaled rows, shape (C,).
        rho: Penalty of the scaled rows.
        tolerance: On all scaled residuals.
        on_step: Called with each row of the history.
        status: How it ended, None while it runs.
        cause: What speaks for the status.
        proof: Farkas' weights of rows that conflict.
        shape: How far that proof reaches.
        kink: Whether a gradient jumps where it ended.
        by_curvature: Whether it converged as positive curvature shows, with a gradient left that is rounding.
        least_f: Scaled objective below which one looks whether it falls without end.
        unheld: Objective at a point that misses rows, where no penalty holds it; 0 if there is none.
        hidden: Stationarity, in the user's units, that rounding may hide a descent in; 0 if none.
        gap: Largest violation, complementarity included, after the last outer step.
        change: Relative change of the multipliers in it.
        trust_radius: Of the next inner minimization, in units of 1 + |x|.
        goal: Projected gradient that the next inner minimization is to reach.
        stalled: Outer steps in a row in which violations did not fall.
        saddles: Stationary points that were no minima, and were left.
        unbounded_tries: Inner minimizations without an end.
        stuck: Outer steps in a row without motion.
        growing: Outer steps in a row in which multipliers grew.
        near: Whether a minimum is expected close by.
        restorations: Looks for a feasible point.
        rescalings: How often scales were taken anew.
        rows: The history.
    """

    problem: ScaledProblem
    point: ScaledPoint
    lambda_C: Floats
    rho: float
    tolerance: float
    on_step: Callable[[Mapping[str, float]], None] | None = None
    status: Status | None = None
    cause: str = ""
    proof: FarkasProof | None = None
    shape: RowShape | None = None
    kink: bool = False
    by_curvature: bool = False
    hidden: float = 0.0
    least_f: float = SETTINGS.least_f
    unheld: float = 0.0
    gap: float = math.inf
    change: float = math.inf
    trust_radius: float = SETTINGS.trust_radius
    goal: float = SETTINGS.first_goal
    stalled: int = 0
    saddles: list[Floats] = field(default_factory=list)
    unbounded_tries: int = 0
    stuck: int = 0
    growing: int = 0
    near: bool = False
    restorations: int = 0
    rescalings: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first_rho = self.rho

    def run(self, steps: int) -> None:
        """Search until a status is settled or steps are spent."""
        for step in range(steps):
            if not self._take_outer_step():
                if self.status is not None or self.unheld:
                    return
                continue
            ended = self.finish_by_newton() or self._finish_as_is() or self._finish_without_multiplier()
            self.record(step)
            if ended or (self.stalled >= 2 and not self.may_be_feasible()):
                return
            if self.rho >= SETTINGS.largest_rho or self.stuck >= SETTINGS.stuck_steps:
                break
            self.goal = max(self.goal * SETTINGS.goal_factor, 0.1 * self.tolerance)
        if self.status is None and not is_feasible(self.problem, self.point):
            self.may_be_feasible()
        if self.status is None and self.stuck >= SETTINGS.stuck_steps:
            self.kink = is_kink(self.problem, self.point, self.lambda_C, self.rho)

    def _take_outer_step(self) -> bool:
        """Minimize, and take the multiplier step there; False if the inner problem is unbounded."""
        radius = self.trust_radius * self.point.length
        inner = minimize_augmented(
            self.problem, self.point.x_n, self.lambda_C, self.rho, self.goal, radius, self.least_f, near=self.near
        )
        if inner.unbounded:
            self.handle_unbounded(inner.point)
            return False
        self.trust_radius = SETTINGS.trust_radius
        motion = float(np.abs(inner.point.x_n - self.point.x_n).max()) / inner.point.length
        self.stuck = self.stuck + 1 if not inner.converged and motion <= SETTINGS.unmoved else 0
        self.near = inner.converged
        self._update_multipliers(inner.point)
        self._shrink_steep_rows()
        return True

    def handle_unbounded(self, point: ScaledPoint) -> None:
        """Tell an unbounded objective from a penalty too weak to hold it, and from a minimum far down."""
        self.unbounded_tries += 1
        shown = falls_without_end(self.problem, self.problem.start, point)
        if shown is not None:
            self.point, self.status = shown, "unbounded"
            low = shown.f * self.problem.f_scale
            self.cause = (
                f"The objective falls without end, with every row met: {low:.3g} was seen, and it falls beyond."
            )
            return
        if self.unbounded_tries > SETTINGS.unbounded_tries:
            self.unheld = point.f * self.problem.f_scale
        self.least_f *= SETTINGS.deeper
        # near the start a stronger penalty may hold it
        self.rho, self.trust_radius = self.rho * SETTINGS.growth, SETTINGS.held_radius

    def _update_multipliers(self, point: ScaledPoint) -> None:
        before_C, violation = self.lambda_C, self.problem.largest_violation(point)
        after_C = self.problem.row_weights(before_C, point.c_C, self.rho)
        # a slack row counts as far as its multiplier goes: complementarity
        inequality_C = np.arange(len(after_C)) < self.problem.M
        gap_C = np.where(inequality_C, np.maximum(point.c_C, -before_C / self.rho), point.c_C)
        gap = float(np.abs(gap_C).max(initial=0.0))
        self.change = relative_change(after_C, before_C)
        grew = float(np.abs(after_C).sum()) > SETTINGS.multiplier_growth * float(np.abs(before_C).sum())
        self.growing = self.growing + 1 if grew and violation <= SETTINGS.nearly_feasible else 0
        self.stalled = self.stalled + 1 if violation > RESTORATION.feasible and gap > 0.9 * self.gap else 0
        self.point, self.lambda_C = point, after_C
        # within tolerance more of rho only costs digits, unless it is to find out whether multipliers have an end
        if gap > SETTINGS.progress * self.gap and (gap > self.tolerance or self.change > SETTINGS.settled):
            self.rho *= SETTINGS.growth
        self.gap = gap

    def finish_by_newton(self, *, warm: bool = False) -> bool:
        """Try Newton's method from here; True if it settled the status."""
        if not self.problem.has_second_derivatives:
            return False
        try:
            candidate = refine_by_newton(self.problem, self.point, self.lambda_C, self.rho, self.tolerance, warm=warm)
        except RuntimeError:  # no second derivatives
            self.problem.smooth = False
            return False
        if not (candidate.residual <= self.tolerance and candidate.change <= self.settled_change):
            return False
        before = self.point, self.lambda_C, self.change
        self.point, self.lambda_C, self.change = candidate.point, candidate.lambda_C, candidate.change
        ended, left_one = self.verify(candidate), bool(self.saddles)
        if not ended and left_one and self.saddles[-1] is candidate.point.x_n and self._was_lower(before[0], candidate):
            self.point, self.lambda_C, self.change = before  # on the way down Newton's method turned back to a saddle
        return ended

    def _was_lower(self, before: ScaledPoint, candidate: KKTCandidate) -> bool:
        """Say whether the loop was elsewhere, and lower, than both Newton's end and the point next to it by now."""
        distance = float(np.abs(before.x_n - candidate.point.x_n).max())
        if not distance > 1e-3 * before.length:
            return False
        merits = [
            self.problem.augmented_lagrangian(point, candidate.lambda_C, self.rho)
            for point in (before, candidate.point, self.point)
        ]
        return merits[0] < min(merits[1:])

    def _finish_without_multiplier(self) -> bool:
        """Say whether multipliers grow because none exists at a point nearby; leave that point if it can be left."""
        if self.growing < SETTINGS.growing_steps:
            return False
        degenerate = self._point_without_multiplier(self.point, self.lambda_C)
        if degenerate is None:
            return False
        try:
            direction_n = find_descent_direction(self.problem, self.point, self.lambda_C)
        except RuntimeError:  # no second derivatives here
            direction_n = None
        if direction_n is not None and len(self.saddles) < SETTINGS.escapes:
            self._leave_saddle(direction_n)
            self.lambda_C, self.rho = np.zeros_like(self.lambda_C), self.first_rho
            return False
        self._end_without_multiplier(degenerate)
        return True

    def _point_without_multiplier(self, point: ScaledPoint, lambda_C: Floats) -> ScaledPoint | None:
        """Return the point nearby that has no multiplier, if there is one and second derivatives to find it."""
        if not self.problem.has_second_derivatives:
            return None
        try:
            found = find_point_without_multiplier(self.problem, point, lambda_C)
        except RuntimeError:
            self.problem.smooth = False
            return None
        # rows may cancel where nothing is to be balanced
        if found is None or self._has_multiplier(found):
            return None
        return found

    def _has_multiplier(self, point: ScaledPoint) -> bool:
        """Say whether moderate multipliers balance the objective: of vanishing gradients large ones always do."""
        lambda_C = estimate_multipliers(self.problem, point)
        moderate = float(np.abs(lambda_C).max(initial=0.0)) <= SETTINGS.large_multiplier
        return moderate and largest_residual(self.problem, point, lambda_C) <= self.tolerance

    def _end_without_multiplier(self, point: ScaledPoint) -> None:
        self.point, self.status = point, "no_multiplier"
        self.cause = (
            f"x is feasible within {self.problem.largest_violation(point):.1e}, and the gradients of the binding rows "
            "vanish or cancel there: no multiplier balances the objective, and the ones shown grow as x is approached."
        )

    def _finish_as_is(self) -> bool:
        """Say whether the loop itself has come to an end: residuals within tolerance, multipliers settled."""
        residual = largest_residual(self.problem, self.point, self.lambda_C)
        if not (residual <= self.tolerance and self.change <= self.settled_change):
            return False
        return self.verify(KKTCandidate(self.point, self.lambda_C, residual, self.change))

    @property
    def settled_change(self) -> float:
        """The change of multipliers that counts as none."""
        return max(SETTINGS.settled, 10 * self.tolerance)

    def verify(self, candidate: KKTCandidate) -> bool:
        """Look for a way down from a point whose residuals are within tolerance; True if the status is settled."""
        if self._take_new_scales(candidate.residual):
            return False
        problem, point = self.problem, candidate.point
        seen = "nothing falls along the constraints"
        try:
            direction_n = find_descent_direction(problem, point, candidate.lambda_C)
        except ValueError as unseen:
            direction_n, seen = None, f"curvature was not looked at for {unseen}"
        except RuntimeError:
            direction_n = try_descent_directions(problem, point, candidate.lambda_C)
            seen = "the functions have no second derivatives; nothing falls in the directions that were tried"
        if problem.by_differences:
            seen += " (curvature by differences of gradients)"
        returns = sum(np.abs(point.x_n - old_n).max() <= 1e-5 * (1 + np.abs(old_n).max()) for old_n in self.saddles)
        if direction_n is None:
            return self._end_at_degenerate(candidate) or self._settle(candidate, seen)
        if returns == SETTINGS.returns or len(self.saddles) == SETTINGS.escapes:
            self.status = "stationary_unverified"
            self.cause = "Residuals are within tolerance, but something falls along the constraints."
        else:
            if returns:  # a concave objective may need a stronger penalty to stay away
                self.rho *= SETTINGS.growth
            self._leave_saddle(direction_n)
        return self.status is not None

    def _end_at_degenerate(self, candidate: KKTCandidate) -> bool:
        """Say whether no multiplier exists next to a point whose residuals only look small; then it is the end."""
        large = float(np.abs(candidate.lambda_C).max(initial=0.0)) > SETTINGS.large_multiplier
        if candidate.residual <= SETTINGS.exact_residual and not large:
            return False
        degenerate = self._point_without_multiplier(candidate.point, candidate.lambda_C)
        if degenerate is not None:
            self._end_without_multiplier(degenerate)
        return degenerate is not None

    def _settle(self, candidate: KKTCandidate, seen: str) -> bool:
        """Call a point converged, if residuals in the user's units do not contradict that; say whether it was."""
        plain = self.problem.residuals(candidate.point, candidate.lambda_C).stationarity
        small = candidate.residual <= self.tolerance and plain <= SETTINGS.plain_residual
        if not small and not is_strict_minimum(self.problem, candidate.point, candidate.lambda_C):
            self.hidden = plain
            return False
        self.status = "converged"
        self.cause = f"Residuals are within tolerance; {seen}."
        if not small:
            self.by_curvature = True
            self.cause = (
                f"Newton's step promises no decrease of the objective, curvature is positive, and {seen}; stationarity "
                f"{plain:.2g} is what units of the variables or rounding leave."
            )
        return True

    def _leave_saddle(self, direction_n: Floats) -> None:
        """Step off a stationary point that is no minimum, to where the augmented Lagrangian is lowest."""
        problem, old = self.problem, self.point
        self.saddles.append(old.x_n)
        self.near = False
        self.goal = min(self.goal, SETTINGS.saddle_goal)
        lowest, taken = problem.augmented_lagrangian(old, self.lambda_C, self.rho), 0.0
        met = max(SETTINGS.nearly_feasible, problem.largest_violation(old))

        def try_step(length: float) -> None:
            nonlocal lowest, taken
            new = problem.evaluate_within(old.x_n + length * old.length * direction_n)
            merit = problem.augmented_lagrangian(new, self.lambda_C, self.rho) if new.finite else math.inf
            if taken and problem.largest_violation(new) > met:
                return  # a longer step is not to pass a row
            if merit < lowest or (self.point is old and merit < math.inf):
                lowest, taken, self.point = min(merit, lowest), length, new

        for length in SETTINGS.saddle_steps:
            for sign in (1, -1):
                try_step(sign * length)
        for _ in range(SETTINGS.saddle_growths):  # a plateau may be wide
            before = taken
            if abs(before) >= SETTINGS.saddle_steps[-1]:
                try_step(SETTINGS.saddle_growth * before)
            if taken == before:
                break
        weight_C = problem.row_weights(self.lambda_C, self.point.c_C, self.rho)
        left_n = problem.project_gradient(self.point.lagrangian_gradient(weight_C), self.point.x_n)
        self.goal = min(self.goal, SETTINGS.goal_factor * float(np.abs(left_n).max()))  # it is flat around here
        self.gap = math.inf

    def _shrink_steep_rows(self) -> None:
        """Shrink what turns out to be far steeper than it was near the start."""
        point = self.point
        steep = np.concatenate([[np.abs(point.gradient_n).max()], np.linalg.norm(point.jacobian_Cn, axis=1)])
        if (steep > SETTINGS.steep).any():
            factor = np.where(steep > SETTINGS.steep, steep, 1.0)
            self._rescale(self.problem.f_scale * factor[0], self.problem.c_scale_C * factor[1:])

    def _take_new_scales(self, residual: float) -> bool:
        """Take scales anew if those of the start are far from those here, and too coarse; True if they were."""
        problem = self.problem
        here = problem.gradient_sizes(
            self.point
        )  # sizes are at least these; what passes with them needs no other point
        scales = np.concatenate([[problem.f_scale], problem.c_scale_C])
        if (here > 0).all() and residual * float((scales / here).max()) <= SETTINGS.wrong_scale * self.tolerance:
            return False
        f_scale, c_scale_C = problem.measure_sizes(self.point)
        # on a plateau f changes by rounding only
        f_scale = max(f_scale, problem.functions.rounding * abs(self.point.f) * problem.f_scale / self.point.length)
        coarse = max([problem.f_scale / f_scale, *(problem.c_scale_C / c_scale_C)])
        if residual * coarse <= SETTINGS.wrong_scale * self.tolerance or self.rescalings == SETTINGS.rescalings:
            return False
        self.rescalings += 1
        self._rescale(f_scale, c_scale_C)
        return True

    def _rescale(self, f_scale: float, c_scale_C: Floats) -> None:
        unscaled_C = self.problem.unscale_multipliers(self.lambda_C)
        self.problem.rescale(f_scale, c_scale_C)
        self.lambda_C = self.problem.scale_multipliers(unscaled_C)
        self.point, self.gap = self.problem.evaluate(self.point.x_n), math.inf

    def may_be_feasible(self) -> bool:
        """Look for a feasible point, here and elsewhere, and go on from it; False once rows are shown to conflict."""
        if self.restorations == SETTINGS.restorations:
            return True
        problem, self.stalled, self.restorations = self.problem, 0, self.restorations + 1
        near = restore_feasibility(problem, self.point)
        if not is_feasible(problem, near):
            bounds = problem.lower_n, problem.upper_n
            proof = prove_linearized_infeasible(
                near.c_C, near.jacobian_Cn, problem.M, near.x_n, *bounds, RESTORATION.feasible
            )
            shape = classify_rows(problem, near, proof.weights_C) if proof else "curved"
            elsewhere = restore_from_elsewhere(problem, near) if shape == "curved" else None
            if elsewhere is None:
                if is_least_violation(problem, near):
                    self.status, self.point, self.proof, self.shape = "infeasible", near, proof, shape
                return self.status is None
            near = elsewhere
        self.point, self.gap, self.rho, self.near = near, math.inf, self.rho * SETTINGS.growth, False
        return True

    def record(self, step: int) -> None:
        """Add a row to the history."""
        problem = self.problem
        self.rows.append(
            {
                "step": step,
                "objective": self.point.f * problem.f_scale,
                "violation": problem.largest_violation(self.point),
                "multiplier_change": self.change,
                "largest_multiplier": float(np.abs(problem.unscale_multipliers(self.lambda_C)).max(initial=0.0)),
                "rho": self.rho,
                "evaluations": problem.evaluations,
                "hessians": problem.hessians,
            }
        )
        if self.on_step is not None:
            self.on_step(self.rows[-1])
