"""The merit function: the augmented Lagrangian of a student as a function of one vector, round where a run ended.

Its terms are those of ``solvers.lagrangian``.

Source: Nocedal and Wright 2006, chapter 17.  Axes: n parameters, M constraints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from solvers.lagrangian import equality_weights, inequality_weights, penalty_term

from ...data import ExampleSource
from ...safety import Constraint
from .._full_pass import FullPass, read_full_pass
from .._objective import Objective
from .._parameter_vectors import Floats, read_vector, write_vector
from ..trace import TracePoint
from ._evidence_budget import EvidenceMeter


@dataclass(frozen=True)
class MeritSettings:
    """Numbers of the merit function.

    Attributes:
        least_penalty: Penalties are at least so many times one plus the multiplier, so that a minimum of the Lagrangian
            on the constraints is one of the merit function beside them
            (``tests/safekd/training/diagnosis/test_verdicts.py``).
    """

    least_penalty: float = 10.0


SETTINGS = MeritSettings()


class MeritFunction:
    """Augmented Lagrangian with fixed multipliers; a measure that counts moves as its surrogate does from the point.

    Args:
        objective: Holds the student.
        splits: By name, the training split among them.
        constraints: M of them.
        point: Gives multipliers, penalties and the values from which counts move.
        meter: Holds whoever reads it to a budget.
    """

    def __init__(
        self,
        objective: Objective,
        splits: Mapping[str, ExampleSource],
        constraints: Sequence[Constraint],
        point: TracePoint,
        meter: EvidenceMeter,
    ) -> None:
        self.objective, self.splits, self.constraints, self.point = objective, splits, constraints, point
        self.meter = meter
        self.parameters: list[nn.Parameter] = [p for p in objective.student.parameters() if p.requires_grad]
        meter.require_memory((len(constraints) + 1) * sum(p.numel() for p in self.parameters))

    def vector(self) -> Floats:
        """Return the student's parameters as one vector, (n,)."""
        return read_vector(self.parameters)

    @contextmanager
    def restore_afterwards(self) -> Iterator[None]:
        """Put the student back, bit for bit, whatever happens inside."""
        start = [p.detach().clone() for p in self.parameters]
        try:
            yield
        finally:
            with torch.no_grad():
                for p, begin in zip(self.parameters, start, strict=True):
                    p.copy_(begin)

    def value(self, x_n: Floats) -> float:
        """Return the merit at a vector.

        Args:
            x_n: Parameters, (n,).
        """
        return self._merit(self.read(x_n, with_gradients=False))[0]

    def value_and_gradient(self, x_n: Floats) -> tuple[float, Floats]:
        """Return the merit and its gradient, (n,).

        Args:
            x_n: Parameters, (n,).
        """
        full = self.read(x_n, with_gradients=True)
        total, weight_M = self._merit(full)
        gradient_n, jacobian_Mn = full.require_gradients()
        gradient_n = gradient_n + jacobian_Mn.T @ jacobian_Mn.new_tensor(weight_M)
        return total, gradient_n.cpu().numpy()

    def read(self, x_n: Floats, *, with_gradients: bool) -> FullPass:
        """Put the student at a vector and read it there.

        Args:
            x_n: Parameters, (n,).
            with_gradients: Whether gradients are wanted.

        Raises:
            BeyondBudget: The time of this probe is over.
        """
        self.meter.require_time()
        write_vector(self.parameters, x_n)
        return read_full_pass(
            self.objective, self.splits["train"], self.splits, self.constraints, with_gradients=with_gradients
        )

    def _merit(self, full: FullPass) -> tuple[float, list[float]]:
        then, now = self.point.readings, full.readings
        g_M = np.array([a.required - a.measured + a.surrogate - b.surrogate for a, b in zip(then, now, strict=True)])
        lambda_M = np.array(self.point.multipliers, dtype=np.float64)
        rho_M = np.maximum(np.array(self.point.rho, dtype=np.float64), SETTINGS.least_penalty * (1 + np.abs(lambda_M)))
        equality_M = np.array([reading.equality for reading in then], dtype=bool)
        equal_M, unequal_M = equality_weights(lambda_M, g_M, rho_M), inequality_weights(lambda_M, g_M, rho_M)
        weights = np.where(equality_M, equal_M, unequal_M).tolist()
        total = full.loss
        for multiplier, weight, rho in zip(lambda_M.tolist(), weights, rho_M.tolist(), strict=True):
            total += penalty_term(multiplier, weight, rho)
        return total, weights
