"""Weights from a representation of the input.  Axes: ... positions, K teachers, D features."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ...errors import InvalidInput
from ..rules import register_rule
from ..signals import Signals
from ._learned_rule import StudentStep, require_counts, require_teachers


@register_rule
class MultiLevel(nn.Module):
    """``softmax_k(W^T (theta_k * h(x)))``: each teacher has a latent theta_k, compared with the features h(x).

    theta and W are learned by the distillation loss itself, through target and projection: weight moves to teachers
    whose answers the student can take up.  Weights begin uniform.

    Args:
        n_teachers: K.
        features: D, the length of h(x); see ``features=`` of ConstrainedTrainer.

    Source: adaptive multi-teacher multi-level distillation, Liu, Zhang and Wang 2020.
    """

    scale: ClassVar[str] = "token"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    continuous: ClassVar[bool] = True

    def __init__(self, n_teachers: int, features: int) -> None:
        super().__init__()
        require_counts(self, n_teachers=n_teachers, features=features)
        # not W = 0, where nothing would have a gradient; equal latents give equal weights, and part at the first step
        self.theta_KD = nn.Parameter(torch.ones(n_teachers, features))
        self.W_D = nn.Parameter(torch.full((features,), features**-0.5))

    def forward(self, signals: Signals) -> Tensor:
        """Return weights that sum to one.

        Args:
            signals: The signals of a batch, features among them.

        Returns:
            Weights, (..., K).

        Raises:
            InvalidInput: The signals have other numbers of teachers or features.
        """
        require_teachers(self, len(self.theta_KD), signals)
        wanted = (*signals.shape[:-1], len(self.W_D))
        if signals.features.shape != wanted:
            raise InvalidInput(
                f"MultiLevel was made for {len(self.W_D)} features and wants them of shape {wanted}; they have shape "
                f"{tuple(signals.features.shape)}. Make it with features={signals.features.shape[-1]}, or give others."
            )
        score_K = (signals.features.to(self.W_D) * self.W_D) @ self.theta_KD.T
        return torch.softmax(score_K, dim=-1).to(signals.ones())

    def learn(self, step: StudentStep) -> None:
        """Return nothing: the distillation loss teaches it.

        Args:
            step: Not looked at.
        """
