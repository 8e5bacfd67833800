"""Rows of the exact projection by compiled kernels, for tensors in the processor's memory.

Answers are numpy's memory: it asks the system for large pages, and small ones cost more than the projection.
Axes: B rows, K teachers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ._batch_kernels import project_rows, pull_back_rows
from ._dag_rows import project_dag_rows
from ._lane_kernels import LONGEST, project_lanes, pull_back_lanes, static
from ._order import CHAIN, DAG, FREE, RowOrder
from ._threads import over_rows


def project_on_cpu(
    v_BK: Tensor, order: RowOrder, lower: float, upper: float, kl: bool, labelled: bool = True
) -> tuple[Tensor, Tensor]:
    """Return weights (B, K) and block labels (B, K).  A row with a score that cannot be used is NaN throughout.

    labelled: False where no derivative will be asked for; the labels then are (0, K), as they always are on a chain and
    without orderings, where the weights tell the blocks.
    """
    v_BK = v_BK.contiguous()  # kernels are compiled for one layout
    B, K = v_BK.shape
    kind, order_K, edge_E2 = order.kind, order.order_K, order.edge_E2
    labels = B if labelled and kind not in (FREE, CHAIN) else 0
    v, tier = v_BK.numpy(), order.tiers
    w, block = np.empty_like(v), np.empty((labels, K), np.int16)
    side_by_side = not kl and LONGEST.get(kind, 0) >= K
    width, which = static(K), static(order.side_by_side)

    def project_range(start: int, stop: int) -> int:
        if kind == DAG:
            return project_dag_rows(v, edge_E2, kl, lower, upper, w, block, labelled, start, stop)
        if not side_by_side:
            return project_rows(v, order_K, tier, kind, kl, lower, upper, w, block, start, stop)
        if project_lanes(v, order_K, tier, w, block, lower, upper, start, stop, width, which):
            left = start + np.flatnonzero(np.isnan(w[start:stop, 0]))
            for run in np.split(left, np.flatnonzero(np.diff(left) > 1) + 1):  # neighbours together
                project_rows(v, order_K, tier, kind, kl, lower, upper, w, block, int(run[0]), int(run[-1]) + 1)
        return 0

    over_rows(project_range, B, K)
    return torch.from_numpy(w), torch.from_numpy(block)


def pull_back_on_cpu(
    grad_BK: Tensor,
    v_BK: Tensor,
    w_BK: Tensor,
    block_BK: Tensor,
    order: RowOrder,
    lower: float,
    upper: float,
    kl: bool,
) -> Tensor:
    """Return the transposed Jacobian times grad, (B, K); block_BK: as ``project_on_cpu`` gave it."""
    B, K = grad_BK.shape
    kind, order_K = order.kind, order.order_K
    grad, w, block = (x.detach().contiguous().numpy() for x in (grad_BK, w_BK, block_BK))
    out = np.empty_like(w)
    if not kl and LONGEST.get(kind, 0) >= K:
        width, which = static(K), static(order.side_by_side)

        def run(start: int, stop: int) -> int:
            pull_back_lanes(grad, order_K, w, block, out, lower, upper, start, stop, width, which)
            return 0

    else:
        v = v_BK.detach().contiguous().numpy()

        def run(start: int, stop: int) -> int:
            pull_back_rows(grad, v, w, block, order_K, kind, kl, lower, upper, out, start, stop)
            return 0

    over_rows(run, B, K)
    return torch.from_numpy(out)
