"""The blocks of one row on a partial order, listed by falling value, and what follows from the list: its weights.

Axes: K teachers in a row, and so at most K blocks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._kernel_compiler import cpu_kernel, inlined_kernel
from .._row_kernels import scale_row, shift_row

Array = Any


class BlockList(NamedTuple):
    """label_K: each teacher's block.  mean_K: each block's mean.

    By falling mean, so many as there are blocks: block_K, the blocks; z_K, their means; size_K, how many teachers they
    hold; value_K, scratch for their weights.  weight_K: scratch for the weights by block.
    """

    label_K: Array
    mean_K: Array
    block_K: Array
    z_K: Array
    size_K: Array
    value_K: Array
    weight_K: Array


@cpu_kernel
def new_block_list(K: int) -> BlockList:
    """Return an empty list for rows of K teachers."""
    return BlockList(
        np.empty(K, np.int64),
        np.empty(K),
        np.empty(K, np.int64),
        np.empty(K),
        np.empty(K, np.int64),
        np.empty(K),
        np.empty(K),
    )


@inlined_kernel
def append_block(listed: BlockList, block: int, mean: float, size: int) -> None:
    """Put block number ``block``, of which there are as many already, into its place."""
    listed.mean_K[block] = mean
    place = block
    while place > 0 and listed.z_K[place - 1] < mean:
        listed.z_K[place] = listed.z_K[place - 1]
        listed.size_K[place] = listed.size_K[place - 1]
        listed.block_K[place] = listed.block_K[place - 1]
        place -= 1
    listed.z_K[place], listed.size_K[place], listed.block_K[place] = mean, size, block


@cpu_kernel
def write_block_row(
    listed: BlockList,
    blocks: int,
    kl: bool,
    lower: float,
    upper: float,
    w_BK: Array,
    block_BK: Array,
    labeled: bool,
    b: int,
) -> None:
    """Write the weights of row b that follow from its blocks, and each teacher's block if labeled."""
    if kl:
        scale_row(listed.z_K, listed.size_K, blocks, lower, upper, listed.value_K)
    else:
        shift_row(listed.z_K, listed.size_K, blocks, lower, upper, listed.value_K)
    for j in range(blocks):
        listed.weight_K[listed.block_K[j]] = listed.value_K[j]
    for k in range(w_BK.shape[1]):
        w_BK[b, k] = listed.weight_K[listed.label_K[k]]
    if labeled:
        for k in range(w_BK.shape[1]):
            block_BK[b, k] = listed.label_K[k]
