"""Reverse Kullback-Leibler divergence."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ._tempered_divergence import Softened, TemperedDivergence


@dataclass(frozen=True)
class ReverseKL(TemperedDivergence):
    """``temperature^2 KL(p^T || q^T)`` of student p and target q; mode-seeking.

    Infinite where the target leaves out a class that the student has.

    Attributes:
        temperature: T, above 0 and finite.

    Raises:
        InvalidInput: It is not.

    Source: MiniLLM, Gu, Dong, Wei and Huang 2024.
    """

    def _compare(self, target: Softened, student: Softened) -> Tensor:
        return student.divergence_from(target)
