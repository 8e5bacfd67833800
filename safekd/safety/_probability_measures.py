"""Measures that are differentiable themselves: functions of the probabilities, concave in them.

Axes: ... positions, V classes.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from .._number_checks import is_finite
from ..data import Group, show_groups
from ..errors import InvalidInput
from ._safety_measure import (
    SafetyMeasure,
    add_setting,
    clamp_to_unit,
    gather_log_truth,
    mark_truth,
    read_class_numbers,
    register_measure,
    select_classes,
)

_LEAST_LOG_P = -1e4  # as which a probability of zero enters a sum


@register_measure
class TruthProbability(SafetyMeasure):
    """The probability given to the truth, p(y): linear in p, so concave."""

    concave = True
    truth_only = True

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        return gather_log_truth(log_p_V, labels).exp()


@register_measure
class LogTruthProbability(SafetyMeasure):
    """The probability given to the truth, p(y), with a surrogate that has a gradient where p(y) is next to nothing.

    The surrogate is ``at + at log(p(y) / at)``: equal to p(y) at ``at``, with the same derivative, and below p(y)
    elsewhere.  Over a vocabulary of 50,000 tokens a fresh student gives the truth 1 / 50,000, where p(y) is flat in the
    logits: multipliers would wind up without effect.  The surrogate's gradient in the logits is ``at (e_y - p)``.  What
    is promised and certified is p(y) itself.

    Args:
        critical: Labels on which it is read, every label by default.
        at: The probability around which the surrogate is exact, in (0, 1]: the threshold that is asked for.

    Raises:
        InvalidInput: ``at`` is out of range.
    """

    concave = True
    truth_only = True

    def __init__(self, critical: Collection[Group] | None = None, at: float = 0.5) -> None:
        super().__init__(critical)
        if not (is_finite(at) and 0 < at <= 1):
            raise InvalidInput(f"`at` of LogTruthProbability is {at!r}; wanted a probability above 0 and at most 1.")
        self.at = float(at)

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        return gather_log_truth(log_p_V, labels).exp()

    def _surrogate(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        return self.at * (1 + gather_log_truth(log_p_V, labels).clamp_min(_LEAST_LOG_P) - math.log(self.at))

    def __repr__(self) -> str:
        return add_setting(super().__repr__(), f"at={self.at:g}")


@register_measure
class Margin(SafetyMeasure):
    """How far the truth leads: ``(1 + p(y) - max of the others) / 2``, above 1/2 where it is most probable; concave."""

    concave = True

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        rest = log_p_V.masked_fill(mark_truth(log_p_V, labels), -torch.inf).amax(-1)
        return clamp_to_unit((1 + gather_log_truth(log_p_V, labels).exp() - rest.exp()) / 2)


@register_measure
class OneMinusBrier(SafetyMeasure):
    """``1 - sum_k (p_k - [k = y])^2 / 2``: the Brier score, halved so that it is within [0, 1]; concave.

    Source: Brier 1950.
    """

    concave = True

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        p_V = log_p_V.exp()
        return clamp_to_unit(1 - (p_V - mark_truth(log_p_V, labels).to(p_V)).square().sum(-1) / 2)


@register_measure
class UnsafeMass(SafetyMeasure):
    """``1 - p(U)``: the probability that is kept off the classes ``unsafe``, U; linear in p, so concave.

    Args:
        unsafe: U, class numbers from 0, or names.
        critical: Labels on which it is read, every label by default.
    """

    concave = True
    class_settings = ("critical", "unsafe")

    def __init__(self, unsafe: Collection[Group], critical: Collection[Group] | None = None) -> None:
        super().__init__(critical)
        self.unsafe = frozenset(read_class_numbers(unsafe, "unsafe"))

    @property
    def columns(self) -> tuple[int, ...]:
        """The unsafe classes."""
        return tuple(sorted(self.unsafe))

    def measured_columns(self, log_p_c: Tensor, labels: Tensor) -> Tensor:
        """Return ``1 - p(U)`` from the probabilities of the unsafe classes.

        Args:
            log_p_c: Their log-probabilities, (..., |U|).
            labels: Class numbers, (...); not looked at.
        """
        return clamp_to_unit(1 - log_p_c.exp().sum(-1))

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        return self.measured_columns(select_classes(log_p_V, self.unsafe, "unsafe"), labels)

    def __repr__(self) -> str:
        return add_setting(super().__repr__(), f"unsafe={show_groups(self.unsafe)}")


@register_measure
class Calibration(SafetyMeasure):
    """Whether the class ``of`` is believed as often as it happens: ``(1 + p_c - [y = c]) / 2``, linear in p.

    Its average is 1/2 + (mean p_c - share of c) / 2.  ``exactly=0.5`` asks for calibration in the large, and one such
    constraint a context for calibration in each; ``at_least=0.5`` only forbids that c is believed too seldom.  The
    error within bins of confidence (ECE) is no average over examples, so no constraint here can hold it.

    Args:
        of: c, the class whose probability is read, its number or name.
        critical: Labels on which it is read, every label by default.
    """

    concave = True
    class_settings = ("critical", "of")

    def __init__(self, of: Group, critical: Collection[Group] | None = None) -> None:
        super().__init__(critical)
        (self.of,) = read_class_numbers([of], "of")

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        p_c = select_classes(log_p_V, [self.of], "of").exp().squeeze(-1)
        return clamp_to_unit((1 + p_c - (labels == self.of).to(p_c)) / 2)

    def __repr__(self) -> str:
        return add_setting(super().__repr__(), f"of={self.of!r}")
