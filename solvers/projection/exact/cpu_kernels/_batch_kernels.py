"""Batches of rows of the exact projection, compiled: forward and backward.  Axes: B rows, K teachers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..._projection_orders import CHAIN, FREE, OWN_TIERS
from ._kernel_compiler import cpu_kernel
from ._row_kernels import pool_row, scale_row, shift_row, sort_row

Array = Any

HUGE = 1e290  # beyond it sums could overflow, and two scores are equal or further apart than any bounds


@cpu_kernel
def read_row(v_K: Array, kl: bool, x_K: Array) -> bool:
    """Copy scores (their logarithms for kl) into x as float64; return whether all can be used.

    Scores whose sums could overflow are made smaller, all of them in proportion unless they are masks.
    """
    largest, rest, masks = 0.0, 0.0, True
    for k in range(v_K.shape[0]):
        score = np.float64(v_K[k])  # float() would leave float32, and its logarithm, short
        if not abs(score) < math.inf or (kl and score <= 0.0):
            return False
        if abs(score) > HUGE:
            masks &= largest == 0.0 or largest == score
            largest = score
        else:
            rest = max(rest, abs(score))
        x_K[k] = math.log(score) if kl else score
    if largest != 0.0 and not kl:
        only_masks = masks and rest < 1e200  # one huge score that marks teachers: what it is says nothing
        for k in range(v_K.shape[0]):
            x_K[k] = math.copysign(min(abs(x_K[k]), HUGE), x_K[k]) if only_masks else x_K[k] * 2.0**-64
    return True


@cpu_kernel
def give_up_row(w_BK: Array, block_BK: Array, b: int) -> int:
    """Set the weights of a row that cannot be used to NaN, each teacher a block where labels are kept; return one."""
    w_BK[b] = math.nan
    if block_BK.shape[0] > 0:
        for k in range(w_BK.shape[1]):
            block_BK[b, k] = k
    return 1


@cpu_kernel
def project_tier_rows(
    v_BK: Array,
    order_K: Array,
    tier_RK: Array,
    kind: int,
    kl: bool,
    lower: float,
    upper: float,
    w_BK: Array,
    block_BK: Array,
    start: int,
    stop: int,
) -> int:
    """Project rows start to stop; return how many hold a score that cannot be used, whose weights are NaN.

    order_K: a permutation that sorts the tiers, descending; tier_RK: ranks, one row for all or one a row, as ``kind``
    says.  w_BK: answers.  block_BK: for each teacher a number that its block shares, and no other block of its row;
    no rows where labels are not wanted.
    """
    K, labeled = v_BK.shape[1], block_BK.shape[0] > 0
    order, size = np.empty(K, np.int64), np.ones(K, np.int64)
    x, z, total, value = np.empty(K), np.empty(K), np.empty(K), np.empty(K)
    unusable = 0
    for b in range(start, stop):
        if not read_row(v_BK[b], kl, z):
            unusable += give_up_row(w_BK, block_BK, b)
            continue
        tier = tier_RK[b if kind == OWN_TIERS else 0]
        for k in range(K):
            order[k] = order_K[k]
        if kind == CHAIN:
            for k in range(K):
                x[k] = z[order[k]]
        else:
            sort_row(z, tier, kind != FREE, order, x)
        if kind == FREE:
            blocks = K
            for k in range(K):
                z[k], size[k] = x[k], 1
        else:
            blocks = pool_row(x, tier, order, z, size, total)
        if kl:
            scale_row(z, size, blocks, lower, upper, value)
        else:
            shift_row(z, size, blocks, lower, upper, value)
        k = 0
        for j in range(blocks):
            first = k
            for _ in range(size[j]):
                w_BK[b, order[k]] = value[j]
                if labeled:
                    block_BK[b, order[k]] = first
                k += 1
    return unusable


@cpu_kernel
def read_labels(w_K: Array, order_K: Array, kind: int, block_BK: Array, b: int, label_K: Array) -> None:
    """Set the block labels of a row: those kept from the forward pass, or without them what the weights tell.

    On a chain, neighbors of equal weight are a block; without orderings each teacher is its own.
    """
    for place in range(order_K.shape[0]):
        k = order_K[place]
        if kind == FREE:
            label_K[k] = k
        elif kind == CHAIN:
            before = order_K[place - 1]
            label_K[k] = label_K[before] if place > 0 and w_K[k] == w_K[before] else place
        else:
            label_K[k] = block_BK[b, k]


@cpu_kernel
def pull_back_tier_rows(
    grad_BK: Array,
    v_BK: Array,
    w_BK: Array,
    block_BK: Array,
    order_K: Array,
    kind: int,
    kl: bool,
    lower: float,
    upper: float,
    out_BK: Array,
    start: int,
    stop: int,
) -> None:
    """Set out to the transposed Jacobian times grad, rows start to stop; formulas in ``_projection_autograd``.

    An entry that stands on a bound is clipped and gets nothing.  order_K, kind: as in ``RowOrder``.
    """
    K = grad_BK.shape[1]
    total, count, label = np.empty(K), np.empty(K), np.empty(K, np.int64)
    for b in range(start, stop):
        read_labels(w_BK[b], order_K, kind, block_BK, b, label)
        mass, mean = 0.0, 0.0
        for k in range(K):
            total[k], count[k] = 0.0, 0.0
            if lower < w_BK[b, k] < upper:
                weight = w_BK[b, k] if kl else 1.0
                mass += weight
                mean += weight * grad_BK[b, k]
        mean = mean / mass if mass > 0.0 else 0.0
        for k in range(K):
            if lower < w_BK[b, k] < upper:
                weight = w_BK[b, k] if kl else 1.0
                total[label[k]] += weight * (grad_BK[b, k] - mean)
                count[label[k]] += 1.0
        for k in range(K):
            if lower < w_BK[b, k] < upper:
                gradient = total[label[k]] / count[label[k]]
                out_BK[b, k] = gradient / v_BK[b, k] if kl else gradient
            else:
                out_BK[b, k] = 0.0
