"""The augmented Lagrangian of a scaled problem, and its minimisation for fixed multipliers.

    L_rho(x)  =  f + sum_i [relu(lambda_i + rho g_i)^2 - lambda_i^2] / (2 rho) + mu . h + rho/2 |h|^2

Axes: n variables, M inequalities, E equalities, C = M + E rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize as scipy_minimize

from ._problem import Floats, Point, Problem

_WORST = 1e100  # stands for what is not finite: line searches turn back
_BOTTOM = -1e10  # a scaled objective below this falls without end
_INNER = 2000  # L-BFGS steps


class _Falling(Exception):
    """Stops an inner minimisation that has no bottom."""


@dataclass(frozen=True)
class Inner:
    """Where an inner minimisation ended.  lost: it saw nothing finite, or fell without end."""

    point: Point
    lost: bool


def updated(lambda_C: Floats, c_C: Floats, rho: float, M: int) -> Floats:
    """Return the multipliers after a step: ``relu(lambda + rho g)`` and ``mu + rho h``."""
    moved_C = lambda_C + rho * c_C
    moved_C[:M] = moved_C[:M].clip(min=0)
    return moved_C


def augmented(point: Point, lambda_C: Floats, rho: float, M: int) -> tuple[float, Floats]:
    """Return the augmented Lagrangian at a point, and its gradient."""
    weight_C = updated(lambda_C, point.c_C, rho, M)
    value = point.f + float((weight_C**2 - lambda_C**2).sum()) / (2 * rho)
    slope_n: Floats = point.gradient_n + point.jacobian_Cn.T @ weight_C
    return value, slope_n


def minimise_augmented(problem: Problem, x_n: Floats, lambda_C: Floats, rho: float, goal: float) -> Inner:
    """Minimise by L-BFGS within bounds until no entry of the projected gradient exceeds ``goal``."""
    best: list[Point] = []
    lowest = np.inf

    def see(x_n: Floats) -> tuple[float, Floats]:
        nonlocal lowest
        point = problem.at(x_n)
        if not point.finite:
            return _WORST, np.zeros_like(x_n)
        value, slope_n = augmented(point, lambda_C, rho, problem.M)
        if value < lowest:
            lowest, best[:] = value, [point]
        if value < _BOTTOM:
            raise _Falling
        return value, slope_n

    bounds = list(zip(problem.lower_n, problem.upper_n, strict=True))
    options = {"maxiter": _INNER, "maxfun": 4 * _INNER, "maxcor": 30, "ftol": 0.0, "gtol": goal, "maxls": 40}
    try:
        scipy_minimize(see, x_n, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    except _Falling:
        return Inner(best[0], True)
    return Inner(best[0], False) if best else Inner(problem.at(x_n), True)


def projected(slope_n: npt.NDArray[np.float64], x_n: Floats, problem: Problem) -> Floats:
    """Return the part of a slope that bounds do not hold up."""
    low_n, high_n = problem.on_bounds(x_n)
    free_n: Floats = np.where((low_n & (slope_n > 0)) | (high_n & (slope_n < 0)), 0.0, slope_n)
    return free_n
