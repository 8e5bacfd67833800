"""How constraints are laid out: which are inequalities and which equalities, and which thresholds counts can attain.

The engine holds inequalities and equalities apart.  A measure that counts takes values in steps: the average of
``count`` zeros and ones is a multiple of 1/count, so asking for 0.75 of ten examples is asking for 0.8.  Posed so, the
multiplier has a value at which it rests; posed at 0.75 it would rise below and fall above for ever.
Sums and counts of all constraints travel as one vector, ``SumLayout``.  Axes: M constraints, G groups, n numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TypeGuard

import torch
from torch import Tensor

from ..safety import Constraint, GroupSums, SafetyConstraint

_KINDS = len(fields(GroupSums))


class ConstraintLayout:
    """Splits a vector over all constraints by kind, and joins two such vectors again.

    Args:
        constraints: In the order of the problem.
        device: Where the vectors are.
    """

    def __init__(self, constraints: Sequence[Constraint], device: torch.device) -> None:
        equal = [rule.is_equality for rule in constraints]
        self.inequalities = torch.tensor([m for m, is_equal in enumerate(equal) if not is_equal], device=device).long()
        self.equalities = torch.tensor([m for m, is_equal in enumerate(equal) if is_equal], device=device).long()

    def order_by_kind(self, constraints: Sequence[Constraint]) -> list[Constraint]:
        """Return constraints in the order in which the engine holds them: inequalities first.

        Args:
            constraints: In the order of the problem.
        """
        return [constraints[m] for m in torch.cat([self.inequalities, self.equalities]).tolist()]

    def split_by_kind(self, value_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return what belongs to inequalities, and what to equalities, along the first axis.

        Args:
            value_M: One entry a constraint along the first axis, (M, ...).
        """
        if len(self.equalities) == 0:
            return value_M, value_M[:0]
        return value_M[self.inequalities], value_M[self.equalities]

    def join_kinds(self, inequality: Tensor, equality: Tensor) -> Tensor:
        """Return one vector in the order of the problem, (M,).

        Args:
            inequality: One entry an inequality.
            equality: One entry an equality.
        """
        value_M = inequality.new_empty(len(inequality) + len(equality))
        value_M[self.inequalities], value_M[self.equalities] = inequality, equality.to(inequality)
        return value_M


def is_single_average(rule: Constraint) -> TypeGuard[SafetyConstraint]:
    """Say whether a constraint is one average, at least so high, over examples that all count alike.

    Args:
        rule: Any constraint.
    """
    return isinstance(rule, SafetyConstraint) and not rule.is_equality and rule.mix is None and rule.worst is None


def attainable_threshold(rule: Constraint, count: Tensor) -> Tensor:
    """Return the least value at or above the threshold that ``count`` examples can average to, a float64 scalar.

    The threshold itself where the measure does not count, or the constraint is more than one average.

    Args:
        rule: Any constraint.
        count: Examples averaged, a scalar.
    """
    wanted = torch.full_like(count, rule.required, dtype=torch.float64)
    if not is_single_average(rule) or not rule.measure.binary:
        return wanted
    return torch.ceil(wanted * count - 1e-9) / count.clamp_min(1)


class SumLayout:
    """Where each sum stands in one float64 vector, as processes add it up.

    Some single numbers come first, then the sums of each constraint's groups.

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
