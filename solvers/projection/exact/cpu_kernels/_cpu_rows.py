"""Rows of the exact projection by compiled kernels, for tensors in the processor's memory.

Answers are numpy's memory: it asks the system for large pages, and small ones cost more than the projection.
Axes: B rows, K teachers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._projection_inputs import RaiseUnusable
from ..._projection_orders import CHAIN, DAG, FREE, RowOrder
from ._batch_kernels import project_tier_rows, pull_back_tier_rows
from ._row_shares import Tally
from ._row_threads import run_over_rows, share_rows
from .partial_orders._partial_order_rows import project_partial_order_rows
from .simd._vector_kernels import LONGEST, encode_static, project_simd_rows, pull_back_simd_rows

Array = Any


def project_on_cpu(
    v_BK: Tensor,
    order: RowOrder,
    lower: float,
    upper: float,
    kl: bool,
    labelled: bool = True,
    raise_unusable: RaiseUnusable | None = None,
) -> tuple[Tensor, Tensor]:
    """Return weights (B, K) and block labels (B, K).  A row with a score that cannot be used is NaN throughout.

    v_BK must need no gradient, or gradients be off.
    labelled: False where no derivative will be asked for; the labels then are (0, K), as they always are on a chain and
    without orderings, where the weights tell the blocks.
    raise_unusable: called if there are rows with scores that cannot be used.
    """
    v = v_BK.contiguous().numpy()  # kernels are compiled for one layout
    w = np.empty(v.shape, v.dtype)
    block, labels_BK = _labels(*v.shape) if labelled and order.kind not in (FREE, CHAIN) else _no_labels(v.shape[1])
    if not kl and LONGEST.get(order.kind, 0) >= v.shape[1]:
        unusable = _project_side_by_side(v, order, lower, upper, w, block)
    else:
        unusable = _project_one_by_one(v, order, lower, upper, kl, w, block, labelled)
    if unusable and raise_unusable:
        raise_unusable()
    return torch.from_numpy(w), labels_BK


def _project_side_by_side(
    v_BK: Array, order: RowOrder, lower: float, upper: float, w_BK: Array, block_BK: Array
) -> bool:
    """Set weights and labels; return whether some rows cannot be used."""
    order_K, tier_RK, width, kind = (
        order.order_K,
        order.tiers,
        encode_static(v_BK.shape[1]),
        encode_static(order.side_by_side),
    )

    def work(tally: Tally, share: int) -> None:
        project_simd_rows(v_BK, order_K, tier_RK, w_BK, block_BK, lower, upper, tally, share, width, kind)

    if not share_rows(work, *v_BK.shape):
        return False
    left_N, unusable = np.flatnonzero(np.isnan(w_BK[:, 0])), 0
    for run in np.split(left_N, np.flatnonzero(np.diff(left_N) > 1) + 1):  # neighbours together
        start, stop = int(run[0]), int(run[-1]) + 1
        unusable += project_tier_rows(
            v_BK, order_K, tier_RK, order.kind, False, lower, upper, w_BK, block_BK, start, stop
        )
    return unusable > 0


def _project_one_by_one(
    v_BK: Array,
    order: RowOrder,
    lower: float,
    upper: float,
    kl: bool,
    w_BK: Array,
    block_BK: Array,
    labelled: bool,
) -> bool:
    """As ``_project_side_by_side``, for rows of any kind."""

    def run(start: int, stop: int) -> int:
        if order.kind == DAG:
            return project_partial_order_rows(
                v_BK, order.edge_E2, kl, lower, upper, w_BK, block_BK, labelled, start, stop
            )
        return project_tier_rows(
            v_BK, order.order_K, order.tiers, order.kind, kl, lower, upper, w_BK, block_BK, start, stop
        )

    return run_over_rows(run, *v_BK.shape) > 0


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
    """Return the transposed Jacobian times grad, (B, K); block_BK: as ``project_on_cpu`` gave it.

    The tensors must need no gradient, or gradients be off.
    """
    kind, order_K = order.kind, order.order_K
    grad, w = grad_BK.contiguous().numpy(), w_BK.contiguous().numpy()
    block = _no_labels(w.shape[1])[0] if kind in (FREE, CHAIN) else block_BK.contiguous().numpy()
    out = np.empty(w.shape, w.dtype)
    if not kl and LONGEST.get(kind, 0) >= w.shape[1]:
        width, which = encode_static(w.shape[1]), encode_static(order.side_by_side)

        def work(tally: Tally, share: int) -> None:
            pull_back_simd_rows(grad, order_K, w, block, out, lower, upper, tally, share, width, which)

        share_rows(work, *w.shape)
    else:
        v = v_BK.contiguous().numpy()

        def run(start: int, stop: int) -> int:
            pull_back_tier_rows(grad, v, w, block, order_K, kind, kl, lower, upper, out, start, stop)
            return 0

        run_over_rows(run, *w.shape)
    return torch.from_numpy(out)


def _labels(B: int, K: int) -> tuple[Array, Tensor]:
    block = np.empty((B, K), np.int16)
    return block, torch.from_numpy(block)


@lru_cache(maxsize=256)
def _no_labels(K: int) -> tuple[Array, Tensor]:
    """Return what stands for labels where there are none: made once, for that takes as long as a row."""
    return _labels(0, K)
