"""Bounds that rows bring with them, in place of the polytope's.  Axes: K teachers, Q = 1 or B rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.errors import InvalidInput
from solvers.polytope import WeightPolytope

from ._projection_inputs import fit_to_scores, name_place, read_constant_array, require_all


@dataclass(frozen=True)
class RowBounds:
    """Lower and upper bounds, float64 and not on a device, with 0 <= low <= high."""

    low_QK: Tensor
    high_QK: Tensor


def read_polytope_bounds(polytope: WeightPolytope) -> RowBounds:
    """Return the polytope's own bounds, which all rows share."""
    low_1K, high_1K = (torch.tensor([bound], dtype=torch.float64) for bound in (polytope.lower, polytope.upper))
    return RowBounds(low_1K, high_1K)


def read_row_bounds(
    lower: object, upper: object, shape: torch.Size, polytope: WeightPolytope, device: torch.device
) -> RowBounds | None:
    """Return bounds for the rows of scores (..., K), or None if all of them are the polytope's.

    lower, upper: real numbers that fit ``shape``, tensors on ``device``; None stands for the polytope's.  No
    gradient flows to them.
    """
    if lower is None and upper is None:
        return None
    low = _read_bound_numbers("lower", polytope.lower if lower is None else lower, shape, device)
    high = _read_bound_numbers("upper", polytope.upper if upper is None else upper, shape, device)
    require_all("lower", low, low >= 0, "weights are never below 0", "Pass 0 or more.")
    low, high = low + torch.zeros_like(high), high + torch.zeros_like(low)
    if bool((low > high).any()):
        place = tuple((low > high).nonzero()[0].tolist())
        raise InvalidInput(
            f"`lower` holds {low[place]:g} and `upper` {high[place]:g} at {name_place(place)}; lower must not be above "
            "upper. Swap them, or widen the interval."
        )
    if low.ndim > 1:  # rows of their own
        low, high = low.expand(shape), high.expand(shape)
    return RowBounds(low.reshape(-1, shape[-1]), high.reshape(-1, shape[-1]))


def _read_bound_numbers(name: str, value: object, shape: torch.Size, device: torch.device) -> Tensor:
    """Return finite numbers as float64, (K,) where all rows share them."""
    given = read_constant_array(name, value, device)
    if given.dtype == torch.bool or given.is_complex():
        raise InvalidInput(f"`{name}` has dtype {str(given.dtype).removeprefix('torch.')}; wanted real numbers.")
    fit_to_scores(name, given, shape)
    numbers = given.to("cpu", torch.float64)
    numbers = numbers.expand(shape[-1]) if numbers.ndim < 2 else numbers.expand(*numbers.shape[:-1], shape[-1])
    require_all(name, numbers, numbers.isfinite(), "bounds must be finite", "Replace it with a number.")
    return numbers
