"""Forward Kullback-Leibler divergence.  Axes: ... positions, V classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput


@dataclass(frozen=True)
class ForwardKL:
    """``temperature^2 KL(q^T || p^T)``, the distillation loss up to the target's constant entropy.

    Both sides are softened, ``p^(1/T) / Z``; the square keeps gradients of one size.  Zero exactly when the student
    equals the target.

    Attributes:
        temperature: T, above 0 and finite.

    Raises:
        InvalidInput: It is not.

    Source: Definition VI.1; the square is that of Hinton, Vinyals and Dean 2015.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise InvalidInput(f"`temperature` is {self.temperature!r}; it must be above 0 and finite.")

    def __call__(self, log_q_V: Tensor, logits_V: Tensor) -> Tensor:
        """Return one loss a position.

        Args:
            log_q_V: Log of the target, (..., V), minus infinity allowed.
            logits_V: The student's logits, (..., V).

        Returns:
            Nats, (...).

        Raises:
            InvalidInput: The shapes differ.
        """
        if log_q_V.shape != logits_V.shape:
            raise InvalidInput(
                f"The target has shape {tuple(log_q_V.shape)}, the student gives {tuple(logits_V.shape)}."
            )
        scale = self.temperature
        log_q_V = torch.log_softmax(log_q_V / scale, dim=-1)
        log_p_V = torch.log_softmax(logits_V / scale, dim=-1)
        gap_V = torch.where(torch.isneginf(log_q_V), 0.0, log_q_V - log_p_V)  # 0 log 0 = 0, with a finite gradient
        return scale**2 * (log_q_V.exp() * gap_V).sum(-1)

    def soften(self, log_q_V: Tensor) -> Tensor:
        """Return the softened target.

        Args:
            log_q_V: Log of the target, (..., V).

        Returns:
            Probabilities, (..., V).
        """
        return torch.softmax(log_q_V / self.temperature, dim=-1)

    def shares(self, q_V: Tensor) -> Tensor:
        """Return how much each softened log-probability of the student counts in the mean loss.

        The sum of their products is the mean loss less what depends on the target alone: it has the same gradient.

        Args:
            q_V: The softened target, as ``soften`` gives it, (..., V).

        Returns:
            Factors, (..., V), below 0.
        """
        return q_V * (-(self.temperature**2) * q_V.shape[-1] / q_V.numel())
