"""Batches of rows with bounds of each teacher's own and margins, compiled: forward, backward, and a look beforehand.

Tiers and bounds come as one row for all, or one a row.  Axes: B rows, K teachers, R, Q = 1 or B.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._batch_kernels import give_up_row, read_row
from ._bounded_kernels import PlaceBlocks, PlaceChain, find_threshold, set_chain_bounds
from ._kernel_compiler import cpu_kernel
from ._row_kernels import sort_row

Array = Any

FITS, MIXED, CROSSED, TOO_MUCH, TOO_LITTLE = 0, 1, 2, 3, 4


@cpu_kernel
def has_several_tiers(tier_K: Array) -> bool:
    """Tell whether there is more than one tier."""
    several = False
    for k in range(1, tier_K.shape[0]):
        several = several or tier_K[k] != tier_K[0]
    return several


@cpu_kernel
def project_bounded_rows(
    v_BK: Array,
    order_K: Array,
    tier_RK: Array,
    low_QK: Array,
    high_QK: Array,
    margin: float,
    kl: bool,
    w_BK: Array,
    block_BK: Array,
    labeled: bool,
    start: int,
    stop: int,
) -> int:
    """Project rows start to stop; return how many hold a score that cannot be used, whose weights are NaN.

    order_K: a permutation, the nearer to descending tiers the better.  w_BK: answers.  block_BK: for each teacher the
    first place of its block, less one and negated (~) where a bound holds the block; left alone unless labeled.
    """
    K = v_BK.shape[1]
    order, score = np.empty(K, np.int64), np.empty(K)
    chain = PlaceChain(np.empty(K), np.empty(K), np.empty(K), np.empty(K), np.empty(K), np.empty(K), np.empty(K))
    blocks = PlaceBlocks(np.empty(K, np.int64), np.empty(K), np.empty(K), np.empty(K), np.empty(K))
    shared = tier_RK.shape[0] == 1 and low_QK.shape[0] == 1
    ready = False
    unusable = 0
    for b in range(start, stop):
        if not read_row(v_BK[b], kl, score):
            unusable += give_up_row(w_BK, block_BK, b)
            continue
        tier = tier_RK[b if tier_RK.shape[0] > 1 else 0]
        low_K, high_K = low_QK[b if low_QK.shape[0] > 1 else 0], high_QK[b if high_QK.shape[0] > 1 else 0]
        chained = has_several_tiers(tier)
        for k in range(K):
            order[k] = order_K[k]
            chain.score[k] = score[order_K[k]]
        if chained:
            sort_row(score, tier, True, order, chain.score)
        if not (shared and ready):  # bounds are equal inside a tier: places have them whatever the scores
            set_chain_bounds(low_K, high_K, tier, order, margin, chained, kl, chain)
            ready = True
        count = find_threshold(chain, kl, chained, blocks)
        write_bounded_row(chain, blocks, count, tier, order, low_K, high_K, w_BK[b])
        if labeled:
            label_bounded_row(blocks, count, tier, order, block_BK[b])
    return unusable


@cpu_kernel
def write_bounded_row(
    chain: PlaceChain,
    blocks: PlaceBlocks,
    count: int,
    tier_K: Array,
    order_K: Array,
    low_K: Array,
    high_K: Array,
    w_K: Array,
) -> None:
    """Give each teacher the value of its block and its own offset; rounding of the sum must not leave the bounds."""
    K = order_K.shape[0]
    for j in range(count):
        for k in range(blocks.first[j], blocks.first[j + 1] if j + 1 < count else K):
            place = order_K[k]
            w_K[place] = min(max(blocks.value[j] + chain.offset[k], low_K[place]), high_K[place])


@cpu_kernel
def label_bounded_row(blocks: PlaceBlocks, count: int, tier_K: Array, order_K: Array, block_K: Array) -> None:
    """Label the teachers of each block; free blocks of neighboring tiers that only just tie count as one."""
    K = order_K.shape[0]
    label = 0
    for j in range(count):
        first = blocks.first[j]
        held = blocks.mass[j] == 0.0
        if (
            j == 0
            or held
            or blocks.mass[j - 1] == 0.0
            or blocks.value[j - 1] != blocks.value[j]
            or tier_K[order_K[first - 1]] == tier_K[order_K[first]]
        ):
            label = first
        for k in range(first, blocks.first[j + 1] if j + 1 < count else K):
            block_K[order_K[k]] = ~label if held else label


@cpu_kernel
def pull_back_bounded_rows(
    grad_BK: Array, v_BK: Array, w_BK: Array, block_BK: Array, kl: bool, out_BK: Array, start: int, stop: int
) -> None:
    """Set out to the transposed Jacobian times grad, rows start to stop; formulas in ``_bounded_projection``."""
    K = grad_BK.shape[1]
    total, inverse, size = np.empty(K), np.empty(K), np.empty(K)
    for b in range(start, stop):
        for k in range(K):
            total[k], inverse[k], size[k] = 0.0, 0.0, 0.0
        for k in range(K):
            block = block_BK[b, k]
            if block >= 0:
                total[block] += grad_BK[b, k]
                inverse[block] += 1.0 / w_BK[b, k] if kl else 1.0
                size[block] += 1.0
        mass, mean = 0.0, 0.0
        for j in range(K):
            if size[j] > 0.0:
                weight = size[j] / inverse[j]
                mass += weight * size[j]
                mean += weight * total[j]
        mean = mean / mass if mass > 0.0 else 0.0
        for k in range(K):
            block = block_BK[b, k]
            if block >= 0:
                gradient = (total[block] / size[block] - mean) * (size[block] / inverse[block])
                out_BK[b, k] = gradient / v_BK[b, k] if kl else gradient
            else:
                out_BK[b, k] = 0.0


@cpu_kernel
def check_row_rules(
    order_K: Array,
    tier_RK: Array,
    low_QK: Array,
    high_QK: Array,
    margin: float,
    eps: float,
    finding_B: Array,
    number_B3: Array,
    start: int,
    stop: int,
) -> int:
    """Say of rows start to stop whether bounds are equal inside each tier, and if so whether they leave any weights.

    finding_B: FITS; MIXED, bounds differ inside one of several tiers; CROSSED, the order pushes the lower bound of a
    teacher above its upper one; TOO_MUCH, TOO_LITTLE, lower bounds add up to more than 1, upper ones to less.
    number_B3: a teacher, its bounds; or 0, the sums of the bounds.  Returns the largest finding.
    """
    K = tier_RK.shape[1]
    order, sorted_tier = np.empty(K, np.int64), np.empty(K)
    chain = PlaceChain(np.empty(K), np.empty(K), np.empty(K), np.empty(K), np.empty(K), np.empty(K), np.empty(K))
    largest = FITS
    for b in range(start, stop):
        tier = tier_RK[b if tier_RK.shape[0] > 1 else 0]
        low_K, high_K = low_QK[b if low_QK.shape[0] > 1 else 0], high_QK[b if high_QK.shape[0] > 1 else 0]
        for k in range(K):
            order[k] = order_K[k]
        chained = has_several_tiers(tier)
        if chained:
            sort_row(tier, tier, True, order, sorted_tier)
        finding = MIXED if chained and bounds_differ(tier, order, low_K, high_K) else FITS
        if finding == FITS:
            set_chain_bounds(low_K, high_K, tier, order, margin, chained, False, chain)
            finding = find_room(chain, order, eps, number_B3[b])
        finding_B[b] = finding
        largest = max(largest, finding)
    return largest


@cpu_kernel
def bounds_differ(tier_K: Array, order_K: Array, low_K: Array, high_K: Array) -> bool:
    """Tell whether two teachers of one tier have different bounds; order_K sorts the tiers."""
    for k in range(1, order_K.shape[0]):
        i, j = order_K[k - 1], order_K[k]
        if tier_K[i] == tier_K[j] and (low_K[i] != low_K[j] or high_K[i] != high_K[j]):
            return True
    return False


@cpu_kernel
def find_room(chain: PlaceChain, order_K: Array, eps: float, number_3: Array) -> int:
    """Return a finding of ``check_row_rules``, and set its numbers.

    Bounds that fall along the chain are in the order themselves, so the sum is all that can still fail.
    """
    lowest, highest = 0.0, 0.0
    grace = order_K.shape[0] * eps
    for k in range(order_K.shape[0]):
        low, high = chain.lower[k] + chain.offset[k], chain.upper[k] + chain.offset[k]
        if low > high + eps:
            number_3[0], number_3[1], number_3[2] = order_K[k], low, high
            return CROSSED
        lowest += low
        highest += high
    number_3[0], number_3[1], number_3[2] = 0.0, lowest, highest
    if lowest > 1.0 + grace:
        return TOO_MUCH
    return TOO_LITTLE if highest < 1.0 - grace else FITS
