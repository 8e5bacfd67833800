"""Many rows of a short chain at once, compiled: the same answer as ``_batch_kernels``, without a branch.

One row at a time costs most of its time in branches that cannot be foreseen.  Here 64 rows stand side by side and
every step is the same for all of them, so the compiler turns it into vector instructions:

pooling      x_i = min over a <= i of max over e >= i of mean(v_a .. v_e)   (Robertson, Wright and Dykstra 1988, 1.4.4)
threshold    the sum at each of the 2K breakpoints; the last one that still reaches 1; one closed step from there

Both take of the order of K^2 steps a row, which is the faster way up to ``LONGEST``.  Sums start afresh at every
interval and differences of scores come before anything else, so large scores cost no digits.

Axes: K teachers, L = 64 rows side by side.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._batch_kernels import HUGE, project_rows
from ._jit import kernel

Array = Any

LANES = 64
LONGEST = 12  # beyond this many teachers the walk of one row at a time is faster


@kernel
def load_lanes(v_BK: Array, order_K: Array, row: int, x_KL: Array, odd_L: Array) -> None:
    """Copy 64 rows in sorted order, and count each row's scores that need care: not finite, or huge."""
    for lane in range(LANES):
        odd_L[lane] = 0.0
    for k in range(v_BK.shape[1]):
        place = order_K[k]
        for lane in range(LANES):
            x_KL[k, lane] = v_BK[row + lane, place]
    for k in range(v_BK.shape[1]):
        for lane in range(LANES):
            odd_L[lane] += 0.0 if abs(x_KL[k, lane]) < HUGE else 1.0  # NaN is not below anything


@kernel
def pool_lanes(x_KL: Array, z_KL: Array, mean_KL: Array, sum_L: Array, best_L: Array) -> None:
    """Set z to the nonincreasing regression of x, nonincreasing to the last bit."""
    K = x_KL.shape[0]
    for k in range(K):
        for lane in range(LANES):
            z_KL[k, lane] = math.inf
    for a in range(K):
        for lane in range(LANES):
            sum_L[lane], best_L[lane] = 0.0, -math.inf
        for e in range(a, K):
            share = 1.0 / (e - a + 1)
            for lane in range(LANES):
                sum_L[lane] += x_KL[e, lane]
                mean_KL[e, lane] = sum_L[lane] * share
        for e in range(K - 1, a - 1, -1):
            for lane in range(LANES):
                mean = mean_KL[e, lane]
                best = mean if mean > best_L[lane] else best_L[lane]
                best_L[lane] = best
                z_KL[e, lane] = best if best < z_KL[e, lane] else z_KL[e, lane]
    for k in range(1, K):
        for lane in range(LANES):
            z_KL[k, lane] = z_KL[k, lane] if z_KL[k, lane] < z_KL[k - 1, lane] else z_KL[k - 1, lane]


@kernel
def last_break(
    z_KL: Array, lower: float, upper: float, sum_L: Array, least_L: Array, pivot_L: Array, bound_L: Array
) -> None:
    """Find the last threshold z_p - bound at which the clipped scores still sum to one or more.

    pivot and bound tell which; least is the sum there, infinite if there is none.
    """
    K = z_KL.shape[0]
    for lane in range(LANES):
        least_L[lane], pivot_L[lane], bound_L[lane] = math.inf, 0.0, 0.0
    for p in range(K):
        for side in range(2):
            bound = upper if side == 0 else lower
            for lane in range(LANES):
                sum_L[lane] = 0.0
            for k in range(K):
                for lane in range(LANES):
                    y = z_KL[k, lane] - z_KL[p, lane] + bound
                    y = y if y < upper else upper
                    sum_L[lane] += y if y > lower else lower
            for lane in range(LANES):
                # where the sum stays level, the later threshold
                later = z_KL[p, lane] - pivot_L[lane] > bound - bound_L[lane]
                nearer = (sum_L[lane] < least_L[lane]) | ((sum_L[lane] == least_L[lane]) & later)
                take = (sum_L[lane] >= 1.0) & nearer
                least_L[lane] = sum_L[lane] if take else least_L[lane]
                pivot_L[lane] = z_KL[p, lane] if take else pivot_L[lane]
                bound_L[lane] = bound if take else bound_L[lane]


