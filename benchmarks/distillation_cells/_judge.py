"""Reads students over the whole split, from the data alone, whoever trained them.

Values are read at every look.  Gradients, for stationarity, are worked out at the last look and wherever the three
other residuals already pass and nothing passed before.  Axes: M constraints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvers.kkt import KKTResiduals, gradients, kkt_residuals

from ._problem import Setup

TOLERANCE = 1e-3  # of all four residuals, and of the violation up to which a student counts as feasible
STRICT = 1e-4  # of the violation, where what the tolerance is worth in loss must not decide


@dataclass(frozen=True)
class Look:
    """A student as the judge saw it.

    Args:
        step: After how many steps.
        loss: Mean KL divergence to the target.
        margin_M: Safety minus threshold, one a constraint.
        residuals: At the contender's own multipliers; stationarity is not a number where it was not worked out.
    """

    step: int
    loss: float
    margin_M: tuple[float, ...]
    residuals: KKTResiduals

    @property
    def margin(self) -> float:
        """Safety minus threshold of the worst constraint; not a number where one of them is none."""
        return math.nan if any(map(math.isnan, self.margin_M)) else min(self.margin_M)

    @property
    def violation(self) -> float:
        """By how much the worst constraint is missed; not a number where one of them is none."""
        return math.nan if math.isnan(self.margin) else max(0.0, -self.margin)  # max(0, nan) would be 0

    @property
    def feasible(self) -> bool:
        """Whether no constraint is missed by more than TOLERANCE."""
        return self.meets(TOLERANCE)

    def meets(self, tolerance: float) -> bool:
        """Say whether no constraint is missed by more than a tolerance; never where something is not a number.

        Args:
            tolerance: At least 0, in units of safety.

        Returns:
            Whether it is so.
        """
        return math.isfinite(self.loss) and all(margin >= -tolerance for margin in self.margin_M)

    @property
    def solved(self) -> bool:
        """Whether all four residuals are within the tolerance."""
        return self.residuals.holds(TOLERANCE)

    @property
    def finite(self) -> bool:
        """Whether loss and safety are numbers."""
        return math.isfinite(self.loss) and all(map(math.isfinite, self.margin_M))


class Judge:
    """Looks at one run.

    Args:
        setup: The cell and seed of the run.
    """

    def __init__(self, setup: Setup) -> None:
        self.problem = setup.problem()
        self.solved = False

    def look(self, step: int, x: Sequence[Tensor], lambda_M: Tensor, last: bool = False) -> Look:
        """Return what is true of a student.

        Args:
            step: After how many steps.
            x: Its parameters, in the order of ``Setup.student``; not modified.
            lambda_M: The multipliers that its trainer holds.
            last: Whether gradients are wanted in any case.

        Returns:
            Loss, margins and residuals.
        """
        held = [part.detach().requires_grad_() for part in x]
        with torch.no_grad():
            f, g_M, _ = self.problem.evaluate(held)
        quick = _residuals(torch.zeros(1), torch.zeros(len(g_M), 1), g_M, lambda_M)
        reading = Look(step, float(f), tuple((-g_M).tolist()), replace(quick, stationarity=math.nan))
        if last or (not self.solved and quick.holds(TOLERANCE)):
            f, g_M, _ = self.problem.evaluate(held)
            rows = gradients([f, *g_M], held)
            reading = replace(reading, residuals=_residuals(rows[0], rows[1:], g_M, lambda_M))
            self.solved = self.solved or reading.solved
        return reading


def _residuals(gradient_n: Tensor, jacobian_Mn: Tensor, g_M: Tensor, lambda_M: Tensor) -> KKTResiduals:
    return kkt_residuals(gradient_n, jacobian_Mn=jacobian_Mn, g_M=g_M, lambda_M=lambda_M)
