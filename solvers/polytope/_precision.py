"""Bounds as a floating type can hold them.

0.6 is no float32.  A projection into float32 clips to the largest float32 below it (``bounds_within``), so its weights
meet the bound read in any precision; a judge of float32 weights takes the nearest float32 (``nearest_bounds``),
because that is what 0.6 means there.  Bounds are >= 0, where neighbours in a floating type are neighbours as integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ._polytope import WeightPolytope

_AS_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def nearest_bounds(polytope: WeightPolytope, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return lower and upper, shape (K,), each rounded to the nearest number of ``dtype``."""
    low_K = torch.tensor(polytope.lower, dtype=torch.float64)
    high_K = torch.tensor(polytope.upper, dtype=torch.float64)
    return low_K.to(dtype), high_K.to(dtype)


def bounds_within(polytope: WeightPolytope, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return lower rounded up and upper rounded down, shape (K,), so that weights of ``dtype`` meet the true bounds.

    Where no number of ``dtype`` lies between the two, both are the nearest to ``lower``.
    """
    low_K = torch.tensor(polytope.lower, dtype=torch.float64)
    high_K = torch.tensor(polytope.upper, dtype=torch.float64)
    inner_low_K = _step(low_K.to(dtype), low_K.to(dtype).double() < low_K, +1)
    inner_high_K = _step(high_K.to(dtype), high_K.to(dtype).double() > high_K, -1)
    empty_K = inner_low_K > inner_high_K
    nearest_K = low_K.to(dtype)
    return torch.where(empty_K, nearest_K, inner_low_K), torch.where(empty_K, nearest_K, inner_high_K)


def _step(values_K: Tensor, where_K: Tensor, direction: int) -> Tensor:
    integer = _AS_INTEGER[values_K.element_size()]
    return (values_K.view(integer) + direction * where_K.to(integer)).view(values_K.dtype)
