"""Make bounds and orderings exact in the dtype of the answer.

The general path ends within a few ulp of the polytope.  Bounds are first tightened along the order (nobody above may
be held below those beneath); then, from the top down, each weight is lowered to those above it and clipped.  All this
is minima and maxima, which round nothing.  Axes: B rows, K teachers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solvers.polytope import WeightPolytope, interval_within


def snap_to_polytope(w_BK: Tensor, polytope: WeightPolytope, dtype: torch.dtype) -> Tensor:
    """Return w in ``dtype``, with bounds and margin-free orderings met to the last bit."""
    low_K, high_K = _tighten_bounds(polytope, dtype)
    columns: dict[int, Tensor] = {}
    rounded_BK = w_BK.to(dtype)
    for j in polytope.downward:
        w_B = rounded_BK[:, j]
        for i, beneath in polytope.orderings:
            if beneath == j:
                w_B = torch.minimum(w_B, columns[i] - polytope.margin if polytope.margin else columns[i])
        columns[j] = w_B.clamp(low_K[j], high_K[j])
    return torch.stack([columns[k] for k in range(polytope.n_teachers)], dim=-1)


def _tighten_bounds(polytope: WeightPolytope, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    low_K, high_K = (torch.tensor(bound_K, dtype=torch.float64) for bound_K in (polytope.lower, polytope.upper))
    for j in polytope.downward:
        for i, beneath in polytope.orderings:
            if beneath == j:
                high_K[j] = torch.minimum(high_K[j], high_K[i] - polytope.margin)
    for i in reversed(polytope.downward):
        for above, j in polytope.orderings:
            if above == i:
                low_K[i] = torch.maximum(low_K[i], low_K[j] + polytope.margin)
    return interval_within(low_K, high_K, dtype)  # rounded last: rounded first, they may cross
