"""Rates: measures that count, and the smooth values that have a gradient in their stead.

A surrogate is ``1 / (1 - log2 q)``, where q is the probability, sharpened to the power s, of an event that is at least
as hard as the counted one: above 1/2 the counted one holds.  It is logarithmic where the event is improbable, so that a
fresh student among a thousand classes, and one that is surely wrong, are still shown the way: the gradient by the
log-odds falls with their square only, where that of q itself falls with their exponential.  Once the event is probable
it is flat, so that examples which count already are let alone.  Axes: ... positions, V classes.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from .._number_checks import is_finite, is_whole
from ..data import Group, mark_groups, show_groups
from ..errors import InvalidInput
from ._safety_measure import (
    SafetyMeasure,
    add_setting,
    gather_log_truth,
    mark_truth,
    read_class_numbers,
    register_measure,
    select_classes,
)

_LEAST_LOG_P = -1e4  # as which a probability of zero enters log-odds: of two of them, odds are none


class Rate(SafetyMeasure):
    """A measure that counts an event, 0 or 1, with the surrogate above.

    Args:
        critical: Labels on which it is read, every label by default.
        sharpness: s of the surrogate, above 0.

    Raises:
        InvalidInput: A setting is out of range.
    """

    binary = True

    def __init__(self, critical: Collection[Group] | None, sharpness: float) -> None:
        super().__init__(critical)
        if not (is_finite(sharpness) and sharpness > 0):
            raise InvalidInput(f"`sharpness` is {sharpness!r}; it must be above 0 and finite.")
        self.sharpness = sharpness

    def _read_odds(self, log_for: Tensor, log_against_C: Tensor) -> Tensor:
        """Return ``1 / (1 - log2 q)`` for a class against others, each to the power s: (...) and (..., C) to (...)."""
        s = self.sharpness
        return read_bits(s * log_for - torch.logsumexp(s * log_against_C, dim=-1))


def read_bits(log_odds: Tensor) -> Tensor:
    """Return ``1 / (1 - log2 q)`` of events whose log-odds are log q / (1 - q), (...)."""
    return 1 / (1 + torch.nn.functional.softplus(-log_odds) / math.log(2))


@register_measure
class TopK(Rate):
    """Whether the truth is among the ``k`` most probable classes, 0 or 1; ties go to the lowest class number.

    The surrogate is ``1 / (1 - log2 q)`` with ``q = p(y)^s / (p(y)^s + sum_r p(r)^s)``, where r goes over all other
    classes but the k - 1 most probable of them: with q > 1/2 the truth cannot be outside the first k.

    Args:
        k: How many classes count, at least 1.
        critical: Labels on which it is read, every label by default.
        sharpness: s of the surrogate, above 0.
    """

    def __init__(self, k: int, critical: Collection[Group] | None = None, sharpness: float = 4.0) -> None:
        super().__init__(critical, sharpness)
        if not is_whole(k) or k < 1:
            raise InvalidInput(f"`k` is {k!r}; wanted a whole number of at least 1.")
        self.k = k

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        self._require_more_classes(log_p_V)
        log_p_y = gather_log_truth(log_p_V, labels).unsqueeze(-1)
        earlier = torch.arange(log_p_V.shape[-1], device=labels.device) < labels.unsqueeze(-1)
        ahead = (log_p_V > log_p_y) | ((log_p_V == log_p_y) & earlier)
        return (ahead.sum(-1) < self.k).to(log_p_V.dtype)

    def _surrogate(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        self._require_more_classes(log_p_V)
        log_p_V = log_p_V.clamp_min(_LEAST_LOG_P)
        others_V = log_p_V.masked_fill(mark_truth(log_p_V, labels), -torch.inf)
        if self.k > 1:
            first = others_V.topk(self.k - 1, dim=-1).indices
            others_V = others_V.scatter(-1, first, -torch.inf)
        return self._read_odds(gather_log_truth(log_p_V, labels), others_V)

    def _require_more_classes(self, log_p_V: Tensor) -> None:
        if log_p_V.shape[-1] <= self.k:
            raise InvalidInput(
                f"{self!r} says nothing of a student with {log_p_V.shape[-1]} classes; wanted more than {self.k}."
            )

    def __repr__(self) -> str:
        return add_setting(super().__repr__(), f"k={self.k}")


@register_measure
class Recall(TopK):
    """Whether the truth is the most probable class, 0 or 1; ties go to the lowest class number, as argmax does.

    The surrogate is ``1 / (1 - log2 q(y))`` with ``q = softmax(s logits)``: above 1/2 the truth is the most probable
    class, and as s grows it tends to the measured value.

    Args:
        critical: Labels on which it is read, every label by default.
        sharpness: s of the surrogate, above 0.
    """

    def __init__(self, critical: Collection[Group] | None = None, sharpness: float = 4.0) -> None:
        super().__init__(1, critical, sharpness)

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        return (log_p_V.argmax(-1) == labels).to(log_p_V.dtype)

    def __repr__(self) -> str:
        return SafetyMeasure.__repr__(self)


@register_measure
class Avoids(Rate):
    """Whether the most probable class is none of ``unsafe``, U, 0 or 1: one minus the rate at which U is said.

    With the harmless classes as ``critical`` and the alarming ones as ``unsafe`` it bounds false alarms.  The surrogate
    is ``1 / (1 - log2 q)`` with ``q = r^s / (r^s + sum_U p(u)^s)`` and r the largest probability outside U.

    Args:
        unsafe: U, class numbers from 0, or names.
        critical: Labels on which it is read, every label by default.
        sharpness: s of the surrogate, above 0.
    """

    class_settings = ("critical", "unsafe")

    def __init__(
        self, unsafe: Collection[Group], critical: Collection[Group] | None = None, sharpness: float = 4.0
    ) -> None:
        super().__init__(critical, sharpness)
        self.unsafe = frozenset(read_class_numbers(unsafe, "unsafe"))

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        self._unsafe_log_p(log_p_V)
        return (~mark_groups(log_p_V.argmax(-1), self.unsafe)).to(log_p_V.dtype)

    def _surrogate(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        log_p_V = log_p_V.clamp_min(_LEAST_LOG_P)
        inside = self._unsafe_log_p(log_p_V)
        outside_V = log_p_V.index_fill(-1, torch.tensor(sorted(self.unsafe), device=log_p_V.device), -torch.inf)
        return self._read_odds(outside_V.amax(-1), inside)

    def _unsafe_log_p(self, log_p_V: Tensor) -> Tensor:
        if len(self.unsafe) >= log_p_V.shape[-1]:
            raise InvalidInput(f"`unsafe` names every one of {log_p_V.shape[-1]} classes; leave at least one out.")
        return select_classes(log_p_V, self.unsafe, "unsafe")

    def __repr__(self) -> str:
        return add_setting(super().__repr__(), f"unsafe={show_groups(self.unsafe)}")
