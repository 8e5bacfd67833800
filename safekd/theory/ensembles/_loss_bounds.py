"""What the log-loss of a pool is at most.  Axes: P positions, K teachers, V classes.

For power means with an exponent r from 0 to 1, arithmetic and geometric pools among them, log q is at least ``sum_k
w_k log p_k`` at every class: the mean is at least the geometric one, and sums to at most 1.  So whatever the truth is,

    loss(q) <= sum_k w_k loss(p_k)                     the Jensen gap is what lies between
    loss(q) <= loss(p_k) + log(1 / w_k) / r            for each teacher, r above 0, since q >= w_k^(1/r) p_k

The second says that the pool costs at most log(1 / w) nats over a teacher of weight w, whoever the others are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...pooling import LogLinearPool, PoolFunction, PowerPool, arithmetic_pool, geometric_pool


def find_exponent(pool: PoolFunction) -> float | None:
    """Return the exponent of a pool that is a power mean; None for any other.

    Args:
        pool: A pool.
    """
    if pool is arithmetic_pool:
        return 1.0
    if pool is geometric_pool or pool == LogLinearPool(1.0):
        return 0.0
    return pool.exponent if isinstance(pool, PowerPool) else None


def measure_jensen_gap(loss_PK: Tensor, w_PK: Tensor, pooled_P: Tensor) -> Tensor:
    """Return by how much the loss of the pool is below the mean loss of its teachers, (P,).

    It is ``sum_k w_k KL(y || p_k) - KL(y || q)``, at least 0 for power means with an exponent from 0 to 1.

    Args:
        loss_PK: Log-loss of each teacher, (P, K), nats.
        w_PK: Weights, (P, K) or (K,).
        pooled_P: Log-loss of the pool, (P,).

    Raises:
        InvalidInput: Shapes do not fit.
    """
    _require_losses(loss_PK, w_PK)
    if pooled_P.shape != loss_PK.shape[:1]:
        raise InvalidInput(f"`pooled_P` has shape {tuple(pooled_P.shape)}; wanted {tuple(loss_PK.shape[:1])}.")
    return _mean_loss(loss_PK, w_PK) - pooled_P


def bound_log_loss(pool: PoolFunction, loss_PK: Tensor, w_PK: Tensor) -> float | None:
    """Return what the mean log-loss of a pool is at most, whatever its teachers say of other classes; None if nothing.

    The least of both bounds above.

    Args:
        pool: The pool.
        loss_PK: Log-loss of each teacher, (P, K), nats.
        w_PK: Weights, (P, K) or (K,).

    Raises:
        InvalidInput: Shapes do not fit.
    """
    _require_losses(loss_PK, w_PK)
    r = find_exponent(pool)
    if r is None or not 0 <= r <= 1:
        return None
    bounds = [float(_mean_loss(loss_PK, w_PK).mean())]
    if r > 0:
        bounds.append(float((loss_PK.double() - w_PK.double().log() / r).mean(0).min()))
    return min(bounds)


def _mean_loss(loss_PK: Tensor, w_PK: Tensor) -> Tensor:
    w_PK = w_PK.expand(loss_PK.shape)
    return torch.where(w_PK > 0, w_PK * loss_PK, 0.0).sum(-1)  # a teacher without weight may lose without end


def _require_losses(loss_PK: Tensor, w_PK: Tensor) -> None:
    if loss_PK.ndim != 2 or w_PK.shape not in (loss_PK.shape, loss_PK.shape[1:]):
        raise InvalidInput(
            f"Weights of shape {tuple(w_PK.shape)} do not fit losses of shape {tuple(loss_PK.shape)}; wanted (P, K) "
            "losses, and (K,) or (P, K) weights."
        )
