"""Rows in sorted columns: pooling, thresholds, blocks and their means, in Triton.

Sorted columns z fall from left to right.  With c_ij = min(z_i - z_j, upper - lower) for i < j, the weights sum to

    K upper - (sum of c_ij over j > i)      at the threshold where i leaves the upper bound,
    K lower + (sum of c_ij over i < j)      at the threshold where j reaches the lower one.

So i is capped if the first is below one, j is held if the second is above one, and what lies between is free: one look
at each pair of columns finds the segment of the root, and a closed form the root in it.  Nothing but differences of
scores enters, so large scores cost no digits.  For kl, z are logarithms to base two, and ratios stand for differences.
A row of 8 teachers takes some 400 steps without a branch; the steps grow with K^2.

Axes: R rows side by side, K teachers; a name that ends in _K is a tuple of K columns, each (R,).
"""

from __future__ import annotations

import triton.language as tl

from ._triton_columns import column_maximum, column_minimum, triton_kernel


@triton_kernel
def regress_columns(x_K: tl.tuple, K: tl.constexpr, P: tl.constexpr) -> tl.tuple:
    """Return the nonincreasing sequence nearest to each row.

    x_i = min over a <= i of max over e >= i of mean(x_a .. x_e)   (Robertson, Wright and Dykstra 1988, 1.4.4).
    However means are rounded it falls to the last bit: from one i to the next the minimum is over more, the maximum
    over less.
    P: a power of two, K or more; as a divisor it changes no digit, and keeps sums of the largest floats finite.
    """
    small_K, z_K = (), ()
    for k in tl.static_range(K):
        small_K = small_K + (x_K[k] * (1.0 / P),)
        z_K = z_K + (tl.full(x_K[k].shape, float("inf"), x_K[k].dtype),)
    for a in tl.static_range(K):
        total = small_K[a]
        mean_E = (x_K[a],)
        for e in tl.static_range(a + 1, K):
            total += small_K[e]
            mean_E = mean_E + (total * (P / (e - a + 1)),)
        best = mean_E[K - 1 - a]
        falling = (column_minimum(z_K[K - 1], best),)
        for back in tl.static_range(1, K - a):
            best = column_maximum(best, mean_E[K - 1 - a - back])
            falling = (column_minimum(z_K[K - 1 - back], best),) + falling
        z_K = z_K[:a] + falling
    return z_K


@triton_kernel
def label_column_blocks(z_K: tl.tuple, tier_K: tl.tuple, K: tl.constexpr, TIERED: tl.constexpr) -> tl.tuple:
    """Return for each column the first one of its block, as int8.

    A block is a run of equal values; among tiers it must span several, for values that are equal within one are free
    of each other.  tier_K: of the sorted columns, if TIERED.
    """
    first_K = (tl.full(z_K[0].shape, 0, tl.int8),)
    same_K = (z_K[0] < z_K[0],)  # nothing stands before the first
    spans_K = same_K
    for k in tl.static_range(1, K):
        same = z_K[k] == z_K[k - 1]
        same_K = same_K + (same,)
        first_K = first_K + (tl.where(same, first_K[k - 1], tl.full(z_K[0].shape, k, tl.int8)),)
        if TIERED:
            spans_K = spans_K + (same & (spans_K[k - 1] | (tier_K[k] != tier_K[k - 1])),)
    label_K = first_K
    if TIERED:
        label_K = ()
        pooled = spans_K[K - 1]  # what is known at the end of a run holds for all of it
        for back in tl.static_range(1, K + 1):
            if back > 1:
                pooled = tl.where(same_K[K + 1 - back], pooled, spans_K[K - back])
            own = tl.full(z_K[0].shape, K - back, tl.int8)
            label_K = (tl.where(pooled, first_K[K - back], own),) + label_K
    return label_K


@triton_kernel
def find_shift(z_K: tl.tuple, lower: tl.tensor, upper: tl.tensor, K: tl.constexpr) -> tl.tuple:
    """Return pivot and shift (R,) such that clip((z - pivot) + shift, lower, upper) sums to one.

    z_K: falling.  lower, upper: numbers.
    """
    shape: tl.constexpr = z_K[0].shape
    dtype: tl.constexpr = z_K[0].dtype
    zero, room = tl.full(shape, 0.0, dtype), tl.full(shape, upper - lower, dtype)
    above_K, below_K = (), ()  # sums of c_ij over j > i, and over i < j
    for _ in tl.static_range(K):
        below_K = below_K + (zero,)
    for i in tl.static_range(K):
        above, raised = zero, ()
        for j in tl.static_range(i + 1, K):
            apart = column_minimum(z_K[i] - z_K[j], room)
            above += apart
            raised = raised + (below_K[j] + apart,)
        above_K = above_K + (above,)
        below_K = below_K[: i + 1] + raised
    rest, spare = tl.full(shape, 1.0 - K * lower, dtype), tl.full(shape, K * upper - 1.0, dtype)
    # weights are counted from the lower bound; the pivot is the first that is not capped
    pivot, given, free = tl.full(shape, float("-inf"), dtype), zero, zero
    for back in tl.static_range(1, K + 1):
        capped, held = above_K[K - back] > spare, below_K[K - back] > rest
        pivot = tl.where(capped, pivot, z_K[K - back])
        given += tl.where(capped, room, 0.0)
        free += tl.where(capped | held, 0.0, 1.0)
    for k in tl.static_range(K):
        given += tl.where((above_K[k] > spare) | (below_K[k] > rest), 0.0, z_K[k] - pivot)
    # where none is free the pivot stands on the lower bound
    shift = tl.where(free > 0.0, (rest - given) / column_maximum(free, 1.0), 0.0)
    return pivot, shift + tl.full(shape, lower, dtype)


