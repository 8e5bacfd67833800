"""Two statistics of teachers' distributions.  Axes: ... positions, P passes, K teachers, V classes."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_variance(log_p_PKV: Tensor) -> Tensor:
    """Return the variance of each teacher's distribution over passes, summed over classes.

    Args:
        log_p_PKV: Log-probabilities of P passes, (..., P, K, V).

    Returns:
        Variances, (..., K); 0 where there is no pass.

    Source: Family B of Theorem V.2.
    """
    if not log_p_PKV.numel():
        return log_p_PKV.new_zeros(log_p_PKV[..., 0, :, 0].shape)  # torch warns of too few degrees of freedom
    return log_p_PKV.exp().var(dim=-3, unbiased=False).sum(-1)


def soften(log_p_V: Tensor, temperature: float) -> Tensor:
    """Return the log of ``p^(1/T) / Z``.

    Args:
        log_p_V: Log-probabilities, (..., V).
        temperature: T, above 0; 1 changes nothing.

    Returns:
        Log-probabilities, (..., V).
    """
    return log_p_V if temperature == 1.0 else torch.log_softmax(log_p_V / temperature, dim=-1)
