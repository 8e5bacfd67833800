"""One row of the exact projection, compiled: sort, pool, threshold.

Scores are sorted into a chain, pooled into blocks by the pool-adjacent-violators algorithm (Robertson, Wright and
Dykstra 1988), and one walk along the breakpoints finds the threshold.  Every difference is taken between scores that
are free together, hence no further apart than the bounds, so nothing is lost however large the scores are.  Euclidean
rows that conform already come back as they are, to the last bit.

Axes: K teachers in a row; blocks are kept in arrays of length K, of which the first `blocks` entries count.
"""

from __future__ import annotations

import math
from typing import Any

from ._kernel_compiler import cpu_kernel

Array = Any  # numpy arrays of any float type: numba compiles one version a type


@cpu_kernel
def sort_row(v_K: Array, tier_K: Array, tiered: bool, order_K: Array, x_K: Array) -> None:
    """Put the scores into x in descending (tier, value) and their places into order; insertion, stable.

    order_K comes in as any permutation: the nearer it is to the answer, the less there is to do.
    """
    for j in range(v_K.shape[0]):
        place = order_K[j]
        value = v_K[place]
        k = j
        while k > 0:
            other = order_K[k - 1]
            if tiered and tier_K[other] != tier_K[place]:
                if tier_K[other] > tier_K[place]:
                    break
            elif x_K[k - 1] >= value:
                break
            x_K[k] = x_K[k - 1]
            order_K[k] = other
            k -= 1
        x_K[k] = value
        order_K[k] = place


@cpu_kernel
def pool_row(x_K: Array, tier_K: Array, order_K: Array, z_K: Array, size_K: Array, sum_K: Array) -> int:
    """Pool a sorted row into blocks of falling mean; return how many.

    Equal means are pooled across a tier boundary, where they only just tie, and left apart within a tier, where nothing
    orders them.
    """
    blocks = 0
    for k in range(x_K.shape[0]):
        total, size, mean = x_K[k], 1, x_K[k]
        while blocks > 0 and z_K[blocks - 1] <= mean:
            first = k + 1 - size
            if z_K[blocks - 1] == mean and tier_K[order_K[first - 1]] == tier_K[order_K[first]]:
                break
            blocks -= 1
            total += sum_K[blocks]
            size += size_K[blocks]
            mean = mean if z_K[blocks] == mean else total / size
        sum_K[blocks], size_K[blocks], z_K[blocks] = total, size, mean
        blocks += 1
    return blocks


@cpu_kernel
def are_weights(z_K: Array, size_K: Array, blocks: int, lower: float, upper: float) -> bool:
    """Tell whether blocks of falling value conform as they are, with a sum of one within K / 2 ulp."""
    if z_K[0] > upper or z_K[blocks - 1] < lower:
        return False
    total, teachers = 0.0, 0
    for j in range(blocks):
        total += size_K[j] * z_K[j]
        teachers += size_K[j]
    return abs(total - 1.0) <= teachers * 2.0**-53


@cpu_kernel
def has_twin(z_K: Array, j: int, blocks: int) -> bool:
    """Tell whether the block before j has the same value; then whatever happened to that happens to j as well."""
    return 0 < j < blocks and z_K[j] == z_K[j - 1]


@cpu_kernel
def shift_row(z_K: Array, size_K: Array, blocks: int, lower: float, upper: float, value_K: Array) -> None:
    """Set the value of each block to clip(z - tau, lower, upper), with the tau that makes the row sum to one.

    tau falls from above all scores.  Blocks leave the lower bound in order (`free` counts them) and reach the upper one
    in order (`capped` counts those), so each step is the nearer of two events; equal blocks take it together.
    `mass`
    is the sum of the free blocks relative to the largest of them, `weight` how many teachers they hold, `held` what
    the clipped ones weigh.
    """
    if are_weights(z_K, size_K, blocks, lower, upper):
        for j in range(blocks):
            value_K[j] = z_K[j]
        return
    capped, free, weight, mass, shift = 0, 0, 0, 0.0, 0.0
    held = 0.0
    for j in range(blocks):
        held += lower * size_K[j]
    top = z_K[0]
    while True:
        if capped == free:
            if free == blocks or held >= 1.0:
                break
            top, mass, weight = z_K[free], 0.0, size_K[free]
            held -= lower * size_K[free]
            free += 1
            continue
        leaves = z_K[free] - top - lower if free < blocks else -math.inf
        event = max(-upper, leaves)
        twin_leaves, twin_caps = has_twin(z_K, free, blocks), has_twin(z_K, capped, blocks)
        if not twin_leaves and not twin_caps and held + mass - event * weight >= 1.0:
            shift = (held + mass - 1.0) / weight
            break
        if twin_leaves or (not twin_caps and leaves >= -upper):
            mass += size_K[free] * (z_K[free] - top)
            weight += size_K[free]
            held -= lower * size_K[free]
            free += 1
        else:
            held += upper * size_K[capped]
            weight -= size_K[capped]
            capped += 1
            if capped < free:
                mass += weight * (top - z_K[capped])
                top = z_K[capped]
    for again in range(2):
        total = 0.0
        for j in range(blocks):
            if j < capped:
                value_K[j] = upper
            elif j >= free:
                value_K[j] = lower
            else:
                value_K[j] = min(max(z_K[j] - top - shift, lower), upper)
            total += size_K[j] * value_K[j]
        if again or capped == free:
            break
        shift += (total - 1.0) / weight  # many scores far below `top` leave their rounding in `mass`


@cpu_kernel
def scale_row(z_K: Array, size_K: Array, blocks: int, lower: float, upper: float, value_K: Array) -> None:
    """Set the value of each block to clip(c exp(z), lower, upper), with the c that makes the row sum to one.

    The same walk as ``shift_row`` in the logarithm: c rises from nothing, relative to the largest free block.
    """
    capped, free, mass, scale = 0, 0, 0.0, 0.0
    held = 0.0
    for j in range(blocks):
        held += lower * size_K[j]
    while True:
        if capped == free:
            if free == blocks or held >= 1.0:
                break
            mass = 1.0 * size_K[free]
            held -= lower * size_K[free]
            free += 1
            continue
        leaves = lower * math.exp(z_K[capped] - z_K[free]) if free < blocks else math.inf
        if lower == 0.0 and free < blocks:
            leaves = 0.0  # the exponential may overflow
        event = min(upper, leaves)
        twin_leaves, twin_caps = has_twin(z_K, free, blocks), has_twin(z_K, capped, blocks)
        if not twin_leaves and not twin_caps and held + mass * event >= 1.0:
            scale = (1.0 - held) / mass
            break
        if twin_leaves or (not twin_caps and leaves <= upper):
            mass += size_K[free] * math.exp(z_K[free] - z_K[capped])
            held -= lower * size_K[free]
            free += 1
        else:
            held += upper * size_K[capped]
            capped += 1
            mass = 0.0
            for j in range(capped, free):  # afresh: what was capped may have drowned the rest
                mass += size_K[j] * math.exp(z_K[j] - z_K[capped])
    above = upper
    for j in range(blocks):
        if j < capped:
            value = upper
        elif j >= free:
            value = lower
        else:
            value = scale * math.exp(z_K[j] - z_K[capped])
        value_K[j] = min(max(value, lower), above)  # `above`: rounding of exp must not break the order
        above = value_K[j]
