"""The outer loop: multipliers and penalty between inner minimisations, and when to stop.

Multipliers step after each inner solve; rho grows where violations do not fall fast enough (Birgin and Martinez 2014).
A point counts as solved only when its multipliers stand still too: where no multiplier exists they grow for ever while
the residuals look small.  Axes: n variables, M inequalities, E equalities, C = M + E rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import InvalidInput
from ..kkt import KKTResiduals
from ._augmented import augmented, minimise_augmented, projected, updated
from ._conflict import conflict_at
from ._curvature import falling_direction
from ._problem import Floats, Function, Point, Problem
from ._solution import Solution, Status

_RHO, _GROWTH, _RHO_MAX = 10.0, 10.0, 1e14
_FALL = 0.25  # what is left of a violation after an outer step that made progress
_STEADY = 1e-5  # relative change of multipliers that stand still
_ESCAPES = 5
_SMALL = 1e-6  # violations below this, of scaled rows, are feasible enough to speak of multipliers
_NEXT = {
    "converged": "Nothing; the residuals are the proof.",
    "stationary_unverified": "Start elsewhere and compare objectives.",
    "infeasible": "Relax the rows that `farkas` weighs, or start elsewhere if the rows are not convex.",
    "no_multiplier": "Restate the rows so that their gradients do not vanish where they bind, or accept x as it is.",
    "diverged": "Bound the variables, or mend what gives numbers that are not finite.",
    "budget_spent": "Allow more steps, loosen the tolerance, or start from x.",
}


@dataclass
class _Search:
    """What changes while the loop runs.  lambda_C: multipliers of scaled rows."""

    point: Point
    lambda_C: Floats
    rho: float = _RHO
    missed: float = math.inf
    still: int = 0
    escapes: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)


def minimize(
    objective: Function,
    x0: Tensor,
    *,
    inequality: Function | None = None,
    equality: Function | None = None,
    bounds: tuple[Tensor | float | None, Tensor | float | None] | None = None,
    tolerance: float = 1e-8,
    steps: int = 60,
    on_step: Callable[[Mapping[str, float]], None] | None = None,
) -> Solution:
    """Minimise ``objective(x)`` subject to ``inequality(x) <= 0``, ``equality(x) = 0`` and bounds.

    objective: x to one number; inequality, equality: x to a row of values; all differentiable in torch, deterministic.
    x0: where to start, any shape; functions get float64 of that shape on its device.  bounds: (lower, upper), numbers,
    tensors that fit x0, or None.  tolerance: on all four KKT residuals, objective and rows each divided by the size of
    its gradient at x0, so that units do not matter; the residuals of the answer are in the problem's own units.
    steps: outer iterations at most.  on_step: called with each row of the history.

    Raises InvalidInput for what cannot be used, values at x0 that are not finite among it.
    Source: augmented Lagrangians, Hestenes 1969, Powell 1969, Rockafellar 1973; the loop, Birgin and Martinez 2014.

    >>> s = minimize(lambda x: (x**2).sum(), torch.ones(2), equality=lambda x: x.sum() - 1)
    >>> s.status, s.x.tolist()
    ('converged', [0.5, 0.5])
    """
    if not isinstance(x0, Tensor):
        raise InvalidInput(f"`x0` is a {type(x0).__name__}; wanted a tensor, e.g. torch.zeros(3).")
    if not (tolerance > 0 and math.isfinite(tolerance)) or steps < 1:
        raise InvalidInput(f"`tolerance` is {tolerance!r} and `steps` {steps!r}; wanted above 0, and at least 1.")
    problem = Problem(objective, x0, inequality, equality, bounds)
    search = _Search(problem.start, np.zeros(len(problem.c_scale_C)))
    status: Status | None = None
    goal, cause = 1e-2, ""
    for step in range(steps):
        inner = minimise_augmented(problem, search.point.x_n, search.lambda_C, search.rho, goal)
        if inner.lost:
            status, cause = "diverged", _lost(inner.point)
            break
        _advance(problem, search, inner.point, step, tolerance)
        if on_step is not None:
            on_step(search.rows[-1])
        settled = problem.residuals(search.point, search.lambda_C, scaled=True).holds(tolerance)
        if settled and search.rows[-1]["multiplier_change"] <= _STEADY:
            status, cause = _verified(problem, search)
        if status is not None:
            break
        if search.still >= 3 and _is_infeasible(problem, search):
            status = "infeasible"
            break
        if search.rho >= _RHO_MAX:
            break
        goal = max(goal * 0.1, 0.1 * tolerance)
    return _solution(problem, search, x0, status, cause, tolerance)


def _advance(problem: Problem, search: _Search, point: Point, step: int, tolerance: float) -> None:
    """Take the multiplier step at the point of an inner solve, and let rho grow if the violation did not fall."""
    before_C, M = search.lambda_C, problem.M
    after_C = updated(before_C, point.c_C, search.rho, M)
    # what is missed, complementarity included: a row that is slack counts as far as its multiplier goes
    gap_C = np.where(np.arange(len(after_C)) < M, np.maximum(point.c_C, -before_C / search.rho), point.c_C)
    missed = float(np.abs(gap_C).max(initial=0.0))
    change = float(np.abs(after_C - before_C).max(initial=0.0)) / (1 + float(np.abs(after_C).max(initial=0.0)))
    violated = violation(point, M)
    search.still = search.still + 1 if violated > _SMALL and missed > 0.9 * search.missed else 0
    search.point, search.lambda_C = point, after_C
    search.rows.append(
        {
            "step": step,
            "objective": point.f * problem.f_scale,
            "violation": violated,
            "multiplier_change": change,
            "largest_multiplier": float(np.abs(problem.user_multipliers(after_C)).max(initial=0.0)),
            "rho": search.rho,
            "evaluations": problem.evaluations,
        }
    )
    # within tolerance more of rho only costs digits, unless it is to find out whether multipliers have an end
    if missed > _FALL * search.missed and (missed > tolerance or change > _STEADY):
        search.rho *= _GROWTH
    search.missed = missed


def violation(point: Point, M: int) -> float:
    """Return the largest violation of the scaled rows."""
    return float(np.concatenate([point.c_C[:M].clip(min=0), np.abs(point.c_C[M:])]).max(initial=0.0))


def _verified(problem: Problem, search: _Search) -> tuple[Status | None, str]:
    """Look for descent along the constraints: the status if it is settled, None after stepping off a false minimum."""
    try:
        direction_n = falling_direction(problem, search.point, search.lambda_C)
    except ValueError as unseen:
        return "converged", f"Residuals are within tolerance; curvature was not looked at for {unseen}."
    except RuntimeError:
        return "converged", "Residuals are within tolerance; the functions have no second derivatives to look at."
    if direction_n is None:
        return "converged", "Residuals are within tolerance, and nothing falls along the constraints."
    if search.escapes == _ESCAPES:
        return (
            "stationary_unverified",
            "Residuals are within tolerance, but something falls along the constraints.",
        )
    search.escapes += 1
    stride = 1e-2 * (1 + float(np.abs(search.point.x_n).max()))
    sides = [
        problem.at(np.clip(search.point.x_n + sign * stride * direction_n, problem.lower_n, problem.upper_n))
        for sign in (1, -1)
    ]
    values = [augmented(p, search.lambda_C, search.rho, problem.M)[0] if p.finite else math.inf for p in sides]
    search.point, search.missed = sides[int(values[1] < values[0])], math.inf
    return None, ""


def _is_infeasible(problem: Problem, search: _Search) -> bool:
    """Say whether the violation is stationary: its own gradient vanishes at a violated point."""
    point, M = search.point, problem.M
    missed_C = np.concatenate([point.c_C[:M].clip(min=0), point.c_C[M:]])
    slope_n = projected(point.jacobian_Cn.T @ missed_C, point.x_n, problem)
    size = float(np.linalg.norm(missed_C))
    steepest = max(1.0, float(np.abs(point.jacobian_Cn).max(initial=0.0)))
    return size > _SMALL and float(np.linalg.norm(slope_n)) <= 1e-3 * size * steepest


def _lost(point: Point) -> str:
    if not point.finite:
        return "Objective, rows or gradients were not finite wherever the search looked."
    return "The augmented objective falls without end."


def _solution(
    problem: Problem, search: _Search, x0: Tensor, status: Status | None, cause: str, tolerance: float
) -> Solution:
    point, M = search.point, problem.M
    price_C = torch.from_numpy(problem.user_multipliers(search.lambda_C))
    residuals = problem.residuals(point, search.lambda_C)
    farkas = None
    if status is None:
        status, cause = _unfinished(search, violation(point, M), residuals, tolerance)
    if status == "infeasible":
        conflict = conflict_at(problem, point, _SMALL)
        shown_C = point.c_C[:M].clip(min=0) if conflict is None else conflict.farkas_C
        shown_C = np.concatenate([shown_C[:M], point.c_C[M:] if conflict is None else conflict.farkas_C[M:]])
        farkas = torch.from_numpy(shown_C / np.abs(shown_C).sum() / problem.c_scale_C)
        farkas = farkas / farkas.abs().sum()
        proof = "a linear program confirms it for the rows made linear there" if conflict else "by its own gradient"
        cause = f"The rows are missed by {violation(point, M):.3g} (scaled) and no step makes that less; {proof}."
    return Solution(
        x=torch.from_numpy(point.x_n).reshape(x0.shape).to(x0),
        objective=point.f * problem.f_scale,
        multipliers=price_C[:M],
        equality_multipliers=price_C[M:],
        residuals=residuals,
        status=status,
        message=cause,
        next_move=_NEXT[status],
        history=pd.DataFrame(search.rows),
        evaluations=problem.evaluations,
        farkas=farkas,
    )


def _unfinished(search: _Search, violated: float, residuals: KKTResiduals, tolerance: float) -> tuple[Status, str]:
    last: dict[str, Any] = search.rows[-1] if search.rows else {}
    change, largest = last.get("multiplier_change", 0.0), last.get("largest_multiplier", 0.0)
    if violated <= _SMALL and change > _STEADY and search.rho >= _RHO_MAX:
        return (
            "no_multiplier",
            f"x is feasible within {violated:.1e}, but a multiplier reached {largest:.3g} and still grows: at x the "
            "gradients of the binding rows vanish or depend on each other.",
        )
    worst = {name: value for name, value in vars(residuals).items() if not value <= tolerance}
    said = ", ".join(f"{name} {value:.2g}" for name, value in worst.items()) or "multipliers still move"
    return "budget_spent", f"Ended after {len(search.rows)} outer steps with {said}; wanted {tolerance:g}."
