"""One budget for the harm that several safety measures show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from solvers.short_repr import ShortRepr

from .._number_checks import is_finite
from ..data import GroupNames
from ..errors import InvalidInput
from ._group_average import Average
from ._safety_constraint import Constraint, require_name
from ._safety_measure import SafetyMeasure


@dataclass(frozen=True, repr=False)
class Budget(ShortRepr, Constraint):
    """``sum_j cost_j (1 - safety_j) <= at_most``: one constraint, one multiplier, in units of the budget.

    Tables show it as a safety like the others: its value is ``1 - spent``, its threshold ``1 - at_most``; both may lie
    below 0 where costs sum to more than 1.

    Attributes:
        name: What tables and CSV columns call it.
        terms: Pairs (cost, what is read); the latter a measure, or an ``Average`` of one over some contexts or a mix.
            Costs are above 0 and need not sum to 1.
        at_most: The budget, at least 0 and below the sum of costs.
        split: Name of the data on which it is posed.

    Raises:
        InvalidInput: Settings do not fit together.
    """

    name: str
    terms: Sequence[tuple[float, SafetyMeasure | Average]]
    at_most: float
    split: str = "train"

    def __post_init__(self) -> None:
        require_name(self.name)
        if len(self.terms) == 0:
            raise InvalidInput(f"Budget '{self.name}' has no terms; wanted pairs such as (1.0, kd.safety.Recall([0])).")
        for cost, _ in self.terms:
            if not (is_finite(cost) and cost > 0):
                raise InvalidInput(f"Budget '{self.name}': a cost is {cost!r}; wanted a number above 0.")
        total = sum(cost for cost, _ in self.terms)
        if not is_finite(self.at_most) or not 0 <= self.at_most < total:
            raise InvalidInput(
                f"Budget '{self.name}': at_most is {self.at_most!r}; the costs sum to {total:g}, so the budget must be "
                "at least 0 and below that."
            )
        _ = self.parts

    @property
    def required(self) -> float:
        """What ``1 - spent`` must reach."""
        return 1 - self.at_most

    @property
    def offset(self) -> float:
        """The value where every safety is 0."""
        return 1 - sum(cost for cost, _ in self.terms)

    @cached_property
    def parts(self) -> Sequence[tuple[float, Average]]:
        """What is read, each with its cost."""
        who = f"Budget '{self.name}'"
        return [
            (float(cost), term if isinstance(term, Average) else Average(term, who=who)) for cost, term in self.terms
        ]

    def with_names(self, names: GroupNames) -> Budget:
        """Return the same budget with numbers in place of names of classes, contexts and tasks.

        Args:
            names: Of the split on which it is posed.

        Raises:
            InvalidInput: The split has no such name; the message has those that it has.
        """
        terms = [(cost, term.with_names(names)) for cost, term in self.terms]
        return (
            self
            if all(new is old for (_, new), (_, old) in zip(terms, self.terms, strict=True))
            else replace(self, terms=terms)
        )

    def with_threshold(self, threshold: float) -> Budget:
        """Return the same budget with the threshold ``1 - at_most`` moved.

        Args:
            threshold: What ``1 - spent`` must reach.
        """
        return replace(self, at_most=1 - threshold)

    def with_split(self, split: str) -> Budget:
        """Return the same budget, posed on another split.

        Args:
            split: Name of the split.
        """
        return replace(self, split=split)
