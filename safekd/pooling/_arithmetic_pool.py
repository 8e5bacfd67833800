"""Linear pooling in log space.  Axes: ... positions, K teachers, V classes."""

from __future__ import annotations

import torch
from torch import Tensor

from ._pool_weights import read_pool_inputs

_LARGEST_EXPONENT = 80.0  # exp of it is finite in float32; only teachers of weight 0 ever reach it


def arithmetic_pool(log_p_KV: Tensor, w_K: Tensor) -> Tensor:
    """Return the logarithm of the linear pool ``q = sum_k w_k p_k``.

    It lies in the teachers' convex hull, and is differentiable at weights and probabilities of zero too.

    Args:
        log_p_KV: Teachers' log-probabilities, (..., K, V); minus infinity is a probability of zero.
        w_K: Weights, (..., K), at least 0, sum 1.

    Returns:
        log q, (..., V), float32 or wider.

    Raises:
        InvalidInput: The shapes do not fit, a weight is negative, or weights do not sum to 1.

    Source: Definition III.7.

    >>> p = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    >>> arithmetic_pool(p.log(), torch.tensor([0.5, 0.5])).exp()
    tensor([0.6000, 0.4000])
    """
    log_p_KV, w_K = read_pool_inputs(log_p_KV, w_K)
    # not logsumexp(log w + log p): its gradient is 0 * inf where a weight is 0
    used_KV = log_p_KV.detach().masked_fill((w_K == 0).unsqueeze(-1), -torch.inf)
    top_V = used_KV.amax(-2).clamp_min(torch.finfo(log_p_KV.dtype).min)
    ratio_KV = (log_p_KV - top_V.unsqueeze(-2)).clamp_max(_LARGEST_EXPONENT).exp()
    sum_V = (w_K.unsqueeze(-1) * ratio_KV).sum(-2)
    empty_V = sum_V == 0
    return (sum_V.masked_fill(empty_V, 1).log() + top_V).masked_fill(empty_V, -torch.inf)
