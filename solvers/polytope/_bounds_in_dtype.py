"""Bounds as a floating type can hold them.

0.6 is no float32.  A projection into float32 clips to the largest float32 below it (``bounds_within``), so its weights
meet the bound read in any precision; a check of float32 weights takes the nearest float32 (``nearest_bounds``),
because that is what 0.6 means there.  Bounds are >= 0, where neighbors in a floating type are neighbors as integers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._polytope_fields import PolytopeFields

_AS_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def nearest_bounds(polytope: PolytopeFields, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a polytope's bounds as a check of weights reads them.

    Args:
        polytope: Whose bounds.
        dtype: A floating dtype.

    Returns:
        Lower and upper bounds, shape (K,), each rounded to the nearest number of ``dtype``.
    """
    low_K = torch.tensor(polytope.lower, dtype=torch.float64)
    high_K = torch.tensor(polytope.upper, dtype=torch.float64)
    return low_K.to(dtype), high_K.to(dtype)


def bounds_within(polytope: PolytopeFields, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a polytope's bounds as a projection clips to them.

    Args:
        polytope: Whose bounds.
        dtype: A floating dtype.

    Returns:
        Lower and upper bounds, shape (K,), as ``interval_within`` rounds them.
    """
    low_K = torch.tensor(polytope.lower, dtype=torch.float64)
    high_K = torch.tensor(polytope.upper, dtype=torch.float64)
    return interval_within(low_K, high_K, dtype)


def interval_within(low: Tensor, high: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return lower bounds rounded up and upper ones rounded down, so that weights of ``dtype`` meet the true bounds.

    Args:
        low: Lower bounds, float64, any shape.
        high: Upper bounds, float64, the same shape.
        dtype: A floating dtype.

    Returns:
        Both bounds, of ``dtype``.  Where no number of it lies between the two, both are the nearest to ``low``.
    """
    inner_low = _move_to_next_float(low.to(dtype), low.to(dtype).double() < low, +1)
    inner_high = _move_to_next_float(high.to(dtype), high.to(dtype).double() > high, -1)
    empty = inner_low > inner_high
    nearest = low.to(dtype)
    return torch.where(empty, nearest, inner_low), torch.where(empty, nearest, inner_high)


def _move_to_next_float(values_K: Tensor, where_K: Tensor, direction: int) -> Tensor:
    integer = _AS_INTEGER[values_K.element_size()]
    return (values_K.view(integer) + direction * where_K.to(integer)).view(values_K.dtype)
