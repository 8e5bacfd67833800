"""Isotonic regression on a partial order by looking at all its upper sets, compiled, many rows side by side.

    minimize |x - v|^2   subject to   x_i >= x_j for each edge (i, j)

The teachers whose x exceeds a level are the upper set U with the largest  sum_U v - level |U|  (Picard 1976).  So only
the best sum of each size counts: the corners of the upper concave envelope of (size, best sum), n = 0 .. N, are those
sets, the steps between them hold the blocks, and a block's value is the slope there, its mean.

The best sums take one addition and one comparison an upper set, the same for all rows, which the compiler turns
into
vector instructions.  The envelope is a walk of N steps.  Rounding can put a corner where two slopes tie, never an order
wrong: what a corner adds to those before is again the step to an upper set, and a mean above an earlier one is lowered.

Axes: B rows, K teachers (by place where ``UpperSets`` says so), S upper sets, N sizes 0 .. K, L rows side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._kernel_compiler import cpu_kernel, inlined_kernel, lowest_bit
from ._block_list import BlockList, append_block, new_block_list, write_block_row
from ._forest_search import project_forest_rows
from ._upper_sets import UpperSets, list_all_upper_sets

Array = Any


@dataclass(frozen=True)
class UpperSetRowsSettings:
    """Which rows go side by side; the rows "dag" of `python -m benchmarks.projection` notice a change.

    Attributes:
        rows_together: Rows; fewer are not vectorized, more fall out of the nearest cache.
        widest: Distance of scores, in units of weights, beyond which rounding of their sums would show in the weights:
            such rows go one by one.
    """

    rows_together: int = 32
    widest: float = 256.0


UPPER_SET_ROWS = UpperSetRowsSettings()
ROWS_TOGETHER, WIDEST = UPPER_SET_ROWS.rows_together, UPPER_SET_ROWS.widest  # kernels read plain numbers


@cpu_kernel
def load_row_group(v_BK: Array, teacher_K: Array, kl: bool, row: int, stop: int, y_KL: Array, plain_L: Array) -> bool:
    """Copy rows (logarithms for kl) by place, relative to the first; say which are plain and whether any is.

    Slots beyond the last row repeat it.
    """
    any_plain = False
    for slot in range(ROWS_TOGETHER):
        b = min(row + slot, stop - 1)
        base, plain = 0.0, True
        for k in range(v_BK.shape[1]):
            read = np.float64(v_BK[b, teacher_K[k]])  # as in ``read_row``
            score = math.log(read) if kl else read
            base = score if k == 0 else base
            y_KL[k, slot] = score - base
            plain &= abs(y_KL[k, slot]) <= WIDEST  # NaN is not
        plain_L[slot] = plain
        any_plain |= plain
    return any_plain


@cpu_kernel
def find_best_sums(sets: UpperSets, part: int, y_KL: Array, sum_NL: Array, best_KL: Array, who_KL: Array) -> None:
    """Find for each size the largest sum of an upper set of one part, and whose it is: size n at place n - 1 of it.

    sum_NL: the sums on the way to the current upper set, 0 for size 0.
    """
    first = sets.part_C1[part]
    best_NL, who_NL = best_KL[first : sets.part_C1[part + 1]], who_KL[first:]
    best_NL[:] = -math.inf
    for s in range(sets.list_C1[part], sets.list_C1[part + 1]):
        k, n, bits = sets.added_S[s], sets.size_S[s], sets.bits_S[s]
        for slot in range(ROWS_TOGETHER):
            total = sum_NL[n - 1, slot] + y_KL[k, slot]
            sum_NL[n, slot] = total
            better = total > best_NL[n - 1, slot]
            who_NL[n - 1, slot] = bits if better else who_NL[n - 1, slot]
            best_NL[n - 1, slot] = total if better else best_NL[n - 1, slot]


@inlined_kernel
def find_envelope_corners(best_KL: Array, slot: int, first: int, end: int, corner_K: Array) -> int:
    """Set corner_K to the places at which the envelope of one part's best sums bends; return how many.

    From each corner the steepest way leads to the next, the nearest of equals.
    """
    count, at, base = 0, first - 1, 0.0
    while at < end - 1:
        steepest, place = -math.inf, at
        for k in range(at + 1, end):
            slope = (best_KL[k, slot] - base) / (k - at)
            place = k if slope > steepest else place
            steepest = slope if slope > steepest else steepest
        corner_K[count], at, base = place, place, best_KL[place, slot]
        count += 1
    return count


@inlined_kernel
def lower_to_order(mean: float, block: int, edge_E2: Array, listed: BlockList) -> float:
    """Return the mean of a block, or that of the lowest block above it if rounding has put it higher."""
    for e in range(edge_E2.shape[0]):
        above = listed.label_K[edge_E2[e, 0]]
        if listed.label_K[edge_E2[e, 1]] == block and above >= 0 and above != block:
            mean = min(mean, listed.mean_K[above])
    return mean


@inlined_kernel
def list_step_blocks(
    sets: UpperSets, first: int, rest: int, lowest: float, y_KL: Array, slot: int, listed: BlockList, blocks: int
) -> int:
    """Append the blocks that the teachers with bits ``rest`` form; return how many there are now.

    They share one mean, but where no edge joins them they are blocks of their own: derivatives differ.  lowest: the
    lowest mean before.
    """
    while rest:
        reached = rest & -rest
        rest ^= reached
        total, size = 0.0, 0
        while reached:
            k = first + lowest_bit(reached)
            near = sets.near_K[k] & rest
            rest ^= near
            reached = (reached & (reached - 1)) | near
            total += y_KL[k, slot]
            size += 1
            listed.label_K[sets.teacher_K[k]] = blocks
        mean = total / size
        if mean > lowest:
            mean = lower_to_order(mean, blocks, sets.edge_E2, listed)
        append_block(listed, blocks, mean, size)
        blocks += 1
    return blocks


@inlined_kernel
def list_row_blocks(
    sets: UpperSets, y_KL: Array, slot: int, best_KL: Array, who_KL: Array, corner_K: Array, listed: BlockList
) -> int:
    """List the blocks of one slot; return how many."""
    blocks = 0
    for k in range(y_KL.shape[0]):
        listed.label_K[k] = -1
    for part in range(sets.part_C1.shape[0] - 1):
        first, end = sets.part_C1[part], sets.part_C1[part + 1]
        if end - first == 1:
            listed.label_K[sets.teacher_K[first]] = blocks
            append_block(listed, blocks, y_KL[first, slot], 1)
            blocks += 1
            continue
        used, lowest = 0, math.inf
        for j in range(find_envelope_corners(best_KL, slot, first, end, corner_K)):
            before = blocks
            blocks = list_step_blocks(
                sets, first, who_KL[corner_K[j], slot] & ~used, lowest, y_KL, slot, listed, blocks
            )
            used |= who_KL[corner_K[j], slot]
            for block in range(before, blocks):
                lowest = min(lowest, listed.mean_K[block])
    return blocks


@cpu_kernel
def project_upper_set_rows(
    v_BK: Array,
    sets: UpperSets,
    kl: bool,
    lower: float,
    upper: float,
    w_BK: Array,
    block_BK: Array,
    labeled: bool,
    start: int,
    stop: int,
) -> int:
    """Project rows start to stop with the order whose upper sets are given; as ``project_tier_rows`` otherwise.

    Rows that need care go one by one through ``project_forest_rows``.  A row's weights do not depend on its neighbors.
    """
    K = v_BK.shape[1]
    y, total = np.empty((K, ROWS_TOGETHER)), np.zeros((K + 1, ROWS_TOGETHER))
    best, who = np.empty((K, ROWS_TOGETHER)), np.zeros((K, ROWS_TOGETHER), np.int64)
    plain, corner, listed = np.empty(ROWS_TOGETHER, np.bool_), np.empty(K, np.int64), new_block_list(K)
    unusable = 0
    for row in range(start, stop, ROWS_TOGETHER):
        if load_row_group(v_BK, sets.teacher_K, kl, row, stop, y, plain):
            for part in range(sets.part_C1.shape[0] - 1):
                find_best_sums(sets, part, y, total, best, who)
        b, end = row, min(row + ROWS_TOGETHER, stop)
        while b < end:
            if plain[b - row]:
                blocks = list_row_blocks(sets, y, b - row, best, who, corner, listed)
                write_block_row(listed, blocks, kl, lower, upper, w_BK, block_BK, labeled, b)
                b += 1
                continue
            careful = b
            while b < end and not plain[b - row]:
                b += 1
            unusable += project_forest_rows(v_BK, sets.edge_E2, kl, lower, upper, w_BK, block_BK, labeled, careful, b)
    return unusable


def project_partial_order_rows(v_BK: Array, edge_E2: Array, *rest: Any) -> int:
    """Project some rows with the orderings of edge_E2: by all its upper sets where they are few, else by a search.

    rest: the other arguments of ``project_forest_rows``.
    """
    sets = list_all_upper_sets(edge_E2, v_BK.shape[1])
    if sets is None:
        return project_forest_rows(v_BK, edge_E2, *rest)
    return project_upper_set_rows(v_BK, sets, *rest)
