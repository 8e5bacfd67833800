"""Logarithmic pooling.  Axes: ... positions, K teachers, V classes."""

from __future__ import annotations

import torch
from torch import Tensor

from .._precision import log_softmax
from ..errors import InvalidInput
from ._pool_weights import read_pool_inputs


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
    absent_KV = torch.isneginf(log_p_KV)
    weight_KV = w_K.unsqueeze(-1)
    sum_V = (weight_KV * log_p_KV.masked_fill(absent_KV, 0.0)).sum(-2)  # 0 * -inf would be NaN
    sum_V = sum_V.masked_fill((absent_KV & (weight_KV > 0)).any(-2), -torch.inf)
    if bool((empty := torch.isneginf(sum_V.detach().amax(-1))).any()):
        where = tuple(int(i) for i in empty.nonzero()[0])
        raise InvalidInput(
            f"At position {where} the teachers leave out every class between them, so their geometric pool is none. "
            "Use the arithmetic pool there, or give teachers a floor."
        )
    return log_softmax(sum_V)
