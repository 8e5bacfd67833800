"""Rules of the token scale: how sure, how steady and how right each teacher is at a position.

Scores are positive; whoever uses them makes them sum to one.  None has a floor or knows an ordering beyond its own
formula: that is what the projection adds.  Axes: ... positions, K teachers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..signals import Signals
from ._weight_rule import register_rule, require_number


@register_rule
@dataclass(frozen=True)
class EntropyDecay:
    """``exp(-rate H_k)``: the surer a teacher, the heavier.

    Scores are given relative to the surest teacher's, so that no rate makes all of them vanish.

    Attributes:
        rate: At least 0, a nat.

    Source: Family A of Theorem V.2.
    """

    rate: float = 1.0
    scale: ClassVar[str] = "token"
    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number(self, "rate", self.rate, least=0)

    def __call__(self, signals: Signals) -> Tensor:
        """Return raw scores, (..., K).

        Args:
            signals: The signals of a batch.
        """
        return _decay(self.rate, signals.entropy)


@register_rule
@dataclass(frozen=True)
class EntropyInverse:
    """``1 / (H_k + eps)``: inversely proportional to entropy.

    Attributes:
        eps: Above 0, nats; without it a teacher without entropy divides by zero.

    Source: Appendix A of the paper.
    """

    eps: float = 1e-12
    scale: ClassVar[str] = "token"
    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number(self, "eps", self.eps, above=0, why="or a teacher without entropy divides by zero")

    def __call__(self, signals: Signals) -> Tensor:
        """Return raw scores, (..., K).

        Args:
            signals: The signals of a batch.
        """
        return 1 / (signals.entropy + self.eps)


@register_rule
@dataclass(frozen=True)
class EntropyComplement:
    """``(1 - H_k / sum_j H_j) / (K - 1)``: a share of what the others are unsure of.

    Where no teacher has any entropy all weigh the same, and so does a single one.  It jumps there: shares of nearly
    nothing are anything, which is why it does not count as continuous.
    """

    scale: ClassVar[str] = "token"
    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})
    continuous: ClassVar[bool] = False

    def __call__(self, signals: Signals) -> Tensor:
        """Return weights, (..., K), that sum to one.

        Args:
            signals: The signals of a batch.
        """
        total = signals.entropy.sum(-1, keepdim=True)
        share_K = signals.entropy / torch.where(total == 0, 1.0, total)
        return _complement_shares(torch.where(total == 0, 1 / signals.shape[-1], share_K))


@register_rule
@dataclass(frozen=True)
class InverseVariance:
    """``1 / (var_k + eps)``: the steadier over perturbed passes or over a window, the heavier.

    Attributes:
        eps: Above 0; without it a teacher that never varies divides by zero.

    Source: Family B of Theorem V.2.
    """

    eps: float = 1e-6
    scale: ClassVar[str] = "token"
    needs: ClassVar[frozenset[str]] = frozenset({"variance"})
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number(self, "eps", self.eps, above=0, why="or a teacher that never varies divides by zero")

    def __call__(self, signals: Signals) -> Tensor:
        """Return raw scores, (..., K).

        Args:
            signals: The signals of a batch.
        """
        return 1 / (signals.variance + self.eps)


@register_rule
@dataclass(frozen=True)
class Disagreement:
    """``exp(-rate D_k)``: the further a teacher is from the mean of all, the lighter.

    D_k is its KL divergence from that mean, whose average over teachers is their Jensen-Shannon divergence; it is at
    most log K.  Scores are given relative to the nearest teacher's.

    Attributes:
        rate: At least 0, a nat.

    Source: the divergence is Lin's, 1991; weighing by it is ours.
    """

    rate: float = 1.0
    scale: ClassVar[str] = "token"
    needs: ClassVar[frozenset[str]] = frozenset({"disagreement"})
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number(self, "rate", self.rate, least=0)

    def __call__(self, signals: Signals) -> Tensor:
        """Return raw scores, (..., K).

        Args:
            signals: The signals of a batch.
        """
        return _decay(self.rate, signals.disagreement)


@register_rule
@dataclass(frozen=True)
class Confidence:
    """``(1 - softmax_k(CE_k)) / (K - 1)`` with CE_k the cross-entropy on the label; 1 for a single teacher.

    Source: confidence-aware multi-teacher distillation, Zhang, Chen and Wang 2022.
    """

    scale: ClassVar[str] = "token"
    needs: ClassVar[frozenset[str]] = frozenset({"cross_entropy"})
    continuous: ClassVar[bool] = True

    def __call__(self, signals: Signals) -> Tensor:
        """Return weights, (..., K), that sum to one.

        Args:
            signals: The signals of a batch.
        """
        return _complement_shares(torch.softmax(signals.cross_entropy, dim=-1))


@register_rule
@dataclass(frozen=True)
class SafetyBlend:
    """``softmax(-a H_k + b s_k)`` at critical positions, ``softmax(-a H_k)`` elsewhere.

    s_k is a teacher's safety on the token where that was measured (``token_safety``), in the context otherwise.
    Critical positions are those of ``Signals.critical``, all if the signals name none.

    Attributes:
        uncertainty: a, at least 0, a nat.
        safety: b, at least 0: how much a safety in [0, 1] counts.

    Source: Family C of Theorem V.2.
    """

    uncertainty: float = 1.0
    safety: float = 1.0
    scale: ClassVar[str] = "token"
    needs: ClassVar[frozenset[str]] = frozenset({"entropy", "safety", "critical"})
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number(self, "uncertainty", self.uncertainty, least=0)
        require_number(self, "safety", self.safety, least=0)

    def __call__(self, signals: Signals) -> Tensor:
        """Return weights, (..., K), that sum to one.

        Args:
            signals: The signals of a batch.
        """
        known_K = signals.token_safety if signals.has_safety("token") else signals.safety
        bonus_K = self.safety * known_K
        if signals.names_critical:
            bonus_K = torch.where(signals.critical.unsqueeze(-1), bonus_K, 0.0)
        return torch.softmax(bonus_K - self.uncertainty * signals.entropy, dim=-1)


def _decay(rate: float, value_K: Tensor) -> Tensor:
    """Return ``exp(-rate value)``, divided by the largest of them, so that no rate makes all of them vanish."""
    return torch.exp(-rate * (value_K - value_K.amin(-1, keepdim=True)))


def _complement_shares(share_K: Tensor) -> Tensor:
    """Return what is left of one, in equal parts of the others: (1 - share) / (K - 1), and 1 where K = 1."""
    K = share_K.shape[-1]
    return torch.ones_like(share_K) if K == 1 else (1 - share_K) / (K - 1)