@kernel
def clip_lanes(
    z_KL: Array, lower: float, upper: float, sum_L: Array, free_L: Array, pivot_L: Array, bound_L: Array
) -> None:
    """Move z to the last break, from there by the step that makes the free ones sum to what is left, and clip."""
    K = z_KL.shape[0]
    for lane in range(LANES):
        sum_L[lane], free_L[lane] = -1.0, 0.0
    for k in range(K):
        for lane in range(LANES):
            y = z_KL[k, lane] - pivot_L[lane] + bound_L[lane]
            z_KL[k, lane] = y
            free_L[lane] += 1.0 if (y <= upper) & (y > lower) else 0.0
            y = y if y < upper else upper
            sum_L[lane] += y if y > lower else lower
    for lane in range(LANES):
        sum_L[lane] /= free_L[lane] if free_L[lane] > 1.0 else 1.0
    for k in range(K):
        for lane in range(LANES):
            y = z_KL[k, lane] - sum_L[lane]
            y = y if y < upper else upper
            z_KL[k, lane] = y if y > lower else lower


@kernel
def label_lanes(z_KL: Array, order_K: Array, row: int, chained: bool, block_BK: Array, label_KL: Array) -> None:
    """Write block labels: the first place of a run of equal values on a chain, one's own place without orderings."""
    for k in range(z_KL.shape[0]):
        for lane in range(LANES):
            label_KL[k, lane] = k
        if chained and k > 0:
            for lane in range(LANES):
                same = z_KL[k, lane] == z_KL[k - 1, lane]
                label_KL[k, lane] = label_KL[k - 1, lane] if same else label_KL[k, lane]
    for k in range(z_KL.shape[0]):
        place = order_K[k]
        for lane in range(LANES):
            block_BK[row + lane, place] = label_KL[k, lane]


@kernel
def project_lanes(
    v_BK: Array,
    order_K: Array,
    tier_RK: Array,
    kind: int,
    chained: bool,
    lower: float,
    upper: float,
    w_BK: Array,
    block_BK: Array,
    labelled: bool,
    start: int,
    stop: int,
) -> int:
    """Project rows start to stop, Euclidean, no orderings or a chain; as ``project_rows`` otherwise.

    labelled: whether block_BK is wanted.  Rows that do not fill 64 lanes, and lanes with a score that needs care, go
    one by one.
    """
    K = v_BK.shape[1]
    x, z, mean = np.empty((K, LANES)), np.empty((K, LANES)), np.empty((K, LANES))
    label = np.empty((K, LANES), np.int16)
    odd, total, least = np.empty(LANES), np.empty(LANES), np.empty(LANES)
    pivot, bound = np.empty(LANES), np.empty(LANES)
    unusable = 0
    row = start
    while row + LANES <= stop:
        load_lanes(v_BK, order_K, row, x, odd)
        if chained:
            pool_lanes(x, z, mean, total, least)
        else:
            z[:, :] = x
        if labelled:
            label_lanes(z, order_K, row, chained, block_BK, label)
        last_break(z, lower, upper, total, least, pivot, bound)
        clip_lanes(z, lower, upper, total, mean[0], pivot, bound)
        plain = True
        for lane in range(LANES):
            plain &= (odd[lane] == 0.0) & (least[lane] < math.inf)
        if plain:
            for k in range(K):
                for lane in range(LANES):
                    w_BK[row + lane, order_K[k]] = z[k, lane]
        else:
            unusable += project_rows(
                v_BK, order_K, tier_RK, kind, False, lower, upper, w_BK, block_BK, labelled, row, row + LANES
            )
        row += LANES
    return unusable + project_rows(
        v_BK, order_K, tier_RK, kind, False, lower, upper, w_BK, block_BK, labelled, row, stop
    )
