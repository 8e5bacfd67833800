"""Which positions count: those that are no padding, and what stands at the others.  Axes: B examples, ... positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput
from ._column_values import IGNORED, read_tensor


def read_position_mask(mask: Any, labels: Tensor, name: str) -> Tensor | None:
    """Return which positions count, by mask and label, bool (B, ...); None where all do.

    Args:
        mask: Booleans, or 0 and 1, of the labels' shape; None where the labels alone say it.
        labels: Whole numbers, (B, ...), -100 where a position does not count.
        name: Of the data.

    Raises:
        InvalidInput: It has another shape, or other numbers.
    """
    counted = labels.long() != IGNORED  # unsigned numbers of few bits would compare with another one
    if mask is not None:
        given = read_tensor(mask, "mask", name)
        if given.shape != labels.shape or not bool(((given == 0) | (given == 1)).all()):
            what = (
                f"has shape {tuple(given.shape)}" if given.shape != labels.shape else "holds other numbers than 0 and 1"
            )
            raise InvalidInput(
                f"Split '{name}': mask {what}; wanted booleans of the labels' shape {tuple(labels.shape)}, True where "
                "one counts. An attention mask is another one, and a part of the inputs: "
                'inputs={"ids": ..., "attention_mask": ...}.'
            )
        counted = counted & given.bool().to(counted.device)
    return None if bool(counted.all()) else counted


def clear_uncounted(value: Tensor, mask: Tensor | None) -> Tensor:
    """Return inputs with 0 for what is not finite where a position does not count.

    Args:
        value: Some inputs, (B, ...); those without an axis for each of the labels' stay as they are.
        mask: Which positions count; None where all do.
    """
    if mask is None or not value.is_floating_point() or value.shape[: mask.ndim] != mask.shape:
        return value
    kept = fill_uncounted(torch.ones_like(value, dtype=torch.bool), mask, False) | torch.isfinite(value)
    return value if bool(kept.all()) else torch.where(kept, value, 0.0)


def fill_uncounted(value: Tensor, mask: Tensor | None, filling: float) -> Tensor:
    """Return values with a number where a position does not count; its gradient there is 0, even of a NaN.

    Args:
        value: Anything a position, (..., *more).
        mask: Which positions count, bool (...); None where all do.
        filling: The number.

    Raises:
        InvalidInput: The values are not one a position.
    """
    if mask is None:
        return value
    if value.shape[: mask.ndim] != mask.shape:
        raise InvalidInput(
            f"Values of shape {tuple(value.shape)} do not fit labels of shape {tuple(mask.shape)}; wanted one row a "
            "label."
        )
    return torch.where(mask.reshape(mask.shape + (1,) * (value.ndim - mask.ndim)), value, filling)
