"""Safety measures from functions of one's own.  Axes: ... positions, V classes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data import Group
from ..errors import InvalidInput
from ._rate_measures import Rate, read_bits
from ._safety_measure import SafetyMeasure, clamp_to_unit

ValueFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class RangeSettings:
    """How far measured values may leave [0, 1]; ``tests/safekd/safety/test_measures.py`` notices.

    Attributes:
        below: How far below 0.
        above: How far above 1: sums of probabilities in float32 pass it by rounding.
    """

    below: float = 1e-9
    above: float = 1e-6


_RANGE = RangeSettings()


def require_function(function: object, what: str, name: str) -> None:
    """Raise InvalidInput where an argument of a measure is no function."""
    if not callable(function):
        raise InvalidInput(
            f"`{what}` of {name} is a {type(function).__name__}; wanted a function of (log_p_V, labels)."
        )


def call_function(function: ValueFunction, who: str, log_p_V: Tensor, labels: Tensor) -> Tensor:
    """Return one value a position, (...).  Raises InvalidInput for another shape."""
    value = function(log_p_V, labels)
    if not isinstance(value, Tensor) or value.shape != labels.shape:
        given = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InvalidInput(
            f"{who} gives {given} for labels of shape {tuple(labels.shape)}; wanted one value a position."
        )
    return value if value.is_floating_point() else value.to(log_p_V.dtype)


class Custom(SafetyMeasure):
    """A measure from two functions: what ``measured`` promises, trained through ``surrogate``.

    Both take (log_p_V, labels), of shapes (..., V) and (...), to one value a position, (...).  When read, InvalidInput
    is raised for another shape, for values that leave [0, 1], and for a binary measure that gives anything but 0 and 1;
    NaN is left to the trainer, which names the constraint.

    Args:
        measured: Values in [0, 1]; it needs no gradient.
        surrogate: Its differentiable stand-in; pass the same function twice where it is differentiable.
        critical: Labels on which it is read, every label by default.
        concave: Whether you vouch that it is concave in the distribution.
        binary: Whether each measured value is 0 or 1.
        name: What messages call it.
    """

    def __init__(
        self,
        measured: ValueFunction,
        surrogate: ValueFunction,
        *,
        critical: Collection[Group] | None = None,
        concave: bool = False,
        binary: bool = False,
        name: str = "Custom",
    ) -> None:
        super().__init__(critical)
        for what, function in {"measured": measured, "surrogate": surrogate}.items():
            require_function(function, what, name)
        self._functions = measured, surrogate
        self.concave, self.binary, self.name = concave, binary, name

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        value = call_function(self._functions[0], f"`measured` of {self.name}", log_p_V, labels)
        low, high = float(value.detach().amin()), float(value.detach().amax())
        if low < -_RANGE.below or high > 1 + _RANGE.above:
            raise InvalidInput(f"`measured` of {self.name} gives values from {low:g} to {high:g}; wanted [0, 1].")
        if self.binary and bool(((value != 0) & (value != 1) & ~value.isnan()).any()):
            raise InvalidInput(f"{self.name} is called binary, but `measured` gives other values than 0 and 1.")
        return clamp_to_unit(value)

    def _surrogate(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        return call_function(self._functions[1], f"`surrogate` of {self.name}", log_p_V, labels)

    def __repr__(self) -> str:
        return super().__repr__().replace(type(self).__name__, self.name, 1)


class Counted(Rate):
    """Whether an event of one's own happens, 0 or 1, from its log-odds; trained through the surrogate of the rates.

    The surrogate, ``1 / (1 - log2 q)`` with ``q = sigmoid(s log_odds)``, has a gradient wherever the log-odds have one,
    which a sigmoid of probabilities has not at a fresh student.

    >>> sure = Counted(lambda log_p_V, y: log_p_V.gather(-1, y[..., None])[..., 0] + 0.105)  # above nine tenths
    >>> sure.measured(torch.tensor([[0.95, 0.05], [0.6, 0.4]]).log(), torch.tensor([0, 0]))
    tensor([1., 0.])

    Args:
        log_odds: (log_p_V, labels), of shapes (..., V) and (...), to one value a position, (...); above 0 the event
            happens.  Best a difference of log-probabilities.
        critical: Labels on which it is read, every label by default.
        sharpness: s of the surrogate, above 0.
        name: What messages call it.

    Raises:
        InvalidInput: A setting is out of range, or, when read, values have another shape.
    """

    def __init__(
        self,
        log_odds: ValueFunction,
        *,
        critical: Collection[int] | None = None,
        sharpness: float = 4.0,
        name: str = "Counted",
    ) -> None:
        super().__init__(critical, sharpness)
        require_function(log_odds, "log_odds", name)
        self._log_odds, self.name = log_odds, name

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        log_odds = call_function(self._log_odds, f"`log_odds` of {self.name}", log_p_V, labels)
        return torch.where(log_odds.isnan(), log_odds, (log_odds > 0).to(log_odds))

    def _surrogate(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        return read_bits(self.sharpness * call_function(self._log_odds, f"`log_odds` of {self.name}", log_p_V, labels))

    def __repr__(self) -> str:
        return super().__repr__().replace(type(self).__name__, self.name, 1)
