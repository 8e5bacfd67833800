"""What all divergences share: two softened distributions, compared term by term.  Axes: ... positions, V classes.

Terms are float32 or wider, their sums float64: within 1e-6 of float64 throughout, for up to 65,536 classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .._number_checks import is_finite
from .._precision import shift_logits
from ..errors import InvalidInput


@dataclass(frozen=True)
class TemperatureSettings:
    """Temperatures that leave something of the logits; ``tests/safekd/test_divergences.py`` notices.

    Attributes:
        least: Below it logits of 1 are thousands apart, as an argmax would have them, and gradients 0 or huge.
        largest: Above it all classes are alike to the precision of float32, and the square of the temperature makes a
            loss out of the rounding.
    """

    least: float = 1e-4
    largest: float = 1e4


SETTINGS = TemperatureSettings()


def require_temperature(temperature: object, given: object = None) -> float:
    """Return a temperature as a float.

    Args:
        temperature: The number.
        given: What it was given in, for the message; None for itself.

    Raises:
        InvalidInput: It is none that leaves something of the logits.
    """
    if not is_finite(temperature) or not SETTINGS.least <= float(temperature) <= SETTINGS.largest:  # type: ignore[arg-type]
        raise InvalidInput(
            f"`temperature` is {temperature if given is None else given!r}; it must be above 0 and finite: a number "
            f"from {SETTINGS.least:g} to {SETTINGS.largest:g}. Most use 1 to 10."
        )
    return float(temperature)  # type: ignore[arg-type]


class Softened:
    """A distribution ``p^(1/T) / Z``, its logarithm kept apart from its normalization.

    Args:
        logits_V: Logits or log-probabilities, (..., V).
        temperature: T, above 0.
    """

    def __init__(self, logits_V: Tensor, temperature: float) -> None:
        self.shifted_V, self.total = shift_logits(logits_V if temperature == 1 else logits_V / temperature)
        self._weight_V = self.shifted_V.exp()

    @property
    def is_zero(self) -> Tensor:
        """Where a probability is zero, bool (..., V)."""
        return self._weight_V == 0

    def log_ratio(self, other: Softened) -> tuple[Tensor, Tensor]:
        """Return ``log p - log other`` in two parts whose sum it is: (..., V), and (...) in float64.

        Args:
            other: About the same classes.

        Returns:
            The first is 0 where p is zero: 0 log 0 = 0, with a finite gradient.
        """
        gap_V = torch.where(self.is_zero, 0.0, self.shifted_V - other.shifted_V)
        return gap_V, other.total.log() - self.total.log()

    def average(self, value_V: Tensor) -> Tensor:
        """Return the expectation of a function of the class, (...), float64.

        Args:
            value_V: Its values, (..., V), 0 where the probability is.
        """
        return (self._weight_V * value_V).sum(-1, dtype=torch.float64) / self.total

    def divergence_from(self, other: Softened) -> Tensor:
        """Return ``KL(p || other)``, (...), float64; infinite where the other leaves out what p has.

        Args:
            other: About the same classes.
        """
        gap_V, shift = self.log_ratio(other)
        return self.average(gap_V) + shift


@dataclass(frozen=True)
class TemperedDivergence(ABC):
    """``temperature^2 D(q^T, p^T)`` of a target q and a student p, both softened; zero exactly when they are equal.

    The square keeps gradients of one size (Hinton, Vinyals and Dean 2015).

    Attributes:
        temperature: T, from 0.0001 to 10,000.

    Raises:
        InvalidInput: It is no such number.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        require_temperature(self.temperature)

    def __call__(self, log_q_V: Tensor, logits_V: Tensor) -> Tensor:
        """Return one loss a position.

        Args:
            log_q_V: Log of the target, (..., V), minus infinity allowed.
            logits_V: The student's logits, (..., V), minus infinity allowed.

        Returns:
            Nats, (...), float64.

        Raises:
            InvalidInput: The shapes differ.
        """
        if log_q_V.shape != logits_V.shape:
            raise InvalidInput(
                f"The target has shape {tuple(log_q_V.shape)}, the student gives {tuple(logits_V.shape)}."
            )
        target, student = Softened(log_q_V, self.temperature), Softened(logits_V, self.temperature)
        return self.temperature**2 * self._compare(target, student)

    @abstractmethod
    def _compare(self, target: Softened, student: Softened) -> Tensor:
        """Return D, (...), float64."""
