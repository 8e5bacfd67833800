"""Minimisation by first-order primal-dual steps: the rules of ``solvers.primal_dual`` on a problem that stands still.

Any dual method with any optimizer of torch, bounds by projection after each step.  What ends it is what ends the other
way: residuals within tolerance, and no direction of descent found.  Axes: C rows, M inequalities first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from ..primal_dual import DualMethod, PrimalDual
from ._newton import Polished, worst_residual
from ._restore import FEASIBLE, violation
from ._search import Search

MakeOptimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]

_LOOK = 10  # steps between two looks at the residuals


def default_optimizer(method: DualMethod) -> MakeOptimizer:
    """Return the optimizer that is used where none is given: Adam needs the damping of a penalty."""
    if method.rho0 > 0:
        return lambda parameters: torch.optim.Adam(parameters, lr=0.02)
    return lambda parameters: torch.optim.SGD(parameters, lr=0.1)


def descend(search: Search, method: DualMethod, make_optimizer: MakeOptimizer, steps: int) -> None:
    """Step until a status is settled or steps are spent; point and multipliers are those of the last look."""
    problem, M = search.problem, search.problem.M
    rows = len(problem.c_scale_C)
    lower, upper = problem.tensor(problem.lower_n), problem.tensor(problem.upper_n)
    x = problem.tensor(search.point.x_n).requires_grad_()
    engine = PrimalDual(M, rows - M, method=method, device=x.device, horizon=steps)
    first_C = torch.from_numpy(problem.user_multipliers(search.lambda_C))
    engine.multipliers, engine.equality_multipliers = first_C[:M] + engine.multipliers.cpu(), first_C[M:]
    optimizer = make_optimizer([x])

    def evaluate() -> tuple[Tensor, Tensor, Tensor]:
        problem.evaluations += 1
        return problem.functions(x)

    for step in range(1, steps + 1):
        engine.step_with(evaluate, optimizer)
        with torch.no_grad():
            x.copy_(torch.minimum(torch.maximum(x, lower), upper))
        if step % _LOOK and step < steps:
            continue
        point = problem.at(x.detach().cpu().numpy().ravel())
        if not point.finite:
            search.status, search.cause = "diverged", f"Values or gradients are not finite after step {step}."
            return
        before_C = search.lambda_C
        search.point = point
        price_C = torch.cat([engine.multipliers, engine.equality_multipliers]).cpu().numpy()
        search.lambda_C = problem.scaled_multipliers(price_C)
        search.change = float(np.abs(search.lambda_C - before_C).max(initial=0.0))
        search.rho = float(torch.cat([engine.rho, engine.equality_rho]).max()) if rows else search.rho
        search.record(step)
        worst = worst_residual(problem, point, search.lambda_C)
        if worst <= search.tolerance and search.verify(Polished(point, search.lambda_C, worst, 0.0)):
            return
        if search.point is not point:  # a stationary point that is no minimum was left
            with torch.no_grad():
                x.copy_(problem.tensor(search.point.x_n))
    last = search.point
    if violation(problem, last) > FEASIBLE:
        search.may_be_feasible()
        if search.status is None:  # a feasible point exists, but it is not where the steps have led
            search.point = last
