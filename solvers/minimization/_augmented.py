"""The augmented Lagrangian of a scaled problem, minimised within bounds for fixed multipliers.

    L_rho(x)  =  f + sum_i [relu(lambda_i + rho g_i)^2 - lambda_i^2] / (2 rho) + mu . h + rho/2 |h|^2

L-BFGS first, one gradient a step.  Where it comes to no end, second derivatives take over if there are any: projected
Newton steps (Bertsekas 1982).  Both move inside a box around the best point, which shrinks at numbers that are not
finite and grows where it is in the way.  Axes: n variables, M inequalities, E equalities, C = M + E rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize as scipy_minimize

from ._point import Floats, Point, weights
from ._problem import Problem

DENSE = 2000  # variables: beyond, second derivatives in full do not fit
_CHEAP = 300  # up to here a Hessian costs less than the gradients that it saves
_BOTTOM = -1e10  # a scaled objective below this falls without end
_BFGS = 250  # steps of L-BFGS before second derivatives are asked
_ALONE = 2000  # and where they cannot be had
_NEWTON = 30
_BOXES = 40
_SHRINK, _GROW = 0.3, 10.0


class _Falling(Exception):
    """Stops an inner minimisation that has no bottom."""


class _NotFinite(Exception):
    """Stops an inner minimisation at a point where something is not finite."""

    def __init__(self, distance: float) -> None:
        super().__init__(distance)
        self.distance = distance


@dataclass(frozen=True)
class Inner:
    """Where an inner minimisation ended.  falling: without end, this point being one far down.  done: goal reached."""

    point: Point
    falling: bool = False
    done: bool = True


def augmented(point: Point, lambda_C: Floats, rho: float, M: int) -> tuple[float, Floats]:
    """Return the augmented Lagrangian at a point, and its gradient."""
    weight_C = weights(lambda_C, point.c_C, rho, M)
    value = point.f + float((weight_C**2 - lambda_C**2).sum()) / (2 * rho)
    slope_n: Floats = point.gradient_n + point.jacobian_Cn.T @ weight_C
    return value, slope_n


class _Descent:
    """One inner minimisation: the function with its box, and the best point so far."""

    def __init__(self, problem: Problem, x_n: Floats, lambda_C: Floats, rho: float, goal: float, radius: float):
        self.problem, self.lambda_C, self.rho, self.goal, self.radius = problem, lambda_C, rho, goal, radius
        self.x_n, (self.value, self.slope_n) = x_n, problem.augmented(x_n, lambda_C, rho)

    def see(self, x_n: Floats) -> tuple[float, Floats]:
        value, slope_n = self.problem.augmented(x_n, self.lambda_C, self.rho)
        if not (np.isfinite(value) and np.isfinite(slope_n).all()):
            raise _NotFinite(float(np.abs(x_n - self.x_n).max()))
        if value < self.value:
            self.x_n, self.value, self.slope_n = x_n.copy(), value, slope_n
        if value < _BOTTOM:
            raise _Falling
        return value, slope_n

    @property
    def done(self) -> bool:
        return float(np.abs(self.problem.projected(self.slope_n, self.x_n)).max()) <= self.goal

    def by_gradients(self, most: int) -> None:
        """Minimise by L-BFGS-B in one box after the other; return when done or out of steps."""
        for _ in range(_BOXES):
            low_n = np.maximum(self.problem.lower_n, self.x_n - self.radius)
            high_n = np.minimum(self.problem.upper_n, self.x_n + self.radius)
            options = {"maxiter": most, "maxfun": 2 * most, "maxcor": 30, "ftol": 0.0, "gtol": self.goal, "maxls": 30}
            bounds = list(zip(low_n, high_n, strict=True))
            try:
                found = scipy_minimize(self.see, self.x_n, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
            except _NotFinite as bad:
                self.radius = _SHRINK * bad.distance
                if self.radius < 1e-12 * (1 + float(np.abs(self.x_n).max())):
                    return
                continue
            self.radius *= _GROW
            at_box = (self.x_n <= low_n) | (self.x_n >= high_n)
            if self.done or not at_box.any() or found.nit >= most:
                return

    def by_curvature(self) -> None:
        """Take projected Newton steps while they lower the value; raise RuntimeError without second derivatives."""
        for _ in range(_NEWTON):
            if self.done:
                return
            step_n = self._newton_step()
            length = 1.0
            while length > 1e-8:
                new_n = np.clip(self.x_n + length * step_n, self.problem.lower_n, self.problem.upper_n)
                before, fall = self.value, float(self.slope_n @ (self.x_n - new_n))
                try:
                    value, _ = self.see(new_n)
                except _NotFinite:
                    value = np.inf
                if value <= before - 1e-4 * max(fall, 0.0) and value < before:
                    break
                length *= 0.25
            else:
                return

    def _newton_step(self) -> Floats:
        problem = self.problem
        point = problem.at(self.x_n)
        weight_C = weights(self.lambda_C, point.c_C, self.rho, problem.M)
        active_C = (np.arange(len(weight_C)) >= problem.M) | (weight_C > 0)
        low_n, high_n = problem.on_bounds(self.x_n)
        free_n = ~((low_n & (self.slope_n > 0)) | (high_n & (self.slope_n < 0)))
        rows_An = point.jacobian_Cn[active_C][:, free_n]
        curved = problem.model.at(point, weight_C)[np.ix_(free_n, free_n)] + self.rho * rows_An.T @ rows_An
        step_n = np.zeros_like(self.x_n)
        step_n[free_n] = -downhill(curved, self.slope_n[free_n])
        return step_n


def downhill(hessian_nn: Floats, slope_n: Floats) -> Floats:
    """Return ``(H + shift)^-1 slope`` with the least shift of a ladder that makes H positive definite.

    An H that is not finite, as that of ``|x|^1.5`` at 0, tells nothing: then it is the slope, no longer than 1.
    """
    if not np.isfinite(hessian_nn).all():
        return slope_n / max(1.0, float(np.linalg.norm(slope_n)))
    size = max(float(np.abs(np.diag(hessian_nn)).max(initial=0.0)), 1e-300)
    for shift in (0.0, *(size * 10.0**k for k in range(-12, 3))):
        try:
            factor = cho_factor(hessian_nn + shift * np.eye(len(slope_n)))
        except LinAlgError:
            continue
        found: Floats = cho_solve(factor, slope_n)
        if np.isfinite(found).all() and float(found @ slope_n) >= 0:
            return found
    return slope_n / size


def minimise_augmented(
    problem: Problem, x_n: Floats, lambda_C: Floats, rho: float, goal: float, radius: float, *, near: bool = False
) -> Inner:
    """Minimise within bounds until no entry of the projected gradient exceeds ``goal``, or nothing helps.

    radius: how far the first box reaches from x_n.  near: a minimum is expected close by, so that second derivatives
    are asked first where they cost little.
    """
    descent = _Descent(problem, x_n, lambda_C, rho, goal, radius)
    dense = len(x_n) <= DENSE
    cheap = near and (len(x_n) <= _CHEAP or problem.model.quadratic)
    try:
        for curved in (True, False, True) if cheap else (False, True):
            if descent.done:
                break
            if not curved:
                descent.by_gradients(_BFGS if problem.smooth and dense else _ALONE)
            elif problem.smooth and dense:
                try:
                    descent.by_curvature()
                except RuntimeError:  # no second derivatives
                    problem.smooth = False
                    descent.by_gradients(_ALONE)
    except _Falling:
        return Inner(problem.at(descent.x_n), True)
    return Inner(problem.at(descent.x_n), done=descent.done)
