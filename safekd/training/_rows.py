"""Which constraints are inequalities and which equalities: the engine holds the two apart.  Axes: M constraints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..safety import Constraint


class Rows:
    """Takes a vector over all constraints apart by kind, and puts two such vectors together again."""

    def __init__(self, constraints: Sequence[Constraint], device: torch.device) -> None:
        equal = [rule.is_equality for rule in constraints]
        self.inequalities = torch.tensor([m for m, is_equal in enumerate(equal) if not is_equal], device=device).long()
        self.equalities = torch.tensor([m for m, is_equal in enumerate(equal) if is_equal], device=device).long()

    def in_order(self, constraints: Sequence[Constraint]) -> list[Constraint]:
        """Return constraints in the order in which the engine holds them: inequalities first."""
        return [constraints[m] for m in torch.cat([self.inequalities, self.equalities]).tolist()]

    def apart(self, value_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return what belongs to inequalities, and what to equalities, along the first axis."""
        if len(self.equalities) == 0:
            return value_M, value_M[:0]
        return value_M[self.inequalities], value_M[self.equalities]

    def together(self, inequality: Tensor, equality: Tensor) -> Tensor:
        """Return one vector in the order of the constraints."""
        value_M = inequality.new_empty(len(inequality) + len(equality))
        value_M[self.inequalities], value_M[self.equalities] = inequality, equality.to(inequality)
        return value_M
