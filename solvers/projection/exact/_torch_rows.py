"""Rows of the exact projection on a device: by Triton kernels where they serve, or else by tensor operations.

Neither waits for the device.  Tensor operations need nothing but torch, and write temporaries of K numbers a number;
kernels read and write once.

Axes: B rows, K teachers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._projection_orders import DAG, RowOrder
from ._torch_isotonic import find_blocks, find_run_starts, regress_nonincreasing, sort_rows_by_tier
from ._torch_threshold import scale_to_sum, shift_to_sum
from .cpu_kernels._cpu_rows import project_on_cpu
from .gpu._triton_launch import can_use_triton, project_on_triton

# numbers in the largest temporary, (B, 2K, K): what a processor's cache holds, what a device's memory can spare
_CHUNK = {"cpu": 1 << 17, "device": 1 << 24}

_Rows = Callable[[Tensor, "Tensor | None", Tensor, Tensor], tuple[Tensor, Tensor]]


def project_on_device(
    v_BK: Tensor, order: RowOrder, lower: float, upper: float, kl: bool, labelled: bool = True
) -> tuple[Tensor, Tensor]:
    """Return weights and block labels, both (B, K), on v's device.  A score that cannot be used makes its row NaN.

    labelled: False where no derivative will be asked for; the labels may then be empty.
    """
    if order.kind == DAG:  # a partial order has no form without a loop: its rows go through the processor
        on_cpu = project_on_cpu(v_BK.cpu(), order, lower, upper, kl)
        return on_cpu[0].to(v_BK.device), on_cpu[1].to(v_BK.device)
    if can_use_triton(v_BK):
        return project_on_triton(v_BK, order, lower, upper, kl, labelled)
    return project_by_operations(v_BK, order, lower, upper, kl)


def project_by_operations(v_BK: Tensor, order: RowOrder, lower: float, upper: float, kl: bool) -> tuple[Tensor, Tensor]:
    """As ``project_on_device``, by tensor operations, for any order but DAG."""
    low, high = (torch.tensor(bound, dtype=v_BK.dtype, device=v_BK.device) for bound in (lower, upper))
    w_BK, block_BK = _in_chunks(_kl_rows if kl else _euclidean_rows, v_BK, order.tiers_for(v_BK), low, high)
    usable_BK = v_BK.isfinite() & (v_BK > 0) if kl else v_BK.isfinite()
    return torch.where(usable_BK.all(dim=-1, keepdim=True), w_BK, torch.nan), block_BK


def _euclidean_rows(v_BK: Tensor, tier_BK: Tensor | None, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    order_BK, x_BK, block_BK = _pool(v_BK, tier_BK)
    return _unsort(shift_to_sum(x_BK, lower, upper), order_BK), _unsort(block_BK, order_BK)


def _kl_rows(v_BK: Tensor, tier_BK: Tensor | None, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    order_BK, z_BK, block_BK = _pool(v_BK.log(), tier_BK)
    # exp of equal numbers may differ in the last bit (vector and scalar code), which would break ties and order
    w_BK = scale_to_sum(z_BK, lower, upper).gather(-1, find_run_starts(z_BK)).cummin(dim=-1).values
    return _unsort(w_BK, order_BK), _unsort(block_BK, order_BK)


def _in_chunks(
    project_rows_exactly: _Rows, v_BK: Tensor, tier_BK: Tensor | None, lower: Tensor, upper: Tensor
) -> tuple[Tensor, Tensor]:
    """Return weights and block labels of all rows, some rows at a time."""
    length = max(1, _CHUNK["cpu" if v_BK.is_cpu else "device"] // (2 * v_BK.shape[-1] ** 2))
    pieces = [
        project_rows_exactly(
            v_BK[start : start + length], None if tier_BK is None else tier_BK[start : start + length], lower, upper
        )
        for start in range(0, len(v_BK), length)
    ]
    return torch.cat([w_BK for w_BK, _ in pieces]), torch.cat([block_BK for _, block_BK in pieces])


def _pool(x_BK: Tensor, tier_BK: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sorted order, the isotonic regression in that order, and its blocks."""
    order_BK = sort_rows_by_tier(x_BK, tier_BK)
    sorted_BK = x_BK.gather(-1, order_BK)
    if tier_BK is None:
        return order_BK, sorted_BK, find_blocks(sorted_BK, None)
    pooled_BK = regress_nonincreasing(sorted_BK)
    return order_BK, pooled_BK, find_blocks(pooled_BK, tier_BK.gather(-1, order_BK))


def _unsort(x_BK: Tensor, order_BK: Tensor) -> Tensor:
    return torch.empty_like(x_BK).scatter(-1, order_BK, x_BK)
