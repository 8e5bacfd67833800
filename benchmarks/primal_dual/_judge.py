"""Judges a point and its multipliers from the problem's own data, whoever found them.

Solved means: all four residuals of ``solvers.kkt`` within the tolerance, and, where the least objective is known, an
objective that is within 1 % of it; a stationary point of the wrong kind does not count.
Axes: n variables, M inequalities, E equalities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from solvers.kkt import KKTResiduals, kkt_residuals

from ._problems import Problem

TOLERANCE = 1e-3
CLOSE = 1e-2


@dataclass(frozen=True)
class Judgement:
    """What is true of a point.  objective: f there.  gap: (f - best) / (1 + |best|), NaN where best is unknown."""

    residuals: KKTResiduals
    objective: float
    gap: float
    solved: bool

    @property
    def finite(self) -> bool:
        """Whether everything could be worked out."""
        return math.isfinite(self.objective) and all(math.isfinite(v) for v in asdict(self.residuals).values())

    @property
    def fault(self) -> str:
        """Return the worst residual, or that the objective is another's; empty if solved."""
        if self.solved:
            return ""
        if not self.finite:
            return "not finite"
        name, value = max(asdict(self.residuals).items(), key=lambda item: item[1])
        return f"{name} {value:.0e}" if value > TOLERANCE else f"f is off by {abs(self.gap):.0%}"


def judge(problem: Problem, x: Sequence[Tensor], lambda_M: Tensor, mu_E: Tensor) -> Judgement:
    """Work the residuals out at ``x``; bounds that bind get the multipliers that they need."""
    f, g_M, h_E = problem.evaluate(x)
    gradient_n = _jacobian(f.reshape(1), x)[0]
    jacobian_Mn, jacobian_En = _jacobian(g_M, x), _jacobian(h_E, x)
    lambda_M, mu_E = lambda_M.detach().double(), mu_E.detach().double()
    values_M = g_M.detach().double()
    if problem.lower is not None or problem.upper is not None:
        held_n = gradient_n + jacobian_Mn.T @ lambda_M + jacobian_En.T @ mu_E
        jacobian_Mn, values_M, lambda_M = _with_bounds(problem, x, held_n, jacobian_Mn, values_M, lambda_M)
    residuals = kkt_residuals(
        gradient_n,
        jacobian_Mn=jacobian_Mn,
        g_M=values_M,
        lambda_M=lambda_M,
        jacobian_En=jacobian_En,
        h_E=h_E,
        mu_E=mu_E,
    )
    objective = float(f.detach())
    gap = math.nan if problem.best is None else (objective - problem.best) / (1 + abs(problem.best))
    right = problem.best is None or abs(gap) <= CLOSE
    return Judgement(residuals, objective, gap, right and math.isfinite(objective) and residuals.holds(TOLERANCE))


def _with_bounds(
    problem: Problem, x: Sequence[Tensor], held_n: Tensor, jacobian_Mn: Tensor, g_M: Tensor, lambda_M: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Add a row for each bound that binds, with the part of the gradient that it can carry as its multiplier."""
    x_n = torch.cat([part.detach().reshape(-1).double() for part in x])
    eye_nn = torch.eye(len(x_n), dtype=torch.float64)
    rows, values, multipliers = [jacobian_Mn], [g_M], [lambda_M]
    for bound, sign in ((problem.lower, -1.0), (problem.upper, 1.0)):
        if bound is None:
            continue
        over_n = sign * (x_n - bound.double())  # at most 0 inside
        binds = over_n >= -TOLERANCE  # interior points never touch; what is missing shows in complementarity
        rows.append(sign * eye_nn[binds])
        values.append(over_n[binds])
        multipliers.append((-sign * held_n[binds]).clamp_min(0))
    return torch.cat(rows), torch.cat(values), torch.cat(multipliers)


def _jacobian(values: Tensor, x: Sequence[Tensor]) -> Tensor:
    """Return one row a value, float64, all rows in one backward pass: two hundred of them are judged often."""
    size = sum(part.numel() for part in x)
    if not values.numel():
        return torch.zeros(0, size, dtype=torch.float64)
    if not values.requires_grad:
        return torch.zeros(len(values), size, dtype=torch.float64)
    if len(values) == 1:
        parts = torch.autograd.grad(values[0], list(x), retain_graph=True, allow_unused=True)
        parts = [None if part is None else part[None] for part in parts]
    else:
        eye = torch.eye(len(values), dtype=values.dtype)
        parts = torch.autograd.grad(values, list(x), eye, retain_graph=True, allow_unused=True, is_grads_batched=True)
    flat = [
        torch.zeros(len(values), like.numel()).double() if part is None else part.reshape(len(values), -1).double()
        for part, like in zip(parts, x, strict=True)
    ]
    return torch.cat(flat, dim=1)
