"""A safety measure from two functions.  Axes: ... positions, V classes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from torch import Tensor

from ..data import Group
from ..errors import InvalidInput
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
            if not callable(function):
                raise InvalidInput(
                    f"`{what}` of {name} is a {type(function).__name__}; wanted a function of (log_p_V, labels)."
                )
        self._functions = measured, surrogate
        self.concave, self.binary, self.name = concave, binary, name

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        value = self._call_function(self._functions[0], "measured", log_p_V, labels)
        low, high = float(value.detach().amin()), float(value.detach().amax())
        if low < -_RANGE.below or high > 1 + _RANGE.above:
            raise InvalidInput(f"`measured` of {self.name} gives values from {low:g} to {high:g}; wanted [0, 1].")
        if self.binary and bool(((value != 0) & (value != 1) & ~value.isnan()).any()):
            raise InvalidInput(f"{self.name} is called binary, but `measured` gives other values than 0 and 1.")
        return clamp_to_unit(value)

    def _surrogate(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        return self._call_function(self._functions[1], "surrogate", log_p_V, labels)

    def _call_function(self, function: ValueFunction, what: str, log_p_V: Tensor, labels: Tensor) -> Tensor:
        value = function(log_p_V, labels)
        if not isinstance(value, Tensor) or value.shape != labels.shape:
            given = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise InvalidInput(
                f"`{what}` of {self.name} gives {given} for labels of shape {tuple(labels.shape)}; "
                "wanted one value a position."
            )
        return value if value.is_floating_point() else value.to(log_p_V.dtype)

    def __repr__(self) -> str:
        return super().__repr__().replace(type(self).__name__, self.name, 1)
