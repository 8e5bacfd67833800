"""The door: what is asked, and the answer with what speaks for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import InvalidInput
from ..primal_dual import DualMethod
from ..statuses import Status
from ._least_violation import is_feasible
from ._loop_settings import SETTINGS as OUTER
from ._outer_loop import OuterLoop
from ._solution import Solution
from .engines._bounds_only import finish_within_bounds
from .engines._first_order import MakeOptimizer, default_optimizer, run_first_order
from .engines._programs import finish_program
from .engines._sequential_quadratic import finish_by_sequential_quadratic
from .problem._limits import LimitReached
from .problem._scaled_problem import ScaledProblem
from .problem._user_functions import Bounds, Function, check_limits, check_numbers, read_multipliers


@dataclass(frozen=True)
class MinimizeDefaults:
    """What ``minimize`` does where it is not told; ``benchmarks.primal_dual`` notices steps and tolerances.

    Attributes:
        steps: Outer iterations at most.
        tolerance: On all scaled residuals.
        first_order_steps: Steps at most with a dual method.
        first_order_tolerance: Tolerance with a dual method.
        second_look: Outer iterations at most, past a point without multiplier.
        least_tolerance: Times the rounding error of the functions, the least tolerance that can be met.
    """

    steps: int = 60
    tolerance: float = 1e-8
    first_order_steps: int = 20_000
    first_order_tolerance: float = 1e-4
    second_look: int = 5
    least_tolerance: float = 200.0


DEFAULTS = MinimizeDefaults()

_NEXT_MOVES: dict[Status, str] = {
    "converged": "Nothing; the residuals are the proof.",
    "stationary_unverified": "Start elsewhere and compare objectives.",
    "infeasible": "Relax the rows that `farkas` weighs.",
    "no_multiplier": "Restate the rows so that their gradients do not vanish where they bind, or accept x as it is.",
    "unbounded": "Bound the variables.",
    "diverged": "Bound the variables, or mend what gives numbers that are not finite.",
    "budget_spent": "Allow more steps, loosen the tolerance, or start from x.",
}
_BY_CURVATURE = (
    "Nothing; curvature is the proof. Measure variables in units of their size if residuals are to be small."
)
_AT_A_KINK = "Replace the kink by a smooth function or by rows, |u| by t >= u, t >= -u, or compare f around x."


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
    max_evaluations: int | None = None,
    time_limit: float | None = None,
    method: DualMethod | None = None,
    optimizer: MakeOptimizer | None = None,
    on_step: Callable[[Mapping[str, float]], None] | None = None,
) -> Solution:
    """Minimize ``objective(x)`` subject to ``inequality(x) <= 0``, ``equality(x) = 0`` and bounds.

    Args:
        objective: Function of x that returns one number; like the others differentiable in torch and deterministic.
        x0: Where to start, any shape.  Functions get float64 of that shape on its device, or x0's dtype if they
            refuse float64.
        inequality: Function of x that returns a row of M values, g; None for none.
        equality: Function of x that returns a row of E values, h; None for none.
        bounds: (lower, upper) of x: numbers, tensors that fit x0, or None for no bound.
        multipliers: Of the inequalities, shape (M,), at least 0, to start from as well, such as those of a neighboring
            problem solved before, with its x as x0; a neighbor then costs a few steps.
        equality_multipliers: Of the equalities, shape (E,), likewise.
        penalty: rho to begin with, of scaled rows, above 0; not used with a ``method``.
        tolerance: On all four KKT residuals, 1e-8 by default, 1e-4 with a ``method``.  Objective and rows are each
            divided by the size of their gradient near x0 for that, so that units do not matter; the residuals of the
            answer are in the problem's own units.  Where functions compute in less than float64, it is at least 200
            times their rounding error.
        steps: Outer iterations at most, 60 by default; first-order steps with a ``method``, 20,000 by default.
        max_evaluations: Evaluations at most; None for any number.  Where they are spent, the answer is the best point
            seen: the least objective among points that meet the rows, or the least violation.
        time_limit: Seconds at most, looked at before each evaluation; None for any time.  The answer is as above.
        method: A rule of ``solvers.primal_dual`` instead, such as ``PIGain()``, which moves the multipliers between
            first-order steps on the problem as stated; bounds are kept by projection.
        optimizer: Function from parameters to an optimizer of torch, for ``method``; by default Adam at a rate of
            0.02, plain gradient descent at 0.1 for rules without a penalty.
        on_step: Called with each row of the history.

    Returns:
        The answer, its status among it; nothing is raised where no answer was reached.

    Raises:
        InvalidInput: Something cannot be used, values at x0 that are not finite (``StartNotFinite``) among it.

    Source: augmented Lagrangians, Hestenes 1969, Powell 1969, Rockafellar 1973; the loop, Birgin and Martinez 2014;
    the last digits, Wright 1998.

    >>> s = minimize(lambda x: (x**2).sum(), torch.ones(2), equality=lambda x: x.sum() - 1)
    >>> s.status, s.x.tolist()
    ('converged', [0.5, 0.5])
    """
    first_order = method is not None
    steps = (DEFAULTS.first_order_steps if first_order else DEFAULTS.steps) if steps is None else steps
    if tolerance is None:
        tolerance = DEFAULTS.first_order_tolerance if first_order else DEFAULTS.tolerance
    check_numbers(tolerance, steps, penalty)
    check_limits(max_evaluations, time_limit)
    if optimizer is not None and method is None:
        raise InvalidInput("`optimizer` was given without `method`; choose one, such as solvers.PIGain().")
    warm = method is None and (multipliers is not None or equality_multipliers is not None)
    problem = ScaledProblem(objective, x0, inequality, equality, bounds, own_units=not first_order, warm=warm)
    C = len(problem.c_scale_C)
    given_C = read_multipliers(multipliers, equality_multipliers, problem.M, C - problem.M)
    tolerance = max(tolerance, DEFAULTS.least_tolerance * problem.functions.rounding)
    first_C = np.zeros(C) if given_C is None else problem.scale_multipliers(given_C)
    loop = OuterLoop(problem, problem.start, first_C, penalty, tolerance, on_step)
    problem.limits.evaluations = math.inf if max_evaluations is None else max_evaluations - 1  # one is kept for the end
    problem.limits.seconds = math.inf if time_limit is None else time_limit
    try:
        if method is None:
            _search(loop, steps, warm=warm)
        else:
            run_first_order(loop, method, optimizer or default_optimizer(method), steps)
    except LimitReached:
        spent = problem.limits.used >= problem.limits.evaluations
        _end_at_best(loop, f"{max_evaluations} evaluations" if spent else f"{time_limit:g} seconds")
    return _build_solution(loop, x0)


def _search(loop: OuterLoop, steps: int, *, warm: bool) -> None:
    """Try the engines that fit the problem, cheap ones first, and the outer loop where they settle nothing."""
    if warm and loop.finish_by_newton(warm=True):
        loop.record(0)
        return
    if finish_within_bounds(loop):
        return
    if steps > 1 and (finish_program(loop) or finish_by_sequential_quadratic(loop)):  # they count as a step
        if loop.status == "no_multiplier":
            _look_for_a_multiplier(loop, steps)
        return
    loop.run(steps)


def _look_for_a_multiplier(loop: OuterLoop, steps: int) -> None:
    """Run the outer loop from the start, which may pass by a point without multiplier; keep that if it does not."""
    end = loop.point.x_n, loop.problem.unscale_multipliers(loop.lambda_C), loop.status, loop.cause
    f = loop.point.f * loop.problem.f_scale
    loop.point, loop.lambda_C, loop.status = loop.problem.evaluate(loop.problem.start.x_n), 0 * loop.lambda_C, None
    loop.rho, loop.gap, loop.change, loop.near, loop.saddles = loop.first_rho, math.inf, math.inf, False, []
    loop.run(min(steps, DEFAULTS.second_look))
    found: Status | None = loop.status
    if found != "converged" or loop.point.f * loop.problem.f_scale > f:
        loop.point, loop.lambda_C = loop.problem.evaluate(end[0]), loop.problem.scale_multipliers(end[1])
        loop.status, loop.cause = end[2:]


def _end_at_best(loop: OuterLoop, spent: str) -> None:
    """Take the best point that was seen, once the budget is spent."""
    limits = loop.problem.limits
    limits.evaluations = limits.seconds = math.inf
    if limits.best_n is not None:
        loop.point = loop.problem.evaluate(limits.best_n)
    violation = loop.problem.largest_violation(loop.point)
    loop.status = "budget_spent"
    loop.cause = f"Spent {spent}: x is the best point seen, its rows are missed by {violation:.2g} (scaled)."


def _build_solution(loop: OuterLoop, x0: Tensor) -> Solution:
    problem, point, M = loop.problem, loop.point, loop.problem.M
    status, cause, farkas = loop.status, loop.cause, None
    residuals = problem.residuals(point, loop.lambda_C)
    if status == "infeasible":
        farkas, cause = _describe_conflict(loop)
    elif status is None:
        status, cause = _describe_unfinished(loop)
    multiplier_C = torch.from_numpy(problem.unscale_multipliers(loop.lambda_C))
    return Solution(
        x=torch.from_numpy(point.x_n * problem.unit_n).reshape(x0.shape).to(x0),
        objective=point.f * problem.f_scale,
        multipliers=multiplier_C[:M],
        equality_multipliers=multiplier_C[M:],
        residuals=residuals,
        status=status,
        message=cause,
        next_move=_advise(loop, status),
        history=pd.DataFrame(loop.rows),
        evaluations=problem.evaluations,
        hessians=problem.hessians,
        penalty=loop.rho,
        farkas=farkas,
    )


def _advise(loop: OuterLoop, status: Status) -> str:
    if loop.kink and status == "budget_spent":
        return _AT_A_KINK
    if loop.by_curvature and status == "converged":
        return _BY_CURVATURE
    return _NEXT_MOVES[status]


def _describe_conflict(loop: OuterLoop) -> tuple[Tensor, str]:
    """Return the weights of rows that cannot hold together, in the user's units, and how far that reaches."""
    problem, point, proof = loop.problem, loop.point, loop.proof
    shown_C = problem.violations(point.c_C) if proof is None else proof.weights_C
    farkas = torch.from_numpy(shown_C / problem.c_scale_C)
    missed = (
        f"The rows are missed by {problem.largest_violation(point):.3g} (scaled) and no step from x makes that less"
    )
    scope = {
        "affine": "a linear program confirms it, and the rows are affine wherever looked at: then nothing meets them.",
        "convex": "a linear program confirms it for the rows made linear at x, and weighed by `farkas` they are convex "
        "wherever looked at: then nothing meets them.",
        "curved": "the rows curve, other starts led to no feasible point either, and one may exist all the same. Start "
        "elsewhere if you know better.",
        None: "",
    }
    local = "Local only (this is local): " if loop.shape == "curved" else ""
    return farkas / farkas.abs().sum(), f"{local}{missed}; {scope[loop.shape]}"