@triton_kernel
def find_scale(z_K: tl.tuple, lower: tl.tensor, upper: tl.tensor, K: tl.constexpr) -> tl.tuple:
    """Return pivot and scale (R,) such that clip(scale 2^(z - pivot), lower, upper) sums to one.

    As ``find_shift``; the ratios of pairs are products of the ratios of neighbors, cut off where the bounds cut them.
    """
    shape: tl.constexpr = z_K[0].shape
    dtype: tl.constexpr = z_K[0].dtype
    low, high, one = tl.full(shape, lower, dtype), tl.full(shape, upper, dtype), tl.full(shape, 1.0, dtype)
    least = tl.full(shape, lower / upper, dtype)
    fall_K, rise_K = (), ()
    for k in tl.static_range(1, K):
        fall_K = fall_K + (tl.exp2(z_K[k] - z_K[k - 1]),)
        rise_K = rise_K + (tl.exp2(z_K[k - 1] - z_K[k]),)
    pivot, rest, free_K = tl.full(shape, float("-inf"), dtype), one, ()
    for back in tl.static_range(1, K + 1):
        ratio, reached = one, one * (K + 1 - back)
        for j in tl.static_range(K - back, K - 1):
            ratio = column_maximum(ratio * fall_K[j], least)
            reached += ratio
        capped = reached * high < 1.0
        weight, total = low, low * back
        for i in tl.static_range(1, K - back + 1):
            weight = column_minimum(weight * rise_K[K - back - i], high)
            total += weight
        held = (low > 0.0) & (total > 1.0)
        pivot = tl.where(capped, pivot, z_K[K - back])
        rest -= tl.where(capped, high, tl.where(held, low, 0.0))
        free_K = (~(capped | held),) + free_K
    mass = one * 0.0
    for k in tl.static_range(K):
        mass += tl.where(free_K[k], tl.exp2(z_K[k] - pivot), 0.0)
    # where none is free the pivot stands on the lower bound
    return pivot, tl.where(mass > 0.0, rest / column_maximum(mass, 1.0), column_maximum(low, 1e-30))


@triton_kernel
def find_spoiler(x_K: tl.tuple, K: tl.constexpr) -> tl.tensor:
    """Return (R,) zero for rows of finite numbers and NaN for others; sums of products are cheaper than comparisons."""
    total = x_K[0] * 0.0
    for k in tl.static_range(1, K):
        total += x_K[k] * 0.0
    return total


@triton_kernel
def take_log_ratios(x_K: tl.tuple, K: tl.constexpr) -> tl.tuple:
    """Return log2(x / largest), which keeps digits where all scores are huge or tiny; not finite where not x > 0."""
    smallest_normal: tl.constexpr = 2.0**-1022 if x_K[0].dtype == tl.float64 else 2.0**-126
    largest = tl.full(x_K[0].shape, smallest_normal, x_K[0].dtype)
    for k in tl.static_range(K):
        largest = column_maximum(x_K[k], largest)
    y_K = ()
    for k in tl.static_range(K):
        ratio = x_K[k] / largest
        lost = ratio < 1e-30  # it may have underflowed; and logarithms take the smallest floats of all for zero
        y = tl.log2(tl.where(lost, x_K[k] * 2.0**64, ratio))
        y_K = y_K + (y - tl.where(lost, tl.log2(largest) + 64.0, 0.0),)
    return y_K


@triton_kernel
def shift_columns(
    x_K: tl.tuple, pivot: tl.tensor, shift: tl.tensor, lower: tl.tensor, upper: tl.tensor, K: tl.constexpr
) -> tl.tuple:
    """Return clip((x - pivot) + shift, lower, upper): monotone in x, so bounds, ties and order are exact."""
    low, high = tl.full(shift.shape, lower, shift.dtype), tl.full(shift.shape, upper, shift.dtype)
    w_K = ()
    for k in tl.static_range(K):
        w_K = w_K + (column_minimum(column_maximum((x_K[k] - pivot) + shift, low), high),)
    return w_K


@triton_kernel
def scale_columns(
    x_K: tl.tuple,
    pivot: tl.tensor,
    scale: tl.tensor,
    lower: tl.tensor,
    upper: tl.tensor,
    K: tl.constexpr,
    FALLING: tl.constexpr,
) -> tl.tuple:
    """Return clip(scale 2^(x - pivot), lower, upper).

    FALLING: x falls from left to right, and so must the answer; the rounding of powers may break no tie and no order.
    """
    low, high = tl.full(scale.shape, lower, scale.dtype), tl.full(scale.shape, upper, scale.dtype)
    w_K = ()
    for k in tl.static_range(K):
        w = column_minimum(column_maximum(scale * tl.exp2(x_K[k] - pivot), low), high)
        if FALLING and k > 0:
            w = tl.where(x_K[k] == x_K[k - 1], w_K[k - 1], column_minimum(w, w_K[k - 1]))
        w_K = w_K + (w,)
    return w_K


@triton_kernel
def average_column_blocks(x_K: tl.tuple, label_K: tl.tuple, K: tl.constexpr) -> tl.tuple:
    """Return each column replaced by the mean of those in its row with the same label."""
    mean_K = ()
    for k in tl.static_range(K):
        total, count = x_K[k], tl.full(x_K[k].shape, 1.0, x_K[k].dtype)
        for j in tl.static_range(K):
            if j != k:
                same = label_K[j] == label_K[k]
                total += tl.where(same, x_K[j], 0.0)
                count += tl.where(same, 1.0, 0.0)
        mean_K = mean_K + (total / count,)
    return mean_K
