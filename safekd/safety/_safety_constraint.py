"""Safety requirements: what is read of whom, how much is wanted, and on which data it is posed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from .._number_checks import is_finite
from ..data import Batch, ExampleSource, Group, GroupNames, Key
from ..errors import InvalidInput
from ._group_average import Average, GroupSums
from ._mix_balls import Ball
from ._safety_measure import SafetyMeasure


class Constraint(ABC):
    """``value >= required`` or ``value = required``, where ``value = offset + sum_j weight_j average_j``.

    The sums that it needs of data are those of its averages, one after the other; axes: G groups of all averages.

    Attributes:
        name: What tables and CSV columns call it.
        split: Name of the split on which it is posed.
    """

    name: str
    split: str

    @property
    @abstractmethod
    def required(self) -> float:
        """What the value is compared with."""

    @property
    @abstractmethod
    def parts(self) -> Sequence[tuple[float, Average]]:
        """The averages that the value is made of, each with its weight above 0."""

    @abstractmethod
    def with_threshold(self, threshold: float) -> Constraint:
        """Return the same constraint with another threshold.

        Args:
            threshold: What the value is to be compared with.
        """

    @abstractmethod
    def with_split(self, split: str) -> Constraint:
        """Return the same constraint, posed on another split.

        Args:
            split: Name of the split.
        """

    def with_names(self, names: GroupNames) -> Constraint:
        """Return the same constraint with numbers in place of names of classes, contexts and tasks.

        Args:
            names: Of the split on which it is posed.

        Raises:
            InvalidInput: The split has no such name; the message has those that it has.
        """
        return self

    def bind(self, batch: Batch) -> Constraint:
        """Return the constraint as it reads one batch: itself, where labels and groups say all that it needs.

        Args:
            batch: Examples.
        """
        return self

    @property
    def is_equality(self) -> bool:
        """Whether the value is to be met exactly, from both sides."""
        return False

    @property
    def offset(self) -> float:
        """The value where all averages are 0."""
        return 0.0

    @property
    def critical(self) -> frozenset[Group]:
        """The critical classes of all its measures, names where they were given by name."""
        return frozenset().union(*(average.measure.critical or () for _, average in self.parts))

    @property
    def gradient_depends_on_means(self) -> bool:
        """Whether its gradient by the means depends on them: then it is known only after a pass over the data."""
        return any(average.worst is not None for _, average in self.parts)

    def covers(self, batch: Batch) -> Tensor:
        """Say which positions of a batch are averaged.

        Args:
            batch: Examples.

        Returns:
            Bool, shape of the labels.
        """
        return torch.stack([average.covers(batch) for _, average in self.parts]).any(0)

    def counts(self, batch: Batch) -> Tensor:
        """Return how many positions each group has.

        Args:
            batch: Examples.

        Returns:
            Counts, (G,), float64.
        """
        members = [average.members(batch).flatten(1).sum(-1) for _, average in self.parts]
        return torch.cat(members).double()

    def sums(self, log_p_V: Tensor, batch: Batch) -> GroupSums:
        """Return each group's sums over a batch, not means, so that batches and ranks can be added up first.

        Args:
            log_p_V: The student's log-probabilities, (..., V).
            batch: The examples that they are about.

        Returns:
            Sums, (G,) each.
        """
        return GroupSums.concatenate(average.sums(log_p_V, batch) for _, average in self.parts)

    def gradient(self, mean_G: Tensor, count_G: Tensor, *, surrogate: bool = False) -> Tensor:
        """Return the value's gradient by the groups' means, ``value = offset + gradient . means``.

        Args:
            mean_G: Means, (G,).
            count_G: Examples of each group in the data, (G,).
            surrogate: Whether to return that of the surrogate; see Average.gradient.

        Returns:
            (G,), float64, without gradient of its own.
        """
        sizes = [average.size for _, average in self.parts]
        means, counts = torch.split(mean_G, sizes), torch.split(count_G, sizes)
        parts = zip(self.parts, means, counts, strict=True)
        return torch.cat([weight * part.gradient(m, n, surrogate=surrogate) for (weight, part), m, n in parts])

    def resolution(self, gradient_G: Tensor, count_G: Tensor) -> float:
        """Return by how much one example can move the measured value; 0 where it moves smoothly.

        Args:
            gradient_G: Gradient of the value by the groups' means, (G,).
            count_G: Examples of each group, (G,).
        """
        binary_G = torch.cat([torch.full((a.size,), a.measure.binary) for _, a in self.parts]).to(gradient_G.device)
        return float(torch.where(binary_G, gradient_G / count_G, 0.0).max())

    def require_examples(self, split: ExampleSource, count_of_group: Tensor) -> None:
        """Refuse data where a group has no example.

        Args:
            split: The data on which the constraint is to be posed.
            count_of_group: Examples of each group there, ``counts`` over all of them, (G,).

        Raises:
            InvalidInput: A group, which the message names, has none.
        """
        count_G = count_of_group.tolist()
        names = [name for _, average in self.parts for name in average.names(split.names)]
        if not any(count_G):
            raise InvalidInput(
                f"Constraint '{self.name}' covers no example of split '{split.name}'; nothing would be constrained."
            )
        if missing := [name for name, count in zip(names, count_G, strict=True) if count == 0]:
            what = f"{missing[0]} has no covered example" if missing[0] else "one of its terms covers no example"
            raise InvalidInput(
                f"Constraint '{self.name}': {what} in split '{split.name}', so its safety is unknown; "
                "leave it out, or pose the constraint on a split that has some."
            )


@dataclass(frozen=True, repr=False)
class SafetyConstraint(ShortRepr, Constraint):
    """``average of measure >= at_least`` (or ``= exactly``) on the split named ``split``.

    A measure that counts moves in steps, and meets ``exactly`` only where a step lands on it.

    Attributes:
        name: What tables and CSV columns call it.
        measure: What is read, for example ``TruthProbability(critical=[0])``.
        at_least: Threshold in (0, 1].
        contexts: Only examples of these contexts count, numbers or names; None for all.
        split: Name of the data on which it is posed.
        average: "critical" averages over examples with a critical label, so 0.95 is read as it sounds; "all" is
            Definition VIII.3 to the letter, where every uncritical example counts as 1 and so ``safety_all = 1 -
            share_of_critical (1 - safety_critical)``.
        exactly: A threshold to be met from both sides, in (0, 1]; one of ``at_least`` and ``exactly`` is given.
        tasks: Only examples of these tasks count, numbers or names; None for all.
        classes: Only examples with these labels count, numbers or names; None for all.
        mix: The average is over groups weighed by these shares, ``{0: 0.4, 1: 0.6}`` or ``{"day": 0.4, "night": 0.6}``.
        by: What a group is, "context", "task" or "class".
        worst: The least average of any mix in a ball, ``KLBall(0.1)`` or ``ChiSquareBall(0.1)``; see Average.

    Raises:
        InvalidInput: A threshold is outside (0, 1], or settings do not fit together.

    Source: Definition VIII.3.
    """

    name: str
    measure: SafetyMeasure
    at_least: float | None = None
    contexts: Collection[Group] | None = None
    split: str = "train"
    average: str = "critical"
    exactly: float | None = None
    tasks: Collection[Group] | None = None
    classes: Collection[Group] | None = None
    mix: Mapping[Group, float] | None = None
    by: Key = "context"
    worst: Ball | None = None

    def __post_init__(self) -> None:
        require_name(self.name)
        if self.at_least is not None and self.exactly is not None:
            raise InvalidInput(
                f"Safety constraint '{self.name}': at_least is {self.at_least!r} and exactly is {self.exactly!r}; "
                "wanted one of the two."
            )
        what = "at_least" if self.exactly is None else "exactly"
        threshold = getattr(self, what)
        if not is_finite(threshold) or not 0 < threshold <= 1:
            raise InvalidInput(
                f"Safety constraint '{self.name}': {what} is {threshold!r}; safety is a number between 0 and 1, "
                "so the threshold must be above 0 and at most 1."
            )
        _ = self.parts  # whose own checks speak of the measure and of whom it covers

    @property
    def required(self) -> float:
        """The threshold, whether ``at_least`` or ``exactly``."""
        threshold = self.at_least if self.exactly is None else self.exactly
        assert threshold is not None  # __post_init__ has seen to it
        return threshold

    @property
    def is_equality(self) -> bool:
        """Whether the average is to be met exactly, from both sides."""
        return self.exactly is not None

    @cached_property
    def parts(self) -> Sequence[tuple[float, Average]]:
        """The one average that it reads."""
        who = f"Safety constraint '{self.name}'"
        return [
            (
                1.0,
                Average(
                    self.measure,
                    self.contexts,
                    self.tasks,
                    self.classes,
                    self.average,
                    self.mix,
                    self.by,
                    self.worst,
                    who,
                ),
            )
        ]

    def with_names(self, names: GroupNames) -> SafetyConstraint:
        """Return the same constraint with numbers in place of names of classes, contexts and tasks.

        Args:
            names: Of the split on which it is posed.

        Raises:
            InvalidInput: The split has no such name; the message has those that it has.
        """
        ((_, average),) = self.parts
        named = average.with_names(names)
        if named is average:
            return self
        chosen = {what: getattr(named, what) for what in ("measure", "contexts", "tasks", "classes", "mix")}
        return replace(self, **chosen)

    def with_threshold(self, threshold: float) -> SafetyConstraint:
        """Return the same constraint with another threshold.

        Args:
            threshold: In (0, 1].
        """
        return replace(self, exactly=threshold) if self.is_equality else replace(self, at_least=threshold)

    def with_split(self, split: str) -> SafetyConstraint:
        """Return the same constraint, posed on another split.

        Args:
            split: Name of the split.
        """
        return replace(self, split=split)


def require_name(name: str) -> None:
    """Refuse a constraint without a name.

    Args:
        name: What tables and CSV columns are to call it.

    Raises:
        InvalidInput: It is empty, or no text.
    """
    if not isinstance(name, str) or not name:
        raise InvalidInput("A safety constraint needs a name: tables and CSV columns are called after it.")
