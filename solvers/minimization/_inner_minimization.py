"""The augmented Lagrangian of a scaled problem, minimized within bounds for fixed multipliers.

L-BFGS first, one gradient a step.  Where it comes to no end, second derivatives take over if there are any: projected
Newton steps with a backtracking line search (Bertsekas 1982).  The augmented Lagrangian (``solvers.lagrangian``) is the
merit function of both.  Both move inside a box around the best point, a trust region: its trust radius shrinks at
numbers that are not finite and grows where it is in the way.
Axes: n variables, M inequalities, E equalities, C = M + E rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize as scipy_minimize

from .problem._scaled_point import ScaledPoint
from .problem._scaled_problem import Floats, ScaledProblem


@dataclass(frozen=True)
class InnerSettings:
    """Numbers of an inner minimization; ``tests/solvers/minimization`` notices them by points, verdicts and cost.

    Attributes:
        cheap_hessian: Variables up to which a Hessian costs less than the gradients that it saves.
        lbfgs_steps: Steps of L-BFGS before second derivatives are asked.
        lbfgs_steps_alone: Its steps where there are none.
        lbfgs_memory: Pairs of steps and gradients that it holds.
        newton_steps: Projected Newton steps at most.
        boxes: Trust regions at most.
        shrink: Trust radius after a step to numbers that are not finite, as a share of that step's length.
        grow: Factor on the trust radius after a minimization that ended in a box.
        least_radius: Trust radius, in units of 1 + |x|, at which nothing finite is left to find.
        truncated_steps: Newton steps by conjugate gradients at most, where second derivatives are not held.
        conjugate_gradients: Products of one of them at most.
        linear_residual: Share of the gradient that these may leave.
        fallen_gradient: Share of the gradient that may be left after a step that counts.
        value_rounding: Rise of the value, in units of 1 + its size, that is rounding.
        sufficient_decrease: Share of the predicted decrease that a line search asks for (Armijo's condition).
        backtrack: Factor on the length of a step that did not decrease enough.
        least_step: Length, in units of the Newton step, at which backtracking ends.
    """

    cheap_hessian: int = 300
    lbfgs_steps: int = 250
    lbfgs_steps_alone: int = 2000
    lbfgs_memory: int = 30
    newton_steps: int = 30
    boxes: int = 40
    shrink: float = 0.3
    grow: float = 10.0
    least_radius: float = 1e-12
    truncated_steps: int = 10
    conjugate_gradients: int = 60
    linear_residual: float = 1e-2
    fallen_gradient: float = 0.7
    value_rounding: float = 1e-11
    sufficient_decrease: float = 1e-4
    backtrack: float = 0.25
    least_step: float = 1e-8


SETTINGS = InnerSettings()


class _Unbounded(Exception):
    """Stops an inner minimization whose objective falls without end."""


class _NotFinite(Exception):
    """Stops one at numbers that are not finite, so far from the best point."""

    def __init__(self, distance: float) -> None:
        super().__init__(distance)
        self.distance = distance


@dataclass(frozen=True)
class InnerResult:
    """Where an inner minimization ended.

    Attributes:
        point: Its best point.
        unbounded: Whether the objective falls without end, this point being one far down.
        converged: Whether the projected gradient is as small as was asked for.
    """

    point: ScaledPoint
    unbounded: bool = False
    converged: bool = True


class _InnerMinimization:
    """The augmented Lagrangian with its trust region, and the best point so far."""

    def __init__(
        self,
        problem: ScaledProblem,
        x_n: Floats,
        lambda_C: Floats,
        rho: float,
        goal: float,
        radius: float,
        least_f: float,
    ) -> None:
        self.least_f = least_f
        self.problem, self.lambda_C, self.rho, self.goal, self.radius = problem, lambda_C, rho, goal, radius
        self.x_n, (self.value, self.gradient_n) = x_n, problem.evaluate_augmented(x_n, lambda_C, rho)

    def evaluate(self, x_n: Floats) -> tuple[float, Floats]:
        """Return value and gradient, and keep the point if it is the best."""
        value, gradient_n = self.problem.evaluate_augmented(x_n, self.lambda_C, self.rho)
        if not (np.isfinite(value) and np.isfinite(gradient_n).all()):
            raise _NotFinite(float(np.abs(x_n - self.x_n).max()))
        if value < self.value:
            self.x_n, self.value, self.gradient_n = x_n.copy(), value, gradient_n
        if value < self.least_f:
            raise _Unbounded
        return value, gradient_n

    @property
    def converged(self) -> bool:
        return float(np.abs(self.problem.project_gradient(self.gradient_n, self.x_n)).max()) <= self.goal

    def run_lbfgs(self, steps: int) -> None:
        """Minimize by L-BFGS-B in one trust region after the other; return when converged or out of steps."""
        options = {"maxiter": steps, "maxfun": 2 * steps, "maxcor": SETTINGS.lbfgs_memory, "ftol": 0.0, "maxls": 30}
        options["gtol"] = self.goal
        for _ in range(SETTINGS.boxes):
            low_n = np.maximum(self.problem.lower_n, self.x_n - self.radius)
            high_n = np.minimum(self.problem.upper_n, self.x_n + self.radius)
            bounds = list(zip(low_n, high_n, strict=True))
            try:
                result = scipy_minimize(
                    self.evaluate, self.x_n, jac=True, method="L-BFGS-B", bounds=bounds, options=options
                )
            except _NotFinite as bad:
                self.radius = SETTINGS.shrink * bad.distance
                if self.radius < SETTINGS.least_radius * (1 + float(np.abs(self.x_n).max())):
                    return
                continue
            self.radius *= SETTINGS.grow
            at_box = (self.x_n <= low_n) | (self.x_n >= high_n)
            if self.converged or not at_box.any() or result.nit >= steps:
                return

    def run_newton(self) -> None:
        """Take projected Newton steps while they lower the value; raise RuntimeError without second derivatives."""
        for _ in range(SETTINGS.newton_steps):
            if self.converged or not self._search_line(self._newton_step()):
                return

    def run_truncated_newton(self) -> None:
        """Take Newton steps by conjugate gradients on differences of gradients, while these fall: the last digits.

        L-BFGS ends where the value changes by rounding only; gradients are exact further on.
        """
        for _ in range(SETTINGS.truncated_steps):
            largest = self._largest_gradient(self.x_n, self.gradient_n)
            if largest <= self.goal:
                return
            new_n = self.problem.clip(self.x_n + self._conjugate_gradients())
            value, gradient_n = self.problem.evaluate_augmented(new_n, self.lambda_C, self.rho)
            slack = SETTINGS.value_rounding * (1 + abs(self.value))
            if not (np.isfinite(value) and value <= self.value + slack):
                return
            if not self._largest_gradient(new_n, gradient_n) < SETTINGS.fallen_gradient * largest:
                return
            self.x_n, self.value, self.gradient_n = new_n, value, gradient_n

    def _largest_gradient(self, x_n: Floats, gradient_n: Floats) -> float:
        return float(np.abs(self.problem.project_gradient(gradient_n, x_n)).max())

    def _conjugate_gradients(self) -> Floats:
        """Return a truncated Newton step over the free variables (Steihaug 1983); it ends at negative curvature."""
        free_n = self.problem.free_variables(self.gradient_n, self.x_n)
        left_n = np.where(free_n, -self.gradient_n, 0.0)
        step_n, way_n, size = np.zeros_like(left_n), left_n.copy(), float(left_n @ left_n)
        wanted = SETTINGS.linear_residual**2 * size
        unit = self.problem.functions.rounding**0.5 * (1 + float(np.abs(self.x_n).max()))
        for _ in range(SETTINGS.conjugate_gradients):
            length = unit / max(float(np.abs(way_n).max()), 1e-300)
            after_n = self.problem.evaluate_augmented(self.x_n + length * way_n, self.lambda_C, self.rho)[1]
            product_n = np.where(free_n, (after_n - self.gradient_n) / length, 0.0)
            curvature = float(way_n @ product_n)
            if not curvature > 0:
                break
            share = size / curvature
            step_n, left_n = step_n + share * way_n, left_n - share * product_n
            before, size = size, float(left_n @ left_n)
            if size <= wanted:
                break
            way_n = left_n + size / before * way_n
        return step_n

    @np.errstate(over="ignore", invalid="ignore")
    def _search_line(self, step_n: Floats) -> bool:
        """Backtrack along a projected step until the value decreases enough; say whether it did."""
        length = 1.0
        while length > SETTINGS.least_step:
            new_n = self.problem.clip(self.x_n + length * step_n)
            before, decrease = self.value, float(self.gradient_n @ (self.x_n - new_n))
            try:
                value, _ = self.evaluate(new_n)
            except _NotFinite:
                value = np.inf
            if value <= before - SETTINGS.sufficient_decrease * max(decrease, 0.0) and value < before:
                return True
            length *= SETTINGS.backtrack
        return False

    @np.errstate(over="ignore", invalid="ignore")
    def _newton_step(self) -> Floats:
        problem = self.problem
        point = problem.evaluate(self.x_n)
        weight_C = problem.row_weights(self.lambda_C, point.c_C, self.rho)
        active_C = (np.arange(len(weight_C)) >= problem.M) | (weight_C > 0)
        free_n = problem.free_variables(self.gradient_n, self.x_n)
        rows_An = point.jacobian_Cn[active_C][:, free_n]
        hessian_nn = problem.second.hessian(point, weight_C)[np.ix_(free_n, free_n)] + self.rho * rows_An.T @ rows_An
        step_n = np.zeros_like(self.x_n)
        step_n[free_n] = -solve_shifted(hessian_nn, self.gradient_n[free_n])
        return step_n


@np.errstate(over="ignore", invalid="ignore")  # far out; what is not finite is not taken
def solve_shifted(hessian_nn: Floats, gradient_n: Floats) -> Floats:
    """Return ``(H + shift)^-1 gradient`` with the least shift of a ladder that makes H positive definite.

    An H that is not finite, as that of ``|x|^1.5`` at 0, tells nothing: then it is the gradient, no longer than 1.
    """
    if not np.isfinite(hessian_nn).all():
        return gradient_n / max(1.0, float(np.linalg.norm(gradient_n)))
    size = max(float(np.abs(np.diag(hessian_nn)).max(initial=0.0)), 1e-300)
    for shift in (0.0, *(size * 10.0**k for k in range(-12, 3))):
        try:
            factor = cho_factor(hessian_nn + shift * np.eye(len(gradient_n)))
        except LinAlgError:
            continue
        step_n: Floats = cho_solve(factor, gradient_n)
        if np.isfinite(step_n).all() and float(step_n @ gradient_n) >= 0:
            return step_n
    return gradient_n / size


def minimize_augmented(
    problem: ScaledProblem,
    x_n: Floats,
    lambda_C: Floats,
    rho: float,
    goal: float,
    radius: float,
    least_f: float,
    *,
    near: bool = False,
) -> InnerResult:
    """Minimize within bounds until no entry of the projected gradient exceeds ``goal``, or nothing helps.

    radius: the first trust radius, around x_n.  least_f: value at which it stops.  near: a minimum is expected close
    by, so that second derivatives are asked first where they cost little.
    """
    inner = _InnerMinimization(problem, x_n, lambda_C, rho, goal, radius, least_f)
    cheap = near and (len(x_n) <= SETTINGS.cheap_hessian or problem.second.quadratic)
    try:
        for second in (True, False, True) if cheap else (False, True):
            if inner.converged:
                break
            if not second:
                steps = SETTINGS.lbfgs_steps if problem.has_second_derivatives else SETTINGS.lbfgs_steps_alone
                inner.run_lbfgs(steps)
                if not problem.has_second_derivatives and not inner.converged:
                    inner.run_truncated_newton()
            elif problem.has_second_derivatives:
                try:
                    inner.run_newton()
                except RuntimeError:  # no second derivatives
                    problem.smooth = False
                    inner.run_lbfgs(SETTINGS.lbfgs_steps_alone)
    except _Unbounded:
        return InnerResult(problem.evaluate(inner.x_n), unbounded=True)
    return InnerResult(problem.evaluate(inner.x_n), converged=inner.converged)
