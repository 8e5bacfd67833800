"""Statistics of teachers' distributions.  Axes: ... positions, P passes, K teachers, V classes."""

from __future__ import annotations

from collections.abc import Sequence

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


def compute_divergence(log_p_KV: Tensor, log_s_V: Tensor) -> Tensor:
    """Return the KL divergence of each teacher from the student.

    Args:
        log_p_KV: Teachers' log-probabilities, (..., K, V).
        log_s_V: The student's, (..., V).

    Returns:
        Nats, (..., K).
    """
    p_KV = log_p_KV.exp()
    gap_KV = torch.where(p_KV == 0, 0.0, log_p_KV - log_s_V.unsqueeze(-2))  # 0 log 0 = 0
    return (p_KV * gap_KV).sum(-1)


def compute_disagreement(log_p: Sequence[Tensor]) -> Tensor:
    """Return the KL divergence of each teacher from the mean of all; their average is the Jensen-Shannon divergence.

    Args:
        log_p: Log-probabilities of each teacher, (..., V); minus infinity is a probability of 0.

    Returns:
        Nats, (..., K), at most log K.

    Source: Lin 1991.
    """
    total_V = log_p[0].exp()
    for x in log_p[1:]:
        total_V = total_V + x.exp()
    log_mean_V = (total_V / len(log_p)).log()
    gaps = [torch.where(x == -torch.inf, 0.0, x.exp() * (x - log_mean_V)).sum(-1) for x in log_p]  # 0 log 0 = 0
    return torch.stack(gaps, dim=-1).clamp_min(0.0)


def average_rows(value_P: Tensor, row_P: Tensor, rows: int) -> Tensor:
    """Return the average of the values of each row, 0 where a row has none.

    Args:
        value_P: (P, *more).
        row_P: Which row each is of, (P,).
        rows: How many there are.

    Returns:
        (rows, *more).
    """
    total = value_P.new_zeros(rows, *value_P.shape[1:]).index_add(0, row_P, value_P)
    count = torch.bincount(row_P, minlength=rows).clamp_min(1).to(value_P.dtype)
    return total / count.reshape(-1, *[1] * (value_P.ndim - 1))


def soften(log_p_V: Tensor, temperature: float) -> Tensor:
    """Return the log of ``p^(1/T) / Z``.

    Args:
        log_p_V: Log-probabilities, (..., V).
        temperature: T, above 0; 1 changes nothing.

    Returns:
        Log-probabilities, (..., V).
    """
    return log_p_V if temperature == 1.0 else torch.log_softmax(log_p_V / temperature, dim=-1)
