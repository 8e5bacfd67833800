"""Random teachers and weights, float64."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_teachers(seed: int, *shape: int, scale: float = 3.0) -> Tensor:
    """Return random log-distributions, (..., K, V)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).mul(scale).log_softmax(-1)


def draw_weights(seed: int, *shape: int) -> Tensor:
    """Return random weights, (..., K)."""
    generator = torch.Generator().manual_seed(seed + 1000)
    return torch.rand(*shape, generator=generator, dtype=torch.float64).softmax(-1)


def name_pool(pool) -> str:
    """Return the same name in every process, which addresses of functions are not."""
    return getattr(pool, "__name__", str(pool))
