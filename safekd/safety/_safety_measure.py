"""Safety measures: f(p, y) in [0, 1] on critical classes, 1 elsewhere (Definition VIII.2).

A measure has two values.  ``measured`` is what is promised to people; ``surrogate`` is what has a gradient.  In
``_probability_measures`` they are the same; in ``_rate_measures`` the first counts and the second is smooth.

``MEASURES`` holds every class that ``@register_measure`` stands at, by its name in snake case; a new measure is a class
there and a name at the door of ``safekd.safety``.  Axes: ... positions, V classes.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from functools import cached_property
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from .._number_checks import is_whole
from .._precision import widen
from .._registry import snake_case
from ..data import Group, GroupNames, mark_groups, show_groups
from ..errors import InvalidInput


class SafetyMeasure(ABC):
    """A bounded measure of how reliable a predictive distribution is on critical classes.

    Args:
        critical: The classes that matter (S of Definition VIII.1), numbers from 0 or names of a split's classes; None
            means every class.

    Attributes:
        class_settings: Its settings that hold classes; a subclass adds its own, so that names are found there too.
        concave: Whether it is concave in the distribution, which Corollary VIII.7 needs.
        binary: Whether each measured value is 0 or 1, which the exact binomial certificate needs.
        truth_only: Whether it reads no probability but that of the label, so that over a large vocabulary no other is
            gathered.

    Source: Definition VIII.2.
    """

    concave: bool = False
    binary: bool = False
    truth_only: bool = False
    class_settings: tuple[str, ...] = ("critical",)

    def __init__(self, critical: Collection[Group] | None = None) -> None:
        self.critical: frozenset[Any] | None = (
            None if critical is None else frozenset(read_class_numbers(critical, "critical"))
        )

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Classes that are given by name, not yet by number; a measure that has some reads nothing."""
        settings = [getattr(self, what) for what in self.class_settings]
        groups: list[Any] = [g for s in settings for g in (s if isinstance(s, frozenset) else (s,))]
        return tuple(sorted(group for group in groups if isinstance(group, str)))

    def with_names(self, names: GroupNames) -> Self:
        """Return the same measure with the numbers of its classes in place of their names.

        Args:
            names: Of a split.

        Raises:
            InvalidInput: The split has no class of that name; the message has those that it has.
        """
        if not self.class_names:
            return self
        measure = copy.copy(self)
        del measure.__dict__["class_names"]
        for what in self.class_settings:
            given = getattr(self, what)
            if given is not None:
                several = isinstance(given, frozenset)
                number = frozenset(names.numbers("class", given)) if several else names.number("class", given)
                setattr(measure, what, number)
        return measure

    def _require_class_numbers(self) -> None:
        if self.class_names:
            raise InvalidInput(
                f"{self!r} names the class '{self.class_names[0]}'; which number that is says a split: "
                "measure.with_names(split.names), for Split(..., class_names=[...])."
            )

    def is_critical(self, labels: Tensor) -> Tensor:
        """Say for each label whether the measure reads it.

        Args:
            labels: Class numbers, (...).

        Returns:
            Bool, (...).
        """
        if self.critical is None:
            return torch.ones_like(labels, dtype=torch.bool)
        self._require_class_numbers()
        return mark_groups(labels, self.critical)

    @property
    def is_differentiable(self) -> bool:
        """Whether what is promised has a gradient itself, so that measured and surrogate are one number."""
        return type(self)._surrogate is SafetyMeasure._surrogate

    def measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        """Return the measured value; 1 where the label is not critical.

        Args:
            log_p_V: Log-probabilities, (..., V), minus infinity allowed; half types are widened.
            labels: Class numbers, (...).

        Returns:
            Values in [0, 1], (...), float32 or wider.

        Raises:
            InvalidInput: The shapes do not fit.
        """
        return self._mask_uncritical(self._measured, log_p_V, labels)

    def surrogate(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        """Return the surrogate value; 1 where the label is not critical.

        Args:
            log_p_V: Log-probabilities, (..., V).
            labels: Class numbers, (...).

        Returns:
            Values in [0, 1], (...), that carry a gradient.

        Raises:
            InvalidInput: The shapes do not fit.
        """
        return self._mask_uncritical(self._surrogate, log_p_V, labels)

    def surrogate_everywhere(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        """Return the surrogate value as if all labels were critical, for callers that choose positions.

        Args:
            log_p_V: Log-probabilities, (..., V).
            labels: Class numbers, (...).

        Returns:
            Values in [0, 1], (...).
        """
        self._require_class_numbers()
        return self._surrogate(widen(log_p_V), labels)

    def measured_everywhere(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        """Return the measured value as if all labels were critical, for callers that choose positions.

        Args:
            log_p_V: Log-probabilities, (..., V).
            labels: Class numbers, (...).

        Returns:
            Values in [0, 1], (...).
        """
        self._require_class_numbers()
        return self._measured(widen(log_p_V), labels)

    @property
    def columns(self) -> tuple[int, ...] | None:
        """The classes whose probabilities it reads, whatever the label; None where the label says it, or all count."""
        return None

    def measured_columns(self, log_p_c: Tensor, labels: Tensor) -> Tensor:
        """Return the measured value from the probabilities of ``columns`` alone; for measures that have some.

        Args:
            log_p_c: Log-probabilities of those classes, (..., columns).
            labels: Class numbers, (...).

        Returns:
            Values in [0, 1], (...).
        """
        raise NotImplementedError(
            f"{type(self).__name__} has `columns`, and does not say how they are measured; give it measured_columns()."
        )

    @abstractmethod
    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        """Return f(p, y) for every position as if all were critical."""

    def _surrogate(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        return self._measured(log_p_V, labels)

    def _mask_uncritical(self, function: Callable[[Tensor, Tensor], Tensor], log_p_V: Tensor, labels: Tensor) -> Tensor:
        self._require_class_numbers()
        if log_p_V.shape[:-1] != labels.shape:
            raise InvalidInput(
                f"Labels of shape {tuple(labels.shape)} do not fit distributions of shape {tuple(log_p_V.shape)}."
            )
        value = function(widen(log_p_V), labels)
        return value if self.critical is None else torch.where(self.is_critical(labels), value, 1.0)

    def __repr__(self) -> str:
        chosen = "" if self.critical is None else f"critical={show_groups(self.critical)}"
        return f"{type(self).__name__}({chosen})"


MEASURES: dict[str, type[SafetyMeasure]] = {}

MeasureClass = TypeVar("MeasureClass", bound=type[SafetyMeasure])


def register_measure(measure: MeasureClass) -> MeasureClass:
    """Enter a class into ``MEASURES`` under its name in snake case, where configurations find it; a decorator.

    Args:
        measure: A subclass of SafetyMeasure; settings without a default are ``unsafe``, ``k`` and ``of``.

    Returns:
        The same class.
    """
    MEASURES[snake_case(measure.__name__)] = measure
    return measure


def read_class_numbers(numbers: Collection[Group], what: str) -> list[Any]:
    """Return class numbers as integers, names as they are: ``SafetyMeasure.with_names`` puts numbers in their place.

    Args:
        numbers: Integers from 0, or names.
        what: What messages call them.

    Returns:
        The same as a list.

    Raises:
        InvalidInput: There are none, or one is no such number.
    """
    if isinstance(numbers, str) or not isinstance(numbers, Collection):
        what_kind = "names" if isinstance(numbers, str) else "numbers"
        raise InvalidInput(f"`{what}` is {numbers!r}; wanted a list of class {what_kind}, such as [{numbers!r}].")
    if len(numbers) == 0:
        raise InvalidInput(
            f"`{what}` is empty, so nothing would be measured; name at least one class"
            + (", or leave it out." if what == "critical" else ".")
        )
    if any(not isinstance(c, str) and (not is_whole(c) or int(c) < 0) for c in numbers):
        raise InvalidInput(f"`{what}` is {list(numbers)!r}; wanted class numbers, integers from 0, or names.")
    return [str(c) if isinstance(c, str) else int(c) for c in numbers]


def sort_classes(classes: Collection[Any]) -> list[Any]:
    """Return class numbers in order, names after them."""
    return sorted(classes, key=lambda c: (isinstance(c, str), c))


def gather_log_truth(log_p_V: Tensor, labels: Tensor) -> Tensor:
    """Return log p(y), (...)."""
    return log_p_V.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def mark_truth(log_p_V: Tensor, labels: Tensor) -> Tensor:
    """Return whether each class is the label, bool, (..., V)."""
    return torch.zeros_like(log_p_V, dtype=torch.bool).scatter(-1, labels.unsqueeze(-1), True)


def select_classes(log_p_V: Tensor, classes: Collection[int], what: str) -> Tensor:
    """Return the log-probabilities of some classes, (..., len(classes)).  Raises InvalidInput for one beyond V."""
    if max(classes) >= log_p_V.shape[-1]:
        raise InvalidInput(
            f"`{what}` names class {max(classes)}, but the student knows only {log_p_V.shape[-1]} classes, from 0."
        )
    return log_p_V[..., sorted(classes)]


def clamp_to_unit(value: Tensor) -> Tensor:
    """Return ``value`` moved into [0, 1], which rounding can leave by an ulp; its gradient stays, as clamp's would not.

    What is no number stays none.
    """
    return value + (value.detach().clamp(0, 1) - value.detach())


def add_setting(text: str, more: str) -> str:
    """Put one more setting in front of those in ``Name(...)``."""
    name, _, settings = text.partition("(")
    return f"{name}({more}{', ' if settings != ')' else ''}{settings}"
