"""What a minimisation came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pandas as pd
from torch import Tensor

from ..kkt import KKTResiduals

Status = Literal["converged", "stationary_unverified", "infeasible", "no_multiplier", "diverged", "budget_spent"]


@dataclass(frozen=True)
class Solution:
    """The answer to ``minimize``, with what speaks for it.

    x: of x0's shape and dtype.  objective: f(x).  multipliers (M,), equality_multipliers (E,): in units of f a unit of
    constraint.  residuals: KKT, from the problem's own gradients at x, bounds included.  status:

        converged               all four residuals are within the tolerance, and no direction of descent is left
        stationary_unverified   residuals are within it, but something falls along the constraints
        infeasible              the violation is as small as it gets near x; ``farkas`` says which rows conflict, and
                                the message whether that holds everywhere or is local
        no_multiplier           x is feasible and nearly stationary, but multipliers grow without end
        diverged                something was not finite, or f falls without end
        budget_spent            neither of these was shown in time

    message: the cause; next_move: what to do.  farkas: weights (M + E,) of rows that cannot hold together, sum of
    magnitudes 1, in the rows' own units; None unless infeasible.  history: a row an outer iteration.  evaluations: of
    f, g, h, most with one gradient.  hessians: second derivatives in full.  penalty: rho of scaled rows, at the end.
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
