"""Sums and counts as one float64 vector: what processes add up.  Axes: n numbers, M constraints, G groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import torch
from torch import Tensor

from ..safety import Constraint, GroupSums

_KINDS = len(fields(GroupSums))


class SumLayout:
    """Where each sum stands in the vector: some single numbers, then the sums of each constraint's groups.

    Args:
        numbers: How many single numbers.
        constraints: M of them.

    Attributes:
        length: n; eight bytes each are what a step sends.
    """

    def __init__(self, numbers: int, constraints: Sequence[Constraint]) -> None:
        self._numbers = numbers
        self._groups = [sum(average.size for _, average in rule.parts) for rule in constraints]
        self.length = numbers + _KINDS * sum(self._groups)

    def pack(self, numbers: Tensor, groups: Mapping[int, GroupSums]) -> Tensor:
        """Return the vector, (n,), float64.

        Args:
            numbers: The single numbers.
            groups: Sums of each constraint's groups, by its number; zeros where there are none.
        """
        parts = [numbers.double()]
        for m, size in enumerate(self._groups):
            if m in groups:
                parts += [getattr(groups[m], field.name).detach().to(parts[0]) for field in fields(GroupSums)]
            else:
                parts.append(numbers.new_zeros(_KINDS * size, dtype=torch.float64))
        return torch.cat(parts)

    def unpack(self, vector_n: Tensor) -> tuple[Tensor, dict[int, GroupSums]]:
        """Return the single numbers, and the sums of each constraint's groups by its number.

        Args:
            vector_n: What ``pack`` made, added up, (n,).
        """
        sizes = [self._numbers, *(_KINDS * size for size in self._groups)]
        numbers, *pieces = torch.split(vector_n, sizes)
        return numbers, {m: GroupSums(*piece.chunk(_KINDS)) for m, piece in enumerate(pieces)}
