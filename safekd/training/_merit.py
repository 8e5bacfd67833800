"""The augmented Lagrangian of a student as a function of one vector, for looking round the place where a run ended.

Its terms are those of ``solvers.lagrangian``.  Axes: n parameters, M constraints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from solvers.lagrangian import equality_weights, inequality_weights, penalty_term

from ..data import Split
from ..safety import Constraint
from ._objective import FullPass, Objective
from .trace import TracePoint

Floats = npt.NDArray[np.float64]


class Merit:
    """Multipliers and penalties are those of ``point``; what is counted moves as its surrogate does from there."""

    def __init__(
        self,
        objective: Objective,
        splits: Mapping[str, Split],
        rules: Sequence[Constraint],
        point: TracePoint,
    ) -> None:
        self.objective, self.splits, self.rules, self.point = objective, splits, rules, point
        self.parameters: list[nn.Parameter] = [p for p in objective.student.parameters() if p.requires_grad]

    def vector(self) -> Floats:
        """Return the student's parameters as one vector."""
        flat: Floats = torch.cat([p.detach().reshape(-1).double().cpu() for p in self.parameters]).numpy()
        return flat

    @torch.no_grad()
    def put(self, x_n: Floats | Tensor) -> None:
        """Put the student at a vector."""
        for p, part in zip(self.parameters, parted(torch.as_tensor(x_n), self.parameters), strict=True):
            p.copy_(part)

    @contextmanager
    def staying(self) -> Iterator[None]:
        """Put the student back, bit for bit, whatever happens inside."""
        start = [p.detach().clone() for p in self.parameters]
        try:
            yield
        finally:
            with torch.no_grad():
                for p, begin in zip(self.parameters, start, strict=True):
                    p.copy_(begin)

    def value(self, x_n: Floats) -> float:
        """Return the augmented Lagrangian at a vector."""
        return self._value(self.read(x_n, with_gradients=False))[0]

    def with_slope(self, x_n: Floats) -> tuple[float, Floats]:
        """Return it and its gradient."""
        full = self.read(x_n, with_gradients=True)
        total, weight_M = self._value(full)
        slope_n = full.gradient_n + full.jacobian_Mn.T @ full.jacobian_Mn.new_tensor(weight_M)
        return total, slope_n.cpu().numpy()

    def read(self, x_n: Floats, *, with_gradients: bool) -> FullPass:
        """Put the student at a vector and read it there."""
        self.put(np.array(x_n))
        return self.objective.full_pass(self.splits["train"], self.splits, self.rules, with_gradients=with_gradients)

    def _value(self, full: FullPass) -> tuple[float, list[float]]:
        then, now = self.point.readings, full.readings
        g_M = np.array([a.required - a.measured + a.surrogate - b.surrogate for a, b in zip(then, now, strict=True)])
        lambda_M = np.array(self.point.multipliers, dtype=np.float64)
        rho_M = np.maximum(np.array(self.point.rho, dtype=np.float64), 10 * (1 + np.abs(lambda_M)))
        equality_M = np.array([reading.equality for reading in then], dtype=bool)
        equal_M, unequal_M = equality_weights(lambda_M, g_M, rho_M), inequality_weights(lambda_M, g_M, rho_M)
        weights = np.where(equality_M, equal_M, unequal_M).tolist()
        total = full.loss
        for price, weight, rho in zip(lambda_M.tolist(), weights, rho_M.tolist(), strict=True):
            total += penalty_term(price, weight, rho)
        return total, weights


def parted(v_n: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Return a vector as one tensor a parameter, alike in shape and type."""
    pieces = torch.split(v_n, [p.numel() for p in parameters])
    return [piece.view_as(p).to(p) for piece, p in zip(pieces, parameters, strict=True)]
