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
from ._row_shares import LARGEST, Tally, new_tally
from ._row_threads import count_helpers, run_over_rows, share_rows
from .partial_orders import project_partial_order_rows
from .simd._vector_kernels import SIMD, encode_static, project_simd_rows, pull_back_simd_rows

Array = Any


def project_on_cpu(
    v_BK: Tensor,
    order: RowOrder,
    lower: float,
    upper: float,
    kl: bool,
    labeled: bool = True,
    raise_unusable: RaiseUnusable | None = None,
) -> tuple[Tensor, Tensor]:
    """Return weights (B, K) and block labels (B, K).  A row with a score that cannot be used is NaN throughout.

    v_BK must need no gradient, or gradients be off.
    labeled: False where no derivative will be asked for; the labels then are (0, K), as they always are on a chain and
    without orderings, where the weights tell the blocks.
    raise_unusable: called if there are rows with scores that cannot be used.
    """
    v = v_BK.contiguous().numpy()  # kernels are compiled for one layout
    w = np.empty(v.shape, v.dtype)
    rows, K = v.shape
    kind = order.kind
    block, labels_BK = _make_labels(rows, K) if labeled and kind not in (FREE, CHAIN) else _make_no_labels(K)
    if kl or SIMD.longest.get(kind, 0) < K:
        unusable = _project_one_by_one(v, order, lower, upper, kl, w, block, labeled)
    else:
        order_K, tier_RK, width, code = order.order_K, order.tiers, encode_static(K), encode_static(order.side_by_side)
        if count_helpers(rows, K):

            def work(tally: Tally, share: int) -> None:
                project_simd_rows(v, order_K, tier_RK, w, block, lower, upper, tally, share, width, code)

            unusable = share_rows(work, rows, K)
        else:
            tally = new_tally()
            project_simd_rows(v, order_K, tier_RK, w, block, lower, upper, tally, rows, width, code)
            unusable = tally[LARGEST]
        if unusable:
            unusable = _project_left_rows(v, order, lower, upper, w, block)
    if unusable and raise_unusable:
        raise_unusable()
    return torch.from_numpy(w), labels_BK


def _project_left_rows(v_BK: Array, order: RowOrder, lower: float, upper: float, w_BK: Array, block_BK: Array) -> int:
    """Project the rows that SIMD kernels left as NaN; return how many of them cannot be used."""
    left_N, unusable = np.flatnonzero(np.isnan(w_BK[:, 0])), 0
    for run in np.split(left_N, np.flatnonzero(np.diff(left_N) > 1) + 1):  # neighbors together
        place = int(run[0]), int(run[-1]) + 1
        unusable += project_tier_rows(
            v_BK, order.order_K, order.tiers, order.kind, False, lower, upper, w_BK, block_BK, *place
        )
    return unusable


def _project_one_by_one(
    v_BK: Array,
    order: RowOrder,
    lower: float,
    upper: float,
    kl: bool,
    w_BK: Array,
    block_BK: Array,
    labeled: bool,
) -> int:
    """Set weights and labels of rows of any kind; return whether some cannot be used."""

    def run(start: int, stop: int) -> int:
        if order.kind == DAG:
            return project_partial_order_rows(
                v_BK, order.edge_E2, kl, lower, upper, w_BK, block_BK, labeled, start, stop
            )
        return project_tier_rows(
            v_BK, order.order_K, order.tiers, order.kind, kl, lower, upper, w_BK, block_BK, start, stop
        )

    return run_over_rows(run, *v_BK.shape)


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
    block = _make_no_labels(w.shape[1])[0] if kind in (FREE, CHAIN) else block_BK.contiguous().numpy()
    out = np.empty(w.shape, w.dtype)
    if not kl and SIMD.longest.get(kind, 0) >= w.shape[1]:
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


def _make_labels(B: int, K: int) -> tuple[Array, Tensor]:
    block = np.empty((B, K), np.int16)
    return block, torch.from_numpy(block)


@lru_cache(maxsize=256)
def _make_no_labels(K: int) -> tuple[Array, Tensor]:
    """Return what stands for labels where there are none: made once, for that takes as long as a row."""
    return _make_labels(0, K)
