"""Power means of teachers, between and beyond the two pools that everybody uses.

Axes: ... positions, K teachers, V classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._number_checks import is_finite
from .._precision import log_softmax
from ..errors import InvalidInput
from ._arithmetic_pool import arithmetic_pool
from ._geometric_pool import geometric_pool
from ._pool_weights import find_vetoes, read_pool_inputs, require_some_class


@dataclass(frozen=True)
class PowerSettings:
    """Numbers of power means; ``tests/safekd/pooling/test_power_pools.py`` notices.

    Attributes:
        largest: Exponents beyond plus or minus this are the largest or smallest teacher, to float32's precision.
        least: Exponents smaller than this in size are 0, whose pool is the same to float64's precision.
        largest_ratio: exp of it is finite in float32; only teachers of weight 0 ever reach it.
        near_one: Where the mean of powers is more than this, its logarithm is taken of what it lacks to 1: so nothing
            is lost as the exponent goes to 0.
    """

    largest: float = 100.0
    least: float = 1e-12
    largest_ratio: float = 80.0
    near_one: float = 0.5


_SETTINGS = PowerSettings()


@dataclass(frozen=True)
class PowerPool:
    """The power mean of the teachers, ``(sum_k w_k p_k^r)^(1/r) / Z``; r = 1 is arithmetic, r to 0 geometric.

    With r between 0 and 1 its log-loss is at most the weighted mean of the teachers', as with both ends.  With r at
    most 0 each teacher has a veto: a class that one leaves out is left out.  Only r = 1 stays in the teachers' convex
    hull, and only r = 0 commutes with temperature.

    Attributes:
        exponent: r, from -100 to 100.

    Raises:
        InvalidInput: It is no such number.

    Source: Hardy, Littlewood and Polya 1934; as opinion pools Cooke 1991.

    >>> p = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    >>> PowerPool(0.5)(p.log(), torch.tensor([0.5, 0.5])).exp()
    tensor([0.6096, 0.3904])
    """

    exponent: float = 0.5

    def __post_init__(self) -> None:
        if not is_finite(self.exponent) or abs(self.exponent) > _SETTINGS.largest:
            raise InvalidInput(
                f"`exponent` of PowerPool is {self.exponent!r}; wanted a number from -{_SETTINGS.largest:g} to "
                f"{_SETTINGS.largest:g}: 1 is the arithmetic pool, 0 the geometric one."
            )

    def __call__(self, log_p_KV: Tensor, w_K: Tensor) -> Tensor:
        """Return the logarithm of the pool.

        Args:
            log_p_KV: Teachers' log-probabilities, (..., K, V); minus infinity is a probability of zero.
            w_K: Weights, (..., K), at least 0, sum 1.

        Returns:
            log q, (..., V), float32 or wider.

        Raises:
            InvalidInput: The shapes do not fit, a weight is negative, weights do not sum to 1, or teachers with a veto
                leave out every class between them.
        """
        if self.exponent == 1:
            return arithmetic_pool(log_p_KV, w_K)
        if abs(self.exponent) < _SETTINGS.least:
            return geometric_pool(log_p_KV, w_K)
        log_p_KV, w_K = read_pool_inputs(log_p_KV, w_K)
        log_mean_V = _log_power_mean(log_p_KV, w_K / w_K.sum(-1, keepdim=True), self.exponent)
        require_some_class(log_mean_V, "power")
        return log_softmax(log_mean_V)


def _log_power_mean(log_p_KV: Tensor, w_K: Tensor, r: float) -> Tensor:
    """Return ``log(sum_k w_k p_k^r) / r``, (..., V), to full precision for every r."""
    vetoed_V = find_vetoes(log_p_KV, w_K) if r < 0 else None
    if vetoed_V is not None:
        log_p_KV = log_p_KV.masked_fill(torch.isneginf(log_p_KV), 0.0)  # its power would be infinite
    power_KV, weight_K1 = r * log_p_KV, w_K.unsqueeze(-1)
    used_KV = power_KV.detach().masked_fill(weight_K1 == 0, -torch.inf)
    top_V = used_KV.amax(-2).clamp_min(torch.finfo(power_KV.dtype).min)
    ratio_KV = (power_KV - top_V.unsqueeze(-2)).clamp_max(_SETTINGS.largest_ratio)
    lack_V = (weight_K1 * ratio_KV.expm1()).sum(-2)
    mean_V = (weight_K1 * ratio_KV.exp()).sum(-2)
    near_V, empty_V = lack_V > _SETTINGS.near_one - 1, mean_V == 0
    log_V = torch.where(near_V, lack_V.where(near_V, 0.0).log1p(), mean_V.masked_fill(near_V | empty_V, 1.0).log())
    log_mean_V = ((top_V + log_V) / r).masked_fill(empty_V, -torch.inf)
    return log_mean_V if vetoed_V is None else log_mean_V.masked_fill(vetoed_V, -torch.inf)
