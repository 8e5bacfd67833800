"""What every pool asks of its weights.  Axes: ... positions, K teachers, V classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._precision import widen
from ..errors import InvalidInput


@dataclass(frozen=True)
class PoolingSettings:
    """How far weights may be off; ``tests/safekd/test_pooling.py`` notices.

    Attributes:
        sum_error: How far weights may sum beside 1: half types round a sum of many by this much.
    """

    sum_error: float = 1e-3


_POOLING = PoolingSettings()


def read_pool_inputs(log_p_KV: Tensor, w_K: Tensor) -> tuple[Tensor, Tensor]:
    """Return teachers and weights, float32 or wider, if they can be pooled.

    Args:
        log_p_KV: Teachers' log-probabilities, (..., K, V).
        w_K: Weights, (..., K).

    Raises:
        InvalidInput: The shapes do not fit, a weight is negative, or weights do not sum to 1.
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
    return widen(log_p_KV), widen(w_K)
