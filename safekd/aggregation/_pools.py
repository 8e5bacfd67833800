"""Linear pooling in log space.  Axes: ... positions, K teachers, V classes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidInput


def arithmetic_pool(log_p_KV: Tensor, w_K: Tensor) -> Tensor:
    """Return log q, the logarithm of ``q = sum_k w_k p_k``, shape (..., V).

    log_p_KV: teachers' log-probabilities, (..., K, V); minus infinity is a probability of zero.
    w_K: weights, (..., K), at least 0, sum 1.  The pool lies in the teachers' convex hull (Definition III.7).
    Raises InvalidInput when the shapes do not fit or a weight is negative.

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
    return torch.logsumexp(w_K.log().unsqueeze(-1) + log_p_KV, dim=-2)
