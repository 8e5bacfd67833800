"""Safety measures: f(p, y) in [0, 1] on critical classes, 1 elsewhere (Definition VIII.2).

A measure has two readings.  ``measured`` is what is promised to people; ``surrogate`` is what has a gradient.
For TruthProbability they are the same; for Recall the first counts and the second is smooth.
Axes: ... positions, V classes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidInput


class SafetyMeasure(ABC):
    """A bounded reading of how reliable a predictive distribution is on critical classes.

    critical: the classes that matter (S of Definition VIII.1), numbers from 0; None means every class.
    concave: whether it is concave in the distribution, which Corollary VIII.7 needs.
    binary: whether each measured value is 0 or 1, which the exact binomial certificate needs.
    """

    concave: bool = False
    binary: bool = False

    def __init__(self, critical: Collection[int] | None = None) -> None:
        self.critical = None if critical is None else frozenset(_class_numbers(critical))

    def is_critical(self, labels: Tensor) -> Tensor:
        """Say for each label whether the measure reads it, bool, shape of ``labels``."""
        if self.critical is None:
            return torch.ones_like(labels, dtype=torch.bool)
        return torch.isin(labels, torch.tensor(sorted(self.critical), device=labels.device))

    def measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        """Return the promised reading, (...), in [0, 1]; 1 where the label is not critical.

        log_p_V: log-probabilities, (..., V); labels: (...,) integers.
        """
        return self._everywhere(self._measured, log_p_V, labels)

    def surrogate(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        """Return the differentiable reading, (...), in [0, 1]; 1 where the label is not critical."""
        return self._everywhere(self._surrogate, log_p_V, labels)

    @abstractmethod
    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        """Return f(p, y) for every position as if all were critical."""

    def _surrogate(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        return self._measured(log_p_V, labels)

    def _everywhere(self, reading: Callable[[Tensor, Tensor], Tensor], log_p_V: Tensor, labels: Tensor) -> Tensor:
        if log_p_V.shape[:-1] != labels.shape:
            raise InvalidInput(
                f"Labels of shape {tuple(labels.shape)} do not fit distributions of shape {tuple(log_p_V.shape)}."
            )
        value = reading(log_p_V, labels)
        return torch.where(self.is_critical(labels), value, torch.ones_like(value))

    def __repr__(self) -> str:
        chosen = "" if self.critical is None else f"critical={sorted(self.critical)}"
        return f"{type(self).__name__}({chosen})"


class TruthProbability(SafetyMeasure):
    """The probability given to the truth, p(y): linear in p, so concave."""

    concave = True

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        return _log_truth(log_p_V, labels).exp()


class Recall(SafetyMeasure):
    """Whether the truth is the most probable class, 0 or 1; ties go to the lowest class number, as argmax does.

    sharpness s > 0 sets the surrogate, ``sigmoid(s (log p(y) - log(1 - p(y))))``: at s = 1 it is p(y) itself, and
    it tends to "p(y) > 1/2" as s grows, which for two classes is recall.
    """

    binary = True

    def __init__(self, critical: Collection[int] | None = None, sharpness: float = 4.0) -> None:
        super().__init__(critical)
        if not (sharpness > 0 and math.isfinite(sharpness)):
            raise InvalidInput(f"`sharpness` is {sharpness!r}; it must be above 0 and finite.")
        self.sharpness = sharpness

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        return (log_p_V.argmax(-1) == labels).to(log_p_V.dtype)

    def _surrogate(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        truth = torch.zeros_like(log_p_V, dtype=torch.bool).scatter(-1, labels.unsqueeze(-1), True)
        log_rest = torch.logsumexp(log_p_V.masked_fill(truth, -torch.inf), dim=-1)
        return torch.sigmoid(self.sharpness * (_log_truth(log_p_V, labels) - log_rest))


def _class_numbers(critical: Collection[int]) -> list[int]:
    if not isinstance(critical, Collection):
        raise InvalidInput(f"`critical` is {critical!r}; wanted a list of class numbers, such as [{critical!r}].")
    if len(critical) == 0:
        raise InvalidInput(
            "`critical` is empty, so nothing would be measured; name at least one class, or leave it out."
        )
    if any(isinstance(c, bool) or not isinstance(c, (int, np.integer)) or c < 0 for c in critical):
        raise InvalidInput(f"`critical` is {list(critical)!r}; wanted class numbers, integers from 0.")
    return [int(c) for c in critical]


def _log_truth(log_p_V: Tensor, labels: Tensor) -> Tensor:
    return log_p_V.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