def _describe_unfinished(loop: OuterLoop) -> tuple[Status, str]:
    problem = loop.problem
    last = loop.rows[-1] if loop.rows else {}
    if is_feasible(problem, loop.point) and loop.change > loop.settled_change and loop.rho >= OUTER.largest_rho:
        return (
            "no_multiplier",
            f"x is feasible within {problem.largest_violation(loop.point):.1e}, but a multiplier reached "
            f"{last.get('largest_multiplier', 0):.3g} and still grows: at x the gradients of the binding rows vanish "
            "or depend on each other.",
        )
    residuals = problem.residuals(loop.point, loop.lambda_C, scaled=True)
    if loop.kink:
        return (
            "budget_spent",
            "The gradient jumps at x (a kink), where residuals cannot vanish: stationarity "
            f"{residuals.stationarity:.2g}.",
        )
    if loop.unheld:
        return (
            "diverged",
            f"The objective fell to {loop.unheld:.3g} at points that miss rows, and no penalty held it; whether "
            "it has an end where every row is met is not known.",
        )
    if loop.hidden:
        return (
            "stationary_unverified",
            f"The objective falls no more, but stationarity {loop.hidden:.2g} is left, and curvature is too small "
            "beside its rounding to tell whether this is a minimum.",
        )
    missed = [f"{name} {value:.2g}" for name, value in vars(residuals).items() if not value <= loop.tolerance]
    reason = ", ".join(missed) or "multipliers that still move"
    return "budget_spent", f"Ended after {len(loop.rows)} outer steps with {reason}; wanted {loop.tolerance:g}."
