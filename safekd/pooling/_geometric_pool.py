"""Logarithmic pooling.  Axes: ... positions, K teachers, V classes."""

from __future__ import annotations

import torch
from torch import Tensor

from .._precision import log_softmax
from ._pool_weights import find_vetoes, read_pool_inputs, require_some_class


def geometric_pool(log_p_KV: Tensor, w_K: Tensor) -> Tensor:
    """Return the logarithm of the geometric pool ``q = prod_k p_k^w_k / Z``.

    A class that one teacher with a weight leaves out is left out of the pool: each has a veto.  The pool need not lie
    in the teachers' convex hull, so it is none of Definition III.7.

    Args:
        log_p_KV: Teachers' log-probabilities, (..., K, V); minus infinity is a probability of zero.
        w_K: Weights, (..., K), at least 0, sum 1.

    Returns:
        log q, (..., V), float32 or wider.

    Raises:
        InvalidInput: The shapes do not fit, a weight is negative, weights do not sum to 1, or teachers leave out every
            class between them.

    Source: logarithmic opinion pool, Genest and Zidek 1986.

    >>> p = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    >>> geometric_pool(p.log(), torch.tensor([0.5, 0.5])).exp()
    tensor([0.6202, 0.3798])
    """
    log_p_KV, w_K = read_pool_inputs(log_p_KV, w_K)
    weight_KV = w_K.unsqueeze(-1)
    sum_V = (weight_KV * log_p_KV.masked_fill(torch.isneginf(log_p_KV), 0.0)).sum(-2)  # 0 * -inf would be NaN
    sum_V = sum_V.masked_fill(find_vetoes(log_p_KV, w_K), -torch.inf)
    require_some_class(sum_V, "geometric")
    return log_softmax(sum_V)
