"""Rows of the exact projection by compiled kernels, for tensors in the processor's memory.

Axes: B rows, K teachers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._batch_kernels import project_dag_rows, project_rows, pull_back_rows
from ._lane_kernels import LANES, LONGEST, project_lanes
from ._order import CHAIN, DAG, FREE, RowOrder
from ._threads import over_rows


def project_on_cpu(
    v_BK: Tensor, order: RowOrder, lower: float, upper: float, kl: bool, labelled: bool = True
) -> tuple[Tensor, Tensor]:
    """Return weights and block labels, both (B, K).  A row with a score that cannot be used is NaN throughout.

    labelled: False where no derivative will be asked for; the labels are then empty.
    """
    v_BK = v_BK.contiguous()  # kernels are compiled for one layout
    w_BK = torch.empty_like(v_BK)
    block_BK = torch.empty(v_BK.shape if labelled or order.kind == DAG else (0, 0), dtype=torch.int16)
    v, w, block, tier = v_BK.numpy(), w_BK.numpy(), block_BK.numpy(), order.tier_RK.contiguous().numpy()
    kind, order_K, edge_E2 = order.kind, order.order_K, order.edge_E2
    short = v_BK.shape[1] <= LONGEST and kind in (FREE, CHAIN) and not kl

    def run(start: int, stop: int) -> int:
        if kind == DAG:
            return project_dag_rows(v, edge_E2, kl, lower, upper, w, block, start, stop)
        if short and stop - start >= LANES:
            chained = kind == CHAIN
            return project_lanes(v, order_K, tier, kind, chained, lower, upper, w, block, labelled, start, stop)
        return project_rows(v, order_K, tier, kind, kl, lower, upper, w, block, labelled, start, stop)

    over_rows(run, *v_BK.shape)
    return w_BK, block_BK


def pull_back_on_cpu(
    grad_BK: Tensor, v_BK: Tensor, w_BK: Tensor, block_BK: Tensor, lower: float, upper: float, kl: bool
) -> Tensor:
    """Return the transposed Jacobian times grad, (B, K)."""
    out_BK = torch.empty_like(w_BK, memory_format=torch.contiguous_format)
    tensors = (grad_BK.detach(), v_BK.detach(), w_BK.detach(), block_BK, out_BK)
    grad, v, w, block, out = (x.contiguous().numpy() for x in tensors)

    def run(start: int, stop: int) -> int:
        pull_back_rows(grad, v, w, block, kl, lower, upper, out, start, stop)
        return 0

    over_rows(run, *grad_BK.shape)
    return out_BK
