"""Rules of the task scale: how well each teacher does on a task, and which way it moves the student.

Gradients are by the student's logits, averaged over the positions of a task in the batch; they are known without a
backward pass.  Axes: ... positions, K teachers, M tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from solvers.simplex_qp import minimize_quadratic

from ...errors import InvalidInput
from ..signals import Signals
from ._weight_rule import register_rule, require_number


@register_rule
@dataclass(frozen=True)
class InverseLoss:
    """``1 / (loss_k(t) + eps)`` with losses measured beforehand.

    Attributes:
        eps: Above 0, nats; without it a perfect teacher divides by zero.

    Source: Family A of Theorem V.2.
    """

    eps: float = 1e-3
    scale: ClassVar[str] = "task"
    needs: ClassVar[frozenset[str]] = frozenset({"task_loss"})
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number(self, "eps", self.eps, above=0, why="or a perfect teacher divides by zero")

    def __call__(self, signals: Signals) -> Tensor:
        """Return raw scores, (..., K).

        Args:
            signals: The signals of a batch.
        """
        return 1 / (signals.task_loss + self.eps)


@register_rule
@dataclass(frozen=True)
class PerformanceSoftmax:
    """``softmax(performance_k(t) / temperature)``, of accuracy say.

    Attributes:
        temperature: Above 0, in units of performance: the smaller, the more the best one gets.

    Source: Family C of Theorem V.2.
    """

    temperature: float = 0.1
    scale: ClassVar[str] = "task"
    needs: ClassVar[frozenset[str]] = frozenset({"performance"})
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number(self, "temperature", self.temperature, above=0)

    def __call__(self, signals: Signals) -> Tensor:
        """Return weights, (..., K), that sum to one.

        Args:
            signals: The signals of a batch.
        """
        return torch.softmax(signals.performance / self.temperature, dim=-1)


@register_rule
@dataclass(frozen=True)
class GradientAlignment:
    """``softmax(cos(g_k, g) / sharpness)``: teachers whose gradient points where that of the labels does.

    g_k is the gradient of the divergence from teacher k, g that of the labels' cross-entropy.

    Attributes:
        temperature: Above 0; softens teachers and student.
        sharpness: Above 0: the smaller, the more the best aligned one gets.
        least_norm: A gradient shorter than this has no direction and counts as at right angles.

    Source: Family B of Theorem V.2.
    """

    temperature: float = 1.0
    sharpness: float = 1.0
    least_norm: float = 1e-12
    scale: ClassVar[str] = "task"
    needs: ClassVar[frozenset[str]] = frozenset({"log_p", "student_log_p", "labels", "task"})
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number(self, "temperature", self.temperature, above=0)
        require_number(self, "sharpness", self.sharpness, above=0)

    def __call__(self, signals: Signals) -> Tensor:
        """Return weights, (..., K), that sum to one.

        Args:
            signals: The signals of a batch.
        """
        gradient_KV = signals.student_gradient(self.temperature)
        label_V = compute_label_gradient(signals)
        inner_K = signals.spread_task_average((gradient_KV * label_V.unsqueeze(-2)).sum(-1))
        size_K = signals.spread_task_average(gradient_KV.square().sum(-1)).sqrt()
        size = signals.spread_task_average(label_V.square().sum(-1)).sqrt().unsqueeze(-1)
        least = max(self.least_norm, torch.finfo(size.dtype).tiny)
        return torch.softmax(inner_K / (size_K * size).clamp_min(least) / self.sharpness, dim=-1)


@register_rule
@dataclass(frozen=True)
class GradientMinNorm:
    """The shortest common gradient: ``argmin_a 1/2 |sum_k a_k g_k|^2 + ridge/2 |a - 1/K|^2``, sum 1, 0 <= a_k <= cap.

    Attributes:
        ridge: At least 0: with 0 the weights jump where gradients are equal (.4 to .6 between neighbors); any ridge
            above 0 makes them Lipschitz in the gradients.
        cap: Heaviest weight, 1/K to 1.
        temperature: Above 0; softens teachers and student.

    Source: the multiple-gradient descent algorithm, Desideri 2012; for teachers Du et al. 2020 (AE-KD).
    """

    ridge: float = 1e-2
    cap: float = 1.0
    temperature: float = 1.0
    scale: ClassVar[str] = "task"
    needs: ClassVar[frozenset[str]] = frozenset({"log_p", "student_log_p", "task"})

    def __post_init__(self) -> None:
        require_number(self, "ridge", self.ridge, least=0)
        require_number(self, "temperature", self.temperature, above=0)
        require_number(self, "cap", self.cap, above=0)

    @property
    def continuous(self) -> bool:
        """Only with a ridge."""
        return self.ridge > 0

    def __call__(self, signals: Signals) -> Tensor:
        """Return weights, (..., K), that sum to one; no gradient flows through them.

        Args:
            signals: The signals of a batch.

        Raises:
            InvalidInput: ``cap`` leaves no weights for so few teachers.
        """
        K = signals.shape[-1]
        if self.cap * K < 1:
            raise InvalidInput(
                f"`cap` of GradientMinNorm is {self.cap:g}; {K} teachers need at least {1 / K:g} to sum to 1."
            )
        gradient_KV = signals.student_gradient(self.temperature).detach()
        gram_KK, position = signals.tabulate_by_task(gradient_KV @ gradient_KV.transpose(-1, -2))
        gram_KK = gram_KK.double()
        ridge_KK = self.ridge * torch.eye(K, dtype=gram_KK.dtype, device=gram_KK.device)
        linear_K = gram_KK.new_full(gram_KK.shape[:-1], self.ridge / K)
        weights_MK = minimize_quadratic(gram_KK + ridge_KK, linear_K, upper=self.cap)
        return weights_MK[position].to(signals.ones())


def compute_label_gradient(signals: Signals) -> Tensor:
    """Return the gradient of the label's cross-entropy by the student's logits, (..., V)."""
    s_V = signals.student_log_p.exp()
    return s_V - torch.zeros_like(s_V).scatter(-1, signals.true_classes.unsqueeze(-1), 1.0)
