"""Rules that belong to no scale.  Axes: ... positions, K teachers, V classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ...pooling import arithmetic_pool
from ..signals import Signals, soften
from ._weight_rule import register_rule, require_number


@dataclass(frozen=True)
class DivergenceDescentSettings:
    """When exponentiated gradient stops; ``tests/safekd/weights/test_weighting_rules.py`` compares it with cvxpy.

    Attributes:
        steps: How many steps at most; at strength 1 each halves the distance from the optimum, 40 reach rounding.
        tolerance: Largest change of a weight in a step at which it has arrived.
    """

    steps: int = 500
    tolerance: float = 1e-10


@register_rule
@dataclass(frozen=True)
class Uniform:
    """Every teacher alike, 1/K: classical distillation.

    Source: Proposition VI.6.
    """

    scale: ClassVar[str] = "any"
    needs: ClassVar[frozenset[str]] = frozenset()
    continuous: ClassVar[bool] = True

    def __call__(self, signals: Signals) -> Tensor:
        """Return 1/K, (..., K).

        Args:
            signals: The signals of a batch.
        """
        return signals.ones() / signals.shape[-1]


@register_rule
@dataclass(frozen=True)
class MinDivergence:
    """Weights of the mixture that the student is nearest to, by exponentiated gradient.

    They solve ``argmin_w KL(sum_k w_k p_k || p_s) + 1/strength sum_k w_k log w_k``.  A mixture's divergence is no more
    than its weights', so the objective is smooth, and strongly convex, relative to the entropy of the weights: a step
    of ``strength / (1 + strength)`` brings the divergence from the optimum down by that same factor each time.  No
    gradient flows through the weights.

    Attributes:
        strength: Above 0: large ones follow the divergence, small ones stay near uniform weights.
        temperature: Above 0; softens teachers and student.
        descent: When the iteration stops.

    Source: Principle 3 of the paper; the rate is that of Lu, Freund and Nesterov 2018.
    """

    strength: float = 1.0
    temperature: float = 1.0
    descent: DivergenceDescentSettings = field(default=DivergenceDescentSettings(), repr=False)
    scale: ClassVar[str] = "any"
    needs: ClassVar[frozenset[str]] = frozenset({"log_p", "student_log_p"})
    continuous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number(self, "strength", self.strength, above=0)
        require_number(self, "temperature", self.temperature, above=0)

    def __call__(self, signals: Signals) -> Tensor:
        """Return weights, (..., K), that sum to one.

        Args:
            signals: The signals of a batch.
        """
        log_p_KV = soften(signals.log_p.detach().double(), self.temperature)
        log_s_V = soften(signals.student_log_p.detach().double(), self.temperature)
        p_KV, step = log_p_KV.exp(), self.strength / (1 + self.strength)
        log_w_K = torch.zeros_like(p_KV[..., 0])
        w_K = torch.softmax(log_w_K, dim=-1)
        for _ in range(self.descent.steps):
            log_ratio_V = torch.nan_to_num(arithmetic_pool(log_p_KV, w_K) - log_s_V, neginf=0.0, posinf=0.0)
            gradient_K = (p_KV * log_ratio_V.unsqueeze(-2)).sum(-1)
            # log w - step (gradient + log w / strength): the entropy's own gradient joins in
            log_w_K = (1 - step / self.strength) * torch.log_softmax(log_w_K, dim=-1) - step * gradient_K
            before_K, w_K = w_K, torch.softmax(log_w_K, dim=-1)
            if not bool(((w_K - before_K).abs() > self.descent.tolerance).any()):
                break
        return w_K.to(signals.ones())
