"""What every pool asks of its weights.  Axes: ... positions, K teachers, V classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._precision import widen
from ..errors import InvalidInput

# log-probabilities (..., K, V), weights (..., K) -> log of the target
PoolFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PoolingSettings:
    """How far weights may be off; ``tests/safekd/pooling/test_arithmetic_pool.py`` notices.

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


def find_vetoes(log_p_KV: Tensor, w_K: Tensor) -> Tensor:
    """Say which classes a teacher with a weight leaves out, bool (..., V).

    Args:
        log_p_KV: Teachers' log-probabilities, (..., K, V).
        w_K: Weights, (..., K).
    """
    return (torch.isneginf(log_p_KV) & (w_K.unsqueeze(-1) > 0)).any(-2)


def require_some_class(log_q_V: Tensor, pool: str) -> None:
    """Refuse teachers whose vetoes leave no class.

    Args:
        log_q_V: Log of the pool, not yet normalized, (..., V).
        pool: What messages call it.

    Raises:
        InvalidInput: At some position every class is left out.
    """
    if bool((empty := torch.isneginf(log_q_V.detach().amax(-1))).any()):
        where = tuple(int(i) for i in empty.nonzero()[0])
        raise InvalidInput(
            f"At position {where} the teachers leave out every class between them, so their {pool} pool is none. "
            "Use the arithmetic pool there, or give teachers a floor."
        )
