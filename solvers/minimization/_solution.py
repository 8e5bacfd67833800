"""What a minimization came to."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
from torch import Tensor

from ..kkt import KKTResiduals
from ..short_repr import ShortRepr
from ..statuses import Status


@dataclass(frozen=True, repr=False)
class Solution(ShortRepr):
    """The answer to ``minimize``, with what speaks for it.

    Attributes:
        x: The point, of x0's shape and dtype.
        objective: f(x).
        multipliers: Of the inequalities, at least 0, shape (M,), in units of f a unit of constraint.
        equality_multipliers: Of the equalities, of either sign, shape (E,), in the same units.
        residuals: The four KKT residuals, from the problem's own gradients at x, bounds included.
        status: How it ended, a word of ``solvers.statuses``: converged, stationary_unverified, infeasible,
            no_multiplier, unbounded, diverged or budget_spent.
        message: The cause, in numbers.
        next_move: What to do.
        history: One row an outer iteration: step, objective, violation, multiplier_change, largest_multiplier, rho,
            evaluations, hessians.
        evaluations: How often f, g and h were called, most with one gradient.
        hessians: How often second derivatives were computed in full.
        penalty: rho of the scaled rows, at the end: where a neighboring problem may begin.
        farkas: Weights of rows that cannot hold together, shape (M + E,), magnitudes summing to 1, of rows in their own
            units; the message says whether that holds everywhere or is local.  None unless infeasible.
    """

    x: Tensor
    objective: float
    multipliers: Tensor
    equality_multipliers: Tensor
    residuals: KKTResiduals
    status: Status
    message: str
    next_move: str
    history: pd.DataFrame = field(repr=False)
    evaluations: int
    hessians: int
    penalty: float
    farkas: Tensor | None = None
