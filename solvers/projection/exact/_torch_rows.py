"""Rows of the exact projection on a device: by Triton kernels where they serve, or else by tensor operations.

Neither waits for the device.  Tensor operations need nothing but torch: a sort, cumulative sums and bisections, some
tens of reads and writes of the rows.  Kernels read and write once.

Axes: B rows, K teachers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._projection_orders import CHAIN, DAG, RowOrder
from ._torch_isotonic import find_blocks, find_run_starts, regress_nonincreasing, sort_rows_by_tier
from ._torch_threshold import scale_to_sum, shift_to_sum
from .cpu_kernels._cpu_rows import project_on_cpu
from .gpu import can_use_triton, project_on_triton


@dataclass(frozen=True)
class TorchPathSettings:
    """How many rows go through tensor operations at once; `python -m benchmarks.projection` shows a change.

    Attributes:
        numbers_on_cpu: Numbers at once on the processor: what its cache holds of a dozen temporaries.
        numbers_on_device: Numbers at once on a device: what its memory can spare.
    """

    numbers_on_cpu: int = 1 << 16
    numbers_on_device: int = 1 << 24


TORCH_PATH = TorchPathSettings()


def project_on_device(
    v_BK: Tensor, order: RowOrder, lower: float, upper: float, kl: bool, labeled: bool = True
) -> tuple[Tensor, Tensor]:
    """Return weights and block labels, both (B, K), on v's device.  A score that cannot be used makes its row NaN.

    labeled: False where no derivative will be asked for; the labels may then be empty.
    """
    if order.kind == DAG:  # a partial order has no form without a loop: its rows go through the processor
        on_cpu = project_on_cpu(v_BK.cpu(), order, lower, upper, kl)
        return on_cpu[0].to(v_BK.device), on_cpu[1].to(v_BK.device)
    if can_use_triton(v_BK):
        return project_on_triton(v_BK, order, lower, upper, kl, labeled)
    return project_by_operations(v_BK, order, lower, upper, kl, labeled)


def project_by_operations(
    v_BK: Tensor, order: RowOrder, lower: float, upper: float, kl: bool, labeled: bool = True
) -> tuple[Tensor, Tensor]:
    """As ``project_on_device``, by tensor operations, for any order but DAG."""
    numbers = TORCH_PATH.numbers_on_cpu if v_BK.is_cpu else TORCH_PATH.numbers_on_device
    shares = -(-v_BK.numel() // numbers)  # of equal length
    length = max(1, -(-len(v_BK) // max(1, shares)))
    tier_BK = order.tiers_for(v_BK)
    chain_K = torch.from_numpy(order.order_K).to(v_BK.device) if order.kind == CHAIN else None
    pieces = []
    for start in range(0, max(len(v_BK), 1), length):
        rows = slice(start, start + length)
        tiers = None if tier_BK is None else tier_BK[rows]
        pieces.append(_project_piece(v_BK[rows], tiers, chain_K, lower, upper, kl, labeled))
    if len(pieces) == 1:
        return pieces[0]
    return torch.cat([w_BK for w_BK, _ in pieces]), torch.cat([block_BK for _, block_BK in pieces])


def _project_piece(
    v_BK: Tensor,
    tier_BK: Tensor | None,
    chain_K: Tensor | None,
    lower: float,
    upper: float,
    kl: bool,
    labeled: bool,
) -> tuple[Tensor, Tensor]:
    x_BK = v_BK.log() if kl else v_BK
    spoiler_B1 = (x_BK * 0).sum(dim=-1, keepdim=True)  # NaN for rows with a score that cannot be used
    if tier_BK is None:
        x_BK, order_BK = x_BK.sort(dim=-1, descending=True, stable=True)
    else:
        order_BK = sort_rows_by_tier(x_BK, tier_BK) if chain_K is None else chain_K.expand(x_BK.shape)
        x_BK = regress_nonincreasing(x_BK.gather(-1, order_BK))
    if kl:
        # exp of equal numbers may differ in the last bit (vector and scalar code), which would break ties and order
        w_BK = scale_to_sum(x_BK, lower, upper).gather(-1, find_run_starts(x_BK)).cummin(dim=-1).values
    else:
        w_BK = shift_to_sum(x_BK, lower, upper)
    w_BK = _unsort(w_BK, order_BK) + spoiler_B1
    if not labeled:
        return w_BK, torch.empty(0, 0, dtype=torch.int64, device=v_BK.device)
    block_BK = find_blocks(x_BK, None if tier_BK is None else tier_BK.gather(-1, order_BK))
    return w_BK, _unsort(block_BK, order_BK)


def _unsort(x_BK: Tensor, order_BK: Tensor) -> Tensor:
    return torch.empty_like(x_BK).scatter(-1, order_BK, x_BK)
