"""Exact projections under uniform bounds and tiers, as differentiable functions.

euclidean   w = clip(iso(v) - tau, lower, upper)
kl          w = clip(exp(iso(log v) - tau), lower, upper)

with iso the isotonic regression on the tiers: it commutes with shifts, and bounding it by constants is clipping.

Gradients.  Let F be the entries strictly between the bounds, A the averaging within blocks, D = diag(w).
euclidean: dw = P A dv on F, P removing the mean over F.  kl: dw = D (a - <w, a>_F / <w, 1>_F) on F, a = A (dv / v).
Where the projection has a kink, an entry on a bound counts as clipped and scores that only just tie count as pooled:
this is the derivative on one of the sides, an element of the generalised Jacobian.

Both backwards are plain differentiable tensor operations, so they can be differentiated again.  Nothing here waits for
the device.  Axes: B rows, K teachers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ._isotonic import block_mean, blocks_of, decreasing_regression, first_of_run, sort_by_tier
from ._threshold import scale_to_sum, shift_to_sum

# numbers in the largest temporary, (B, 2K, K): what a processor's cache holds, what a device's memory can spare
_CHUNK = {"cpu": 1 << 17, "device": 1 << 24}

_Rows = Callable[[Tensor, "Tensor | None", Tensor, Tensor], tuple[Tensor, Tensor]]


def project_exact(v_BK: Tensor, tier_BK: Tensor | None, lower: Tensor, upper: Tensor, metric: str) -> Tensor:
    """Return the projection of each row.

    v_BK: finite scores, float32 or float64, positive if ``metric`` is "kl".  tier_BK: ranks, higher above lower, or
    None for no order.  lower, upper: scalars of v's dtype and device with K lower <= 1 <= K upper.
    Source: Best, Chakravarti and Ubhaya 2000 (bounded isotonic regression); Condat 2016 (thresholds).
    """
    function = _Euclidean if metric == "euclidean" else _KullbackLeibler
    projected: Tensor = function.apply(v_BK, tier_BK, lower, upper)  # type: ignore[no-untyped-call]
    return projected


class _Euclidean(Function):
    @staticmethod
    def forward(ctx: Any, v_BK: Tensor, tier_BK: Tensor | None, lower: Tensor, upper: Tensor) -> Tensor:
        w_BK, block_BK = _in_chunks(_euclidean_rows, v_BK, tier_BK, lower, upper)
        ctx.save_for_backward((w_BK > lower) & (w_BK < upper), block_BK)
        return w_BK

    @staticmethod
    def backward(ctx: Any, grad_BK: Tensor) -> tuple[Tensor | None, ...]:
        free_BK, block_BK = ctx.saved_tensors
        pooled_BK = torch.where(free_BK, block_mean(grad_BK, block_BK), 0.0)
        mean_B1 = pooled_BK.sum(dim=-1, keepdim=True) / free_BK.sum(dim=-1, keepdim=True).clamp_min(1)
        return torch.where(free_BK, pooled_BK - mean_B1, 0.0), None, None, None


class _KullbackLeibler(Function):
    @staticmethod
    def forward(ctx: Any, v_BK: Tensor, tier_BK: Tensor | None, lower: Tensor, upper: Tensor) -> Tensor:
        w_BK, block_BK = _in_chunks(_kl_rows, v_BK, tier_BK, lower, upper)
        # v and w are saved as input and output: the second derivative flows through both
        ctx.save_for_backward(v_BK, w_BK, (w_BK > lower) & (w_BK < upper), block_BK)
        return w_BK

    @staticmethod
    def backward(ctx: Any, grad_BK: Tensor) -> tuple[Tensor | None, ...]:
        v_BK, w_BK, free_BK, block_BK = ctx.saved_tensors
        mass_BK = torch.where(free_BK, w_BK, 0.0)
        total_B1 = mass_BK.sum(dim=-1, keepdim=True)
        total_B1 = torch.where(total_B1 > 0, total_B1, 1.0)
        mean_B1 = (mass_BK * grad_BK).sum(dim=-1, keepdim=True) / total_B1
        return block_mean(mass_BK * (grad_BK - mean_B1), block_BK) / v_BK, None, None, None


def _euclidean_rows(v_BK: Tensor, tier_BK: Tensor | None, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    order_BK, x_BK, block_BK = _pool(v_BK, tier_BK)
    return _unsort(shift_to_sum(x_BK, lower, upper), order_BK), _unsort(block_BK, order_BK)


def _kl_rows(v_BK: Tensor, tier_BK: Tensor | None, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    order_BK, z_BK, block_BK = _pool(v_BK.log(), tier_BK)
    # exp of equal numbers may differ in the last bit (vector and scalar code), which would break ties and order
    w_BK = scale_to_sum(z_BK, lower, upper).gather(-1, first_of_run(z_BK)).cummin(dim=-1).values
    return _unsort(w_BK, order_BK), _unsort(block_BK, order_BK)


def _in_chunks(
    rows_of: _Rows, v_BK: Tensor, tier_BK: Tensor | None, lower: Tensor, upper: Tensor
) -> tuple[Tensor, Tensor]:
    """Return weights and block labels of all rows, some rows at a time."""
    length = max(1, _CHUNK["cpu" if v_BK.is_cpu else "device"] // (2 * v_BK.shape[-1] ** 2))
    pieces = [
        rows_of(
            v_BK[start : start + length], None if tier_BK is None else tier_BK[start : start + length], lower, upper
        )
        for start in range(0, len(v_BK), length)
    ]
    return torch.cat([w_BK for w_BK, _ in pieces]), torch.cat([block_BK for _, block_BK in pieces])


def _pool(x_BK: Tensor, tier_BK: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sorted order, the isotonic regression in that order, and its blocks."""
    order_BK = sort_by_tier(x_BK, tier_BK)
    sorted_BK = x_BK.gather(-1, order_BK)
    if tier_BK is None:
        return order_BK, sorted_BK, blocks_of(sorted_BK, None)
    pooled_BK = decreasing_regression(sorted_BK)
    return order_BK, pooled_BK, blocks_of(pooled_BK, tier_BK.gather(-1, order_BK))


def _unsort(x_BK: Tensor, order_BK: Tensor) -> Tensor:
    return torch.empty_like(x_BK).scatter(-1, order_BK, x_BK)
