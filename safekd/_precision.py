"""The precision in which distributions are read: float32 or wider, whatever type a model gives.

bfloat16 keeps three digits, so a softmax taken in it is off by half a percent, and equal models seem to differ.  Logits
are exact in the wider type, so they are widened before anything else is done with them.  In a sum over very many
classes float32 alone loses the sixth digit: such sums are added up in float64.  Axes: ... positions, V classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PrecisionSettings:
    """When sums over classes are added up in float64; ``tests/safekd/test_precision.py`` notices.

    Attributes:
        many_classes: From so many classes on torch's float32 log-softmax may be off by 1e-6; below, it costs less.
    """

    many_classes: int = 512


SETTINGS = PrecisionSettings()


def widen(value: Tensor) -> Tensor:
    """Return half types as float32, and every other tensor as it is.

    Args:
        value: Any tensor.
    """
    return value.float() if value.is_floating_point() and value.dtype.itemsize < 4 else value


def shift_logits(logits_V: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits less the largest of each row, and the sum of their exponentials.

    ``shifted - log(total)`` are the log-probabilities; kept apart, neither loses digits to the other.

    Args:
        logits_V: Floats, (..., V); minus infinity is a probability of zero.

    Returns:
        Shifted logits, (..., V), float32 or wider, and totals, (...), float64.
    """
    wide_V = widen(logits_V)
    shifted_V = wide_V - wide_V.detach().amax(-1, keepdim=True)
    return shifted_V, shifted_V.exp().sum(-1, dtype=torch.float64)


def log_softmax(logits_V: Tensor) -> Tensor:
    """Return log-probabilities, float32 or wider.

    Args:
        logits_V: Floats, (..., V); minus infinity is a probability of zero.
    """
    wide_V = widen(logits_V)
    if wide_V.dtype == torch.float64 or wide_V.shape[-1] < SETTINGS.many_classes:
        return torch.log_softmax(wide_V, dim=-1)
    shifted_V, total = shift_logits(wide_V)
    return shifted_V - total.log().to(shifted_V).unsqueeze(-1)


def find_unusable_rows(logits_V: Tensor) -> Tensor:
    """Say which rows of logits are no distribution: one is NaN or plus infinity, or all are minus infinity.

    Minus infinity by itself is none of these: so classes are left out.

    Args:
        logits_V: Floats, (..., V).

    Returns:
        Bool, (...).
    """
    return ~torch.isfinite(logits_V.detach().amax(-1))  # amax hands NaN on
