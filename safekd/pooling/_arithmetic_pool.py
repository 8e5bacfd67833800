"""Linear pooling in log space.  Axes: ... positions, K teachers, V classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput


@dataclass(frozen=True)
class PoolingSettings:
    """How far weights may be off; ``tests/safekd/test_pooling.py`` notices.

    Attributes:
        sum_error: How far weights may sum beside 1: half types round a sum of many by this much.
    """

    sum_error: float = 1e-3


_POOLING = PoolingSettings()
_LARGEST_EXPONENT = 80.0  # exp of it is finite in float32; only teachers of weight 0 ever reach it


def arithmetic_pool(log_p_KV: Tensor, w_K: Tensor) -> Tensor:
    """Return the logarithm of the linear pool ``q = sum_k w_k p_k``.

    It lies in the teachers' convex hull, and is differentiable at weights and probabilities of zero too.

    Args:
        log_p_KV: Teachers' log-probabilities, (..., K, V); minus infinity is a probability of zero.
        w_K: Weights, (..., K), at least 0, sum 1.

    Returns:
        log q, (..., V).

    Raises:
        InvalidInput: The shapes do not fit, a weight is negative, or weights do not sum to 1.

    Source: Definition III.7.

    >>> p = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    >>> arithmetic_pool(p.log(), torch.tensor([0.5, 0.5])).exp()
    tensor([0.6000, 0.4000])
    """
    if log_p_KV.shape[:-1] != w_K.shape:
        raise InvalidInput(
            f"Weights of shape {tuple(w_K.shape)} do not fit teachers of shape {tuple(log_p_KV.shape)}; "
            f"wanted weights of shape {tuple(log_p_KV.shape[:-1])}."
        )
    if bool((w_K < 0).any()):
        raise InvalidInput(f"A weight is {float(w_K.min()):g}; a pool needs weights of at least 0. Project them first.")
    miss = (w_K.detach().double().sum(-1) - 1).abs()
    if not bool((miss <= max(_POOLING.sum_error, 4 * torch.finfo(w_K.dtype).eps)).all()):
        total = float(w_K.detach().double().sum(-1).flatten()[miss.flatten().argmax()])
        raise InvalidInput(
            f"Weights sum to {total:g}; a pool needs weights that sum to 1. Divide them by their sum, "
            "or wrap the rule that gave them, Conforming(rule, polytope)."
        )
    # not logsumexp(log w + log p): its gradient is 0 * inf where a weight is 0
    used_KV = log_p_KV.detach().masked_fill((w_K == 0).unsqueeze(-1), -torch.inf)
    top_V = used_KV.amax(-2).clamp_min(torch.finfo(log_p_KV.dtype).min)
    ratio_KV = (log_p_KV - top_V.unsqueeze(-2)).clamp_max(_LARGEST_EXPONENT).exp()
    sum_V = (w_K.unsqueeze(-1) * ratio_KV).sum(-2)
    empty_V = sum_V == 0
    return (sum_V.masked_fill(empty_V, 1).log() + top_V).masked_fill(empty_V, -torch.inf)
