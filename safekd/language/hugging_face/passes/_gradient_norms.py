"""Norms of two gradients over some batches: of the objective, and of the Lagrangian at the multipliers as they are.

Two vectors say all that the KKT residuals need; the second is added up in two halves, whose difference shows how far an
estimate from a sample is off: for means a and b of two halves, (a - b) / 2 has the spread of (a + b) / 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...._precision import widen
from ....distributed import Ranks


class GradientNorms:
    """Adds up gradients of the batches' shares of two sums.

    Args:
        variables: The trained parameters.
    """

    def __init__(self, variables: Sequence[Tensor]) -> None:
        self.variables = list(variables)
        self._objective, *self._halves = (
            [torch.zeros_like(p, dtype=widen(p[:0]).dtype) for p in self.variables] for _ in range(3)
        )
        self._batches = [0, 0]

    def add(self, objective: Tensor, lagrangian: Tensor | None) -> None:
        """Take in one batch.

        Args:
            objective: Its share of the objective, with its graph.
            lagrangian: Its share of the Lagrangian; None where the two are the same.
        """
        half = sum(self._batches) % 2
        self._batches[half] += 1
        into = [self._objective] if lagrangian is not None else [self._objective, self._halves[half]]
        self._differentiate(objective, into, keep=lagrangian is not None)
        if lagrangian is not None:
            self._differentiate(lagrangian, [self._halves[half]], keep=False)

    def _differentiate(self, value: Tensor, into: Sequence[list[Tensor]], keep: bool) -> None:
        if not value.requires_grad:
            return
        parts = torch.autograd.grad(value, self.variables, retain_graph=keep, allow_unused=True)
        for sums in into:
            for total, part in zip(sums, parts, strict=True):
                if part is not None:
                    total += part

    def finish(self, ranks: Ranks) -> tuple[float, float, float]:
        """Return the norms of both gradients over all processes, and the error of the second were the batches a sample.

        Args:
            ranks: Who has added up the other batches.
        """
        first, second = self._halves
        ranks.add_up_in_place([*self._objective, *first, *second])
        lagrangian = _measure_length([a + b for a, b in zip(first, second, strict=True)])
        apart = _measure_length([a - b for a, b in zip(first, second, strict=True)])
        return _measure_length(self._objective), lagrangian, apart if min(self._batches) else math.nan


def _measure_length(parts: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(torch.linalg.vector_norm(part, dtype=torch.float64)) ** 2 for part in parts))
