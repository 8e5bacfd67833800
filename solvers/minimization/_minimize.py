"""The door: what is asked, and the answer with what speaks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import InvalidInput
from ..primal_dual import DualMethod
from ._first_order import MakeOptimizer, default_optimizer, descend
from ._inputs import Bounds, Function, check_numbers, start_multipliers
from ._problem import Problem
from ._restore import violation
from ._search import RHO_MAX, Search
from ._solution import Solution, Status

_FEASIBLE_ENOUGH = 1e-6
_COARSE = 200  # times the rounding error of the functions: no tolerance below this can be met
_NEXT: dict[Status, str] = {
    "converged": "Nothing; the residuals are the proof.",
    "stationary_unverified": "Start elsewhere and compare objectives.",
    "infeasible": "Relax the rows that `farkas` weighs.",
    "no_multiplier": "Restate the rows so that their gradients do not vanish where they bind, or accept x as it is.",
    "diverged": "Bound the variables, or mend what gives numbers that are not finite.",
    "budget_spent": "Allow more steps, loosen the tolerance, or start from x.",
}
_SMOOTH = "Replace the kink by a smooth function or by rows, |u| by t >= u, t >= -u, or compare f around x."


def minimize(
    objective: Function,
    x0: Tensor,
    *,
    inequality: Function | None = None,
    equality: Function | None = None,
    bounds: Bounds = None,
    multipliers: Tensor | None = None,
    equality_multipliers: Tensor | None = None,
    penalty: float = 10.0,
    tolerance: float | None = None,
    steps: int | None = None,
    method: DualMethod | None = None,
    optimizer: MakeOptimizer | None = None,
    on_step: Callable[[Mapping[str, float]], None] | None = None,
) -> Solution:
    """Minimise ``objective(x)`` subject to ``inequality(x) <= 0``, ``equality(x) = 0`` and bounds.

    objective: x to one number; inequality, equality: x to a row of values; all differentiable in torch, deterministic.
    x0: where to start, any shape; functions get float64 of that shape on its device, or x0's dtype if they refuse
    float64.  bounds: (lower, upper), numbers, tensors that fit x0, or None.  multipliers (M,), equality_multipliers
    (E,): where to start from as well, such as those of a neighbouring problem solved before, with its x as x0; a
    neighbour then costs a few steps.  penalty: rho to begin with, of scaled rows.  tolerance: on all four KKT
    residuals, 1e-8 by default, objective and rows each divided by the size of its gradient near x0, so that units do
    not matter; the residuals of the answer are in the problem's own units.  Where functions compute in less than
    float64, it is at least 200 times their rounding error.  steps: outer iterations at most, 60 by default.
    on_step: called with each row of the history.

    method: a rule of ``solvers.primal_dual`` instead, such as ``PIGain()``, which moves the multipliers between
    first-order steps of ``optimizer`` (parameters -> an optimizer of torch; by default Adam at a rate of 0.02, plain
    gradient descent at 0.1 for rules without a penalty) on the problem as stated; bounds are kept by projection.
    tolerance is then 1e-4 by default, steps 20,000; penalty is not used.

    Raises InvalidInput for what cannot be used, values at x0 that are not finite among it.
    Source: augmented Lagrangians, Hestenes 1969, Powell 1969, Rockafellar 1973; the loop, Birgin and Martinez 2014;
    the last digits, Wright 1998.

    >>> s = minimize(lambda x: (x**2).sum(), torch.ones(2), equality=lambda x: x.sum() - 1)
    >>> s.status, s.x.tolist()
    ('converged', [0.5, 0.5])
    """
    steps = (60 if method is None else 20_000) if steps is None else steps
    tolerance = (1e-8 if method is None else 1e-4) if tolerance is None else tolerance
    check_numbers(tolerance, steps, penalty)
    if optimizer is not None and method is None:
        raise InvalidInput("`optimizer` was given without `method`; choose one, such as solvers.PIGain().")
    problem = Problem(objective, x0, inequality, equality, bounds)
    C = len(problem.c_scale_C)
    price_C = start_multipliers(multipliers, equality_multipliers, problem.M, C - problem.M)
    tolerance = max(tolerance, _COARSE * problem.functions.digits)
    first_C = np.zeros(C) if price_C is None else problem.scaled_multipliers(price_C)
    search = Search(problem, problem.start, first_C, penalty, tolerance, on_step)
    if method is None:
        search.run(steps, warm=price_C is not None)
    else:
        descend(search, method, optimizer or default_optimizer(method), steps)
    return _solution(search, x0)


def _solution(search: Search, x0: Tensor) -> Solution:
    problem, point, M = search.problem, search.point, search.problem.M
    status, cause, farkas = search.status, search.cause, None
    residuals = problem.residuals(point, search.lambda_C)
    if status == "infeasible":
        farkas, cause = _conflict(search)
    elif status is None:
        status, cause = _unfinished(search)
    price_C = torch.from_numpy(problem.user_multipliers(search.lambda_C))
    return Solution(
        x=torch.from_numpy(point.x_n).reshape(x0.shape).to(x0),
        objective=point.f * problem.f_scale,
        multipliers=price_C[:M],
        equality_multipliers=price_C[M:],
        residuals=residuals,
        status=status,
        message=cause,
        next_move=_SMOOTH if search.kink and status == "budget_spent" else _NEXT[status],
        history=pd.DataFrame(search.rows),
        evaluations=problem.evaluations,
        hessians=problem.hessians,
        penalty=search.rho,
        farkas=farkas,
    )


def _conflict(search: Search) -> tuple[Tensor, str]:
    """Return the weights of rows that cannot hold together, in the user's units, and how far that reaches."""
    problem, point, conflict = search.problem, search.point, search.conflict
    shown_C = problem.missed(point.c_C) if conflict is None else conflict.farkas_C
    farkas = torch.from_numpy(shown_C / problem.c_scale_C)
    missed = f"The rows are missed by {violation(problem, point):.3g} (scaled) and no step from x makes that less"
    reach = {
        "affine": "a linear program confirms it, and the rows are affine wherever looked at: then nothing meets them.",
        "convex": "a linear program confirms it for the rows made linear at x, and weighed by `farkas` they are convex "
        "wherever looked at: then nothing meets them.",
        "curved": "this is local: the rows curve, other starts led to no feasible point either, and one may exist all "
        "the same. Start elsewhere if you know better.",
        None: "",
    }
    return farkas / farkas.abs().sum(), f"{missed}; {reach[search.shape]}"


def _unfinished(search: Search) -> tuple[Status, str]:
    violated = violation(search.problem, search.point)
    last = search.rows[-1] if search.rows else {}
    if violated <= _FEASIBLE_ENOUGH and search.change > search.steady and search.rho >= RHO_MAX:
        return (
            "no_multiplier",
            f"x is feasible within {violated:.1e}, but a multiplier reached {last.get('largest_multiplier', 0):.3g} "
            "and still grows: at x the gradients of the binding rows vanish or depend on each other.",
        )
    found = search.problem.residuals(search.point, search.lambda_C, scaled=True)
    worst = {name: value for name, value in vars(found).items() if not value <= search.tolerance}
    if search.kink:
        return (
            "budget_spent",
            f"The gradient jumps at x (a kink), where residuals cannot vanish: stationarity {found.stationarity:.2g}.",
        )
    said = ", ".join(f"{name} {value:.2g}" for name, value in worst.items()) or "multipliers that still move"
    return "budget_spent", f"Ended after {len(search.rows)} outer steps with {said}; wanted {search.tolerance:g}."
