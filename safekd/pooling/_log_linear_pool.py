"""The log-linear pool with a temperature.  Axes: ... positions, K teachers, V classes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .._precision import log_softmax
from ..divergences import require_temperature
from ._geometric_pool import geometric_pool


@dataclass(frozen=True)
class LogLinearPool:
    """The geometric pool at a temperature, ``prod_k p_k^(w_k / T) / Z``.

    Its exponents sum to 1 / T.  At T = 1 it is the geometric pool.  Above, it is softer than its teachers; below, it
    counts teachers that agree as independent evidence, up to their product at T = 1 / K.  At any T but 1 teachers that
    all agree are not left as they are, so more weight may take the pool farther from a teacher.

    Attributes:
        temperature: T, from 0.0001 to 10,000.

    Raises:
        InvalidInput: It is no such number.

    Source: products of experts, Hinton 2002; logarithmic opinion pools, Genest and Zidek 1986.

    >>> import torch
    >>> p = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    >>> LogLinearPool(0.5)(p.log(), torch.tensor([0.5, 0.5])).exp()
    tensor([0.7273, 0.2727])
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        require_temperature(self.temperature)

    def __call__(self, log_p_KV: Tensor, w_K: Tensor) -> Tensor:
        """Return the logarithm of the pool.

        Args:
            log_p_KV: Teachers' log-probabilities, (..., K, V); minus infinity is a probability of zero.
            w_K: Weights, (..., K), at least 0, sum 1.

        Returns:
            log q, (..., V), float32 or wider.

        Raises:
            InvalidInput: As by ``geometric_pool``.
        """
        log_q_V = geometric_pool(log_p_KV, w_K)
        return log_q_V if self.temperature == 1 else log_softmax(log_q_V / self.temperature)
