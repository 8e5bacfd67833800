"""Rules that score teachers.  Scores are positive; they are made to sum to one by whoever uses them.

None of them has a floor or knows an ordering beyond its own formula: that is what the projection adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InvalidInput
from ._signals import Signals


@dataclass(frozen=True)
class Uniform:
    """Every teacher alike; classical distillation (Proposition VI.6)."""

    scale: ClassVar[str] = "any"

    def __call__(self, signals: Signals) -> Tensor:
        """Return 1/K, (..., K)."""
        return signals.ones() / signals.shape[-1]


@dataclass(frozen=True)
class EntropyDecay:
    """``exp(-rate H_k)``: the surer a teacher, the heavier; Family A of Theorem V.2.  rate >= 0, a nat.

    Scores are given relative to the surest teacher's, so that no rate makes all of them vanish.
    """

    rate: float = 1.0
    scale: ClassVar[str] = "token"

    def __post_init__(self) -> None:
        if not (self.rate >= 0 and math.isfinite(self.rate)):
            raise InvalidInput(f"`rate` of EntropyDecay is {self.rate!r}; it must be at least 0 and finite.")

    def __call__(self, signals: Signals) -> Tensor:
        """Return raw scores, (..., K)."""
        return torch.exp(-self.rate * (signals.entropy - signals.entropy.amin(-1, keepdim=True)))


@dataclass(frozen=True)
class EntropyInverse:
    """``1 / (H_k + eps)``, the rule of the paper's Appendix A.  eps > 0, nats."""

    eps: float = 1e-12
    scale: ClassVar[str] = "token"

    def __post_init__(self) -> None:
        _require_positive(self.eps, "EntropyInverse")

    def __call__(self, signals: Signals) -> Tensor:
        """Return raw scores, (..., K)."""
        return 1 / (signals.entropy + self.eps)


@dataclass(frozen=True)
class InverseLoss:
    """``1 / (loss_k(t) + eps)`` with losses measured beforehand; the task scale of Family A.  eps > 0, nats."""

    eps: float = 1e-3
    scale: ClassVar[str] = "task"

    def __post_init__(self) -> None:
        _require_positive(self.eps, "InverseLoss")

    def __call__(self, signals: Signals) -> Tensor:
        """Return raw scores, (..., K)."""
        return 1 / (signals.task_loss + self.eps)


@dataclass(frozen=True)
class OrdinalSafety:
    """``rank_k ^ power`` by safety in the position's context: 1 for the least safe, ties alike; Family A.

    The rank of teacher k is the number of distinct safety values up to its own, so only the order counts.
    power >= 0: 0 ignores safety, larger ones favour the safest more.
    """

    power: float = 1.0
    scale: ClassVar[str] = "context"

    def __post_init__(self) -> None:
        if not (self.power >= 0 and math.isfinite(self.power)):
            raise InvalidInput(f"`power` of OrdinalSafety is {self.power!r}; it must be at least 0 and finite.")

    def __call__(self, signals: Signals) -> Tensor:
        """Return raw scores, (..., K)."""
        sorted_K, order_K = signals.safety.sort(dim=-1)
        new_K = torch.ones_like(sorted_K)
        new_K[..., 1:] = (sorted_K.diff(dim=-1) > 0).to(sorted_K)
        rank_K = torch.empty_like(sorted_K).scatter(-1, order_K, new_K.cumsum(-1))
        return rank_K**self.power


def _require_positive(eps: float, rule: str) -> None:
    if not (eps > 0 and math.isfinite(eps)):
        raise InvalidInput(
            f"`eps` of {rule} is {eps!r}; it must be above 0 and finite, or a perfect teacher divides by zero."
        )
