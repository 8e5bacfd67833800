"""Minimization by first-order primal-dual steps: the methods of ``solvers.primal_dual`` on a problem that stands still.

Any dual method with any optimizer of torch, bounds by projection after each step.  What ends it is what ends the outer
loop: residuals within tolerance, and no direction of descent.  Axes: C rows, M inequalities first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...primal_dual import DualMethod, PrimalDual
from .._least_violation import is_feasible
from .._newton_kkt import KKTCandidate, largest_residual
from .._outer_loop import OuterLoop

MakeOptimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]


@dataclass(frozen=True)
class FirstOrderSettings:
    """Numbers of first-order runs; ``tests/solvers/minimization/test_minimize_methods.py`` notices them.

    Attributes:
        steps_a_look: Steps between two looks at the residuals.
        adam_rate: Learning rate of the default optimizer where a penalty damps oscillation.
        descent_rate: Learning rate of plain gradient descent, the default for methods without a penalty.
    """

    steps_a_look: int = 10
    adam_rate: float = 0.02
    descent_rate: float = 0.1


SETTINGS = FirstOrderSettings()


def default_optimizer(method: DualMethod) -> MakeOptimizer:
    """Return the optimizer that is used where none is given: Adam needs the damping of a penalty."""
    if method.rho0 > 0:
        return lambda parameters: torch.optim.Adam(parameters, lr=SETTINGS.adam_rate)
    return lambda parameters: torch.optim.SGD(parameters, lr=SETTINGS.descent_rate)


def run_first_order(loop: OuterLoop, method: DualMethod, make_optimizer: MakeOptimizer, steps: int) -> None:
    """Step until a status is settled or steps are spent; point and multipliers are those of the last look."""
    problem, M = loop.problem, loop.problem.M
    rows = len(problem.c_scale_C)
    lower, upper = problem.to_tensor(problem.lower_n), problem.to_tensor(problem.upper_n)
    x = problem.to_tensor(loop.point.x_n).requires_grad_()
    engine = PrimalDual(M, rows - M, method=method, device=x.device, horizon=steps)
    first_C = torch.from_numpy(problem.unscale_multipliers(loop.lambda_C))
    engine.multipliers, engine.equality_multipliers = first_C[:M] + engine.multipliers.cpu(), first_C[M:]
    optimizer = make_optimizer([x])

    def evaluate() -> tuple[Tensor, Tensor, Tensor]:
        problem.limits.spend()
        return problem.functions(x)

    for step in range(1, steps + 1):
        engine.step_with(evaluate, optimizer)
        with torch.no_grad():
            x.copy_(torch.minimum(torch.maximum(x, lower), upper))
        if step % SETTINGS.steps_a_look and step < steps:
            continue
        point = problem.evaluate(x.detach().cpu().numpy().ravel())
        if not point.finite:
            loop.status, loop.cause = "diverged", f"Values or gradients are not finite after step {step}."
            return
        before_C = loop.lambda_C
        loop.point = point
        unscaled_C = torch.cat([engine.multipliers, engine.equality_multipliers]).cpu().numpy()
        loop.lambda_C = problem.scale_multipliers(unscaled_C)
        loop.change = float(np.abs(loop.lambda_C - before_C).max(initial=0.0))
        loop.rho = float(torch.cat([engine.rho, engine.equality_rho]).max()) if rows else loop.rho
        loop.record(step)
        residual = largest_residual(problem, point, loop.lambda_C)
        if residual <= loop.tolerance and loop.verify(KKTCandidate(point, loop.lambda_C, residual, 0.0)):
            return
        if loop.point is not point:  # a saddle was left
            with torch.no_grad():
                x.copy_(problem.to_tensor(loop.point.x_n))
    last = loop.point
    if not is_feasible(problem, last):
        loop.may_be_feasible()
        if loop.status is None:  # a feasible point exists, but it is not where the steps have led
            loop.point = last
