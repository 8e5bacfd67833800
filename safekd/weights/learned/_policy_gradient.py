"""Weights by a policy that is rewarded where the student does well.  Axes: ... positions, K teachers."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..rules import register_rule
from ..rules._token_rules import Confidence
from ..signals import Signals
from ._learned_rule import StudentStep
from ._teacher_network import NETWORK_NEEDS, TeacherNetwork


@register_rule
class PolicyGradient(nn.Module):
    """``(pi + Confidence + softmax_k KL) / 3``: the mean of a policy, of trust in the label, and of the student's gap.

    pi is a small network of (entropy, cross-entropy, KL to the student, largest p) of each teacher, trained by ``-r log
    pi``. The reward of teacher k at a position is minus the student's loss there, cross-entropy plus KD_k, standardized
    over the batch and cut to [0, 1].  The three parts each sum to one, from the first step on: pi begins uniform.

    Args:
        hidden: Width of the network, at least 1.
        temperature: Of KD and KL, above 0.

    Source: Yang et al. 2025 (MTKD-RL).  Published weights are all ones in the first epoch and sum to K; these do not.
    """

    scale: ClassVar[str] = "token"
    needs: ClassVar[frozenset[str]] = NETWORK_NEEDS
    continuous: ClassVar[bool] = True

    def __init__(self, hidden: int = 16, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.network = TeacherNetwork(hidden, temperature)

    def forward(self, signals: Signals) -> Tensor:
        """Return weights, (..., K), that sum to one.

        Args:
            signals: The signals of a batch.
        """
        gap_K = torch.softmax(signals.student_divergence(self.network.temperature).detach(), dim=-1)
        pi_K: Tensor = self.network(signals).exp()
        return (pi_K + Confidence()(signals) + gap_K) / 3

    def learn(self, step: StudentStep) -> Tensor:
        """Return the policy loss, averaged over positions.

        Args:
            step: The step that the student is about to take.
        """
        log_pi_K: Tensor = self.network(step.signals)
        return -step.signals.select_counted((self.reward(step.signals) * log_pi_K).sum(-1)).mean()

    def reward(self, signals: Signals) -> Tensor:
        """Return the reward of each teacher, (..., K), in [0, 1]; 0 everywhere when all losses are alike.

        Args:
            signals: The signals of a batch, labels and the student's distributions among them.
        """
        missed = -signals.student_log_p.gather(-1, signals.true_classes.unsqueeze(-1))
        gain_K = -(missed + signals.student_divergence(self.network.temperature)).detach()
        counted_PK = signals.select_counted(gain_K)
        spread = counted_PK.std(unbiased=False)
        return ((gain_K - counted_PK.mean()) / torch.where(spread > 0, spread, 1.0)).clamp(0, 1)
