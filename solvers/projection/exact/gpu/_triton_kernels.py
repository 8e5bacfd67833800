"""The exact projection and its derivative, one program a block of rows, in Triton.

One read, one write of memory: rows lie side by side in registers as columns (``_triton_columns``), where they are
sorted, pooled and moved to their threshold (``_triton_rows``).  Formulas of the derivative are in
``_projection_autograd``.

Axes: B rows in all, R rows of one program, K teachers, P the power of two from K on.
"""

from __future__ import annotations

import triton.language as tl

from ._triton_columns import (
    join_columns,
    sort_columns,
    sort_columns_by_tier,
    split_columns,
    triton_kernel,
    unsort_columns,
)
from ._triton_rows import (
    average_column_blocks,
    find_scale,
    find_shift,
    find_spoiler,
    label_column_blocks,
    regress_columns,
    scale_columns,
    shift_columns,
    take_log_ratios,
)


@triton_kernel
def project_block(
    v_BK: tl.tensor,
    w_BK: tl.tensor,
    block_BK: tl.tensor,
    order_K: tl.tensor,
    tier_RK: tl.tensor,
    rows: tl.tensor,
    lower: tl.float64,
    upper: tl.float64,
    K: tl.constexpr,
    P: tl.constexpr,
    R: tl.constexpr,
    PAIRS_N: tl.constexpr,
    POOLED: tl.constexpr,
    TIERED: tl.constexpr,
    OWN: tl.constexpr,
    PERMUTED: tl.constexpr,
    KL: tl.constexpr,
    LABELED: tl.constexpr,
) -> None:
    """Write weights, and if POOLED and LABELED block labels (int8), of R rows.

    POOLED: there are orderings.  TIERED: they are tiers, in tier_RK, one row for all or each its OWN; otherwise a
    chain, whose order is order_K if PERMUTED.  PAIRS_N: the ``list_exchanges`` of K.
    """
    first = tl.program_id(0).to(tl.int64) * R
    row_R, place_P = tl.arange(0, R), tl.arange(0, P)
    inside_RP = (row_R < rows - first)[:, None] & (place_P < K)[None, :]
    column_P = place_P
    if PERMUTED:
        column_P = tl.load(order_K + place_P, mask=place_P < K, other=0)
    at_RP = row_R[:, None] * K + column_P[None, :]
    x_K = split_columns(tl.load(v_BK + first * K + at_RP, mask=inside_RP, other=1.0), P)
    if KL:
        x_K = take_log_ratios(x_K, K)
    spoiler_R = find_spoiler(x_K, K)
    tier_K = x_K
    moved_N = ()
    if TIERED:
        tiers_RP = tier_RK + (first * K + at_RP if OWN else row_R[:, None] * 0 + place_P[None, :])
        tier_RP = tl.load(tiers_RP, mask=inside_RP, other=0.0)
        x_K, tier_K, moved_N = sort_columns_by_tier(x_K, split_columns(tier_RP, P), K, PAIRS_N)
    if POOLED:
        x_K = regress_columns(x_K, K, P)
        z_K = x_K
    else:
        z_K = sort_columns(x_K, K, PAIRS_N)
    if KL:
        pivot_R, scale_R = find_scale(z_K, lower, upper, K)
        y_K = scale_columns(x_K, pivot_R, scale_R, lower, upper, K, POOLED)
    else:
        pivot_R, shift_R = find_shift(z_K, lower, upper, K)
        y_K = shift_columns(x_K, pivot_R, shift_R, lower, upper, K)
    if TIERED:
        y_K = unsort_columns(y_K, moved_N, K, PAIRS_N)
    w_K = ()
    for k in tl.static_range(K):
        w_K = w_K + (y_K[k] + spoiler_R,)
    tl.store(w_BK + first * K + at_RP, join_columns(w_K, K, P), mask=inside_RP)
    if POOLED and LABELED:
        label_K = label_column_blocks(x_K, tier_K, K, TIERED)
        if TIERED:
            label_K = unsort_columns(label_K, moved_N, K, PAIRS_N)
        tl.store(block_BK + first * K + at_RP, join_columns(label_K, K, P), mask=inside_RP)


@triton_kernel
def pull_back_block(
    grad_BK: tl.tensor,
    v_BK: tl.tensor,
    w_BK: tl.tensor,
    block_BK: tl.tensor,
    out_BK: tl.tensor,
    rows: tl.tensor,
    lower: tl.float64,
    upper: tl.float64,
    K: tl.constexpr,
    P: tl.constexpr,
    R: tl.constexpr,
    POOLED: tl.constexpr,
    KL: tl.constexpr,
) -> None:
    """Write the transposed Jacobian times grad, of R rows.  v_BK is read if KL, block_BK if POOLED."""
    first = tl.program_id(0).to(tl.int64) * R
    row_R, place_P = tl.arange(0, R), tl.arange(0, P)
    inside_RP = (row_R < rows - first)[:, None] & (place_P < K)[None, :]
    at_RP = row_R[:, None] * K + place_P[None, :]
    w_RP = tl.load(w_BK + first * K + at_RP, mask=inside_RP, other=0.0)
    grad_RP = tl.load(grad_BK + first * K + at_RP, mask=inside_RP, other=0.0)
    low_RP, high_RP = tl.full((R, P), lower, w_RP.dtype), tl.full((R, P), upper, w_RP.dtype)
    free_RP = inside_RP & (w_RP > low_RP) & (w_RP < high_RP)
    mass_RP = tl.where(free_RP, w_RP if KL else low_RP * 0.0 + 1.0, 0.0)
    total_R = tl.sum(mass_RP, axis=1)
    mean_R = tl.sum(tl.where(free_RP, mass_RP * grad_RP, 0.0), axis=1) / tl.where(total_R > 0.0, total_R, 1.0)
    slope_RP = tl.where(free_RP, mass_RP * (grad_RP - mean_R[:, None]), 0.0)
    if POOLED:
        label_RP = tl.load(block_BK + first * K + at_RP, mask=inside_RP, other=-1)
        slope_K = average_column_blocks(split_columns(slope_RP, P), split_columns(label_RP, P), K)
        slope_RP = tl.where(free_RP, join_columns(slope_K, K, P), 0.0)
    if KL:
        slope_RP /= tl.load(v_BK + first * K + at_RP, mask=inside_RP, other=1.0)
    tl.store(out_BK + first * K + at_RP, slope_RP, mask=inside_RP)
