"""Isotonic regression on any partial order by a search, compiled: one row at a time, exact, without a QP solver.

    minimize |x - v|^2   subject to   x_i >= x_j for each edge (i, j)

A dual active-set method (Goldfarb and Idnani 1983) in which the working set is a forest: teachers joined by active
edges form a block and share its mean, and the multiplier of an edge is the sum of ``x - v`` over the part of its tree
behind it.  Take a violated edge between two blocks and move the blocks towards each other.  If an edge inside one of
them would need a negative multiplier on the way, it leaves and its block falls apart there; when the blocks meet, the
edge joins.  Every finished step raises the distance |x - v|, so no forest comes back and the method ends.  On random
orders it takes about a step a teacher, and hardly ever does an edge leave.

With one lower and one upper bound for all teachers the projection follows by a shift or scale and a clip, because
bounding an isotonic regression by constants is clipping; ``_row_kernels`` does that.

Axes: B rows, K teachers, E edges.  A tree is stored as its active edges; blocks are found by walking it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .._batch_kernels import give_up_row, read_row
from .._kernel_compiler import cpu_kernel, inlined_kernel
from ._block_list import BlockList, append_block, new_block_list, write_block_row

Array = Any


class Forest(NamedTuple):
    """An order, the edges of it that are active, and scratch for walking trees.

    edge_E2: pairs (above, below).  touch_2E: edge numbers by the teacher they touch; those of teacher k lie between
    touch_K1[k] and touch_K1[k + 1].  active_E: whether an edge is in the forest.

    A walk visits walk_K in order, each teacher by edge parent_K.  flow_K, rate_K: the sum of x - v over the subtree
    behind each teacher, and how fast it changes.
    """

    edge_E2: Array
    touch_K1: Array
    touch_2E: Array
    active_E: Array
    walk_K: Array
    parent_K: Array
    flow_K: Array
    rate_K: Array


@cpu_kernel
def new_forest(edge_E2: Array, K: int) -> Forest:
    """Return the order of K teachers with no edge active."""
    E = edge_E2.shape[0]
    touch_K1, touch_2E = np.zeros(K + 1, np.int64), np.empty(2 * E, np.int64)
    for e in range(E):
        for k in edge_E2[e]:
            touch_K1[k] += 1
    for k in range(K):
        touch_K1[k + 1] += touch_K1[k]
    for e in range(E):
        for k in edge_E2[e]:  # back from each teacher's end to its beginning
            touch_K1[k] -= 1
            touch_2E[touch_K1[k]] = e
    active_E = np.zeros(E, np.bool_)
    walk_K, parent_K = np.empty(K, np.int64), np.empty(K, np.int64)
    return Forest(edge_E2, touch_K1, touch_2E, active_E, walk_K, parent_K, np.empty(K), np.empty(K))


@inlined_kernel
def walk_tree(root: int, forest: Forest, start: int) -> int:
    """Walk the tree that holds ``root``, into walk_K from place ``start`` on; return the place where it ends."""
    edge_E2, walk_K = forest.edge_E2, forest.walk_K
    walk_K[start], forest.parent_K[root] = root, -1
    at, end = start, start + 1
    while at < end:
        k = walk_K[at]
        at += 1
        for slot in range(forest.touch_K1[k], forest.touch_K1[k + 1]):
            e = forest.touch_2E[slot]
            if forest.active_E[e] and e != forest.parent_K[k]:
                other = edge_E2[e, 0] + edge_E2[e, 1] - k
                walk_K[end], forest.parent_K[other] = other, e
                end += 1
    return end


@inlined_kernel
def tightest_edge(sign: float, forest: Forest, start: int, end: int, v_K: Array, x_K: Array) -> tuple[int, float]:
    """Return the edge of a tree whose multiplier reaches zero first as its block moves, and after what length.

    The tree was walked from ``start`` to ``end``.  The block moves by ``sign / size`` a unit of length, pushed at the
    root, where the walk began.  The push reached so far is what the tree's own sum of x - v amounts to.
    (-1, inf): nothing leaves.
    """
    edge_E2, flow_K, rate_K = forest.edge_E2, forest.flow_K, forest.rate_K
    for at in range(start, end):
        k = forest.walk_K[at]
        flow_K[k] = x_K[k] - v_K[k]
        rate_K[k] = sign / (end - start)
    leaving, length = -1, math.inf
    for at in range(end - 1, start, -1):  # from the leaves to the root
        k = forest.walk_K[at]
        e = forest.parent_K[k]
        upward = 1.0 if edge_E2[e, 0] == k else -1.0
        multiplier, rate = upward * flow_K[k], upward * rate_K[k]
        if rate < 0.0:
            length_to_zero = max(multiplier, 0.0) / -rate
            if length_to_zero < length:
                leaving, length = e, length_to_zero
        other = edge_E2[e, 0] + edge_E2[e, 1] - k
        flow_K[other] += flow_K[k]
        rate_K[other] += rate_K[k]
    return leaving, length


@inlined_kernel
def violated_edge(edge_E2: Array, x_K: Array) -> int:
    """Return the most violated edge, or -1."""
    worst, chosen = 0.0, -1
    for e in range(edge_E2.shape[0]):
        gap = x_K[edge_E2[e, 1]] - x_K[edge_E2[e, 0]]
        if gap > worst:
            worst, chosen = gap, e
    return chosen


@inlined_kernel
def join_blocks(joining: int, forest: Forest, v_K: Array, x_K: Array) -> bool:
    """Move the blocks at the ends of a violated edge until they meet and it is active; return whether they did."""
    top, bottom = forest.edge_E2[joining, 0], forest.edge_E2[joining, 1]
    for _ in range(2 * x_K.shape[0] + 2):
        middle = walk_tree(top, forest, 0)
        end = walk_tree(bottom, forest, middle)
        first, up = tightest_edge(1.0, forest, 0, middle, v_K, x_K)
        second, down = tightest_edge(-1.0, forest, middle, end, v_K, x_K)
        above, below = middle, end - middle
        meet = (x_K[bottom] - x_K[top]) / (1.0 / above + 1.0 / below)
        length = min(up, down, meet)
        if length == meet:
            forest.active_E[joining] = True
            mean = 0.0
            for at in range(end):  # from the scores: rounding of the steps leaves no trace
                mean += v_K[forest.walk_K[at]] / end
            for at in range(end):
                x_K[forest.walk_K[at]] = mean
            return True
        for at in range(middle):
            x_K[forest.walk_K[at]] += length / above
        for at in range(middle, end):
            x_K[forest.walk_K[at]] -= length / below
        forest.active_E[first if up <= down else second] = False
    return False


@inlined_kernel
def regress_row(forest: Forest, v_K: Array, x_K: Array) -> bool:
    """Set x to the isotonic regression of v and the forest to its blocks; return whether the method ended by itself."""
    for k in range(v_K.shape[0]):
        x_K[k] = v_K[k]
    for e in range(forest.edge_E2.shape[0]):
        forest.active_E[e] = False
    for _ in range(8 * (v_K.shape[0] + forest.edge_E2.shape[0]) + 8):
        joining = violated_edge(forest.edge_E2, x_K)
        if joining < 0:
            return True
        join_blocks(joining, forest, v_K, x_K)
    return False


@cpu_kernel
def snap_row_to_order(forest: Forest, x_K: Array) -> None:
    """Lower what stands above its better by rounding, from the top down, and part the trees where that parts values."""
    edge_E2 = forest.edge_E2
    for e in range(edge_E2.shape[0]):  # those nearer the top come first
        if x_K[edge_E2[e, 1]] > x_K[edge_E2[e, 0]]:
            x_K[edge_E2[e, 1]] = x_K[edge_E2[e, 0]]
    for e in range(edge_E2.shape[0]):
        forest.active_E[e] &= x_K[edge_E2[e, 1]] == x_K[edge_E2[e, 0]]


@inlined_kernel
def list_trees(forest: Forest, x_K: Array, listed: BlockList) -> int:
    """List the trees of the forest as blocks; return how many."""
    blocks = 0
    for k in range(x_K.shape[0]):
        listed.label_K[k] = -1
    for root in range(x_K.shape[0]):
        if listed.label_K[root] >= 0:
            continue
        size = walk_tree(root, forest, 0)
        for at in range(size):
            listed.label_K[forest.walk_K[at]] = blocks
        append_block(listed, blocks, x_K[root], size)
        blocks += 1
    return blocks


@cpu_kernel
def project_forest_rows(
    v_BK: Array,
    edge_E2: Array,
    kl: bool,
    lower: float,
    upper: float,
    w_BK: Array,
    block_BK: Array,
    labeled: bool,
    start: int,
    stop: int,
) -> int:
    """Project rows start to stop with the orderings of edge_E2; as ``project_tier_rows`` otherwise.

    edge_E2: pairs (above, below), int64, those nearer the top first.
    """
    K = v_BK.shape[1]
    score, x, forest, listed = np.empty(K), np.empty(K), new_forest(edge_E2, K), new_block_list(K)
    unusable = 0
    for b in range(start, stop):
        if not read_row(v_BK[b], kl, score):
            unusable += give_up_row(w_BK, block_BK, b)
            continue
        if not regress_row(forest, score, x):
            snap_row_to_order(forest, x)  # rounding kept an edge in doubt
        blocks = list_trees(forest, x, listed)
        write_block_row(listed, blocks, kl, lower, upper, w_BK, block_BK, labeled, b)
    return unusable
