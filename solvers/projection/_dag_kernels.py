"""Isotonic regression on any partial order, compiled: one row at a time, exact, without a QP solver.

    minimise |x - v|^2   subject to   x_i >= x_j for each edge (i, j)

A dual active-set method (Goldfarb and Idnani 1983) in which the working set is a forest: teachers joined by active
edges form a block and share its mean, and the multiplier of an edge is the sum of ``x - v`` over the part of its tree
behind it.  Take a violated edge between two blocks and move the blocks towards each other.  If an edge inside one of
them would need a negative multiplier on the way, it leaves and its block falls apart there; when the blocks meet, the
edge joins.  Every finished step raises the distance |x - v|, so no forest comes back and the method ends.

With one lower and one upper bound for all teachers the projection follows by a shift or scale and a clip, because
bounding an isotonic regression by constants is clipping; ``_row_kernels`` does that.

Axes: K teachers, E edges.  A tree is stored as the list of active edges; blocks are found by walking it.
"""

from __future__ import annotations

import math
from typing import Any

from ._jit import kernel

Array = Any


@kernel
def component(start: int, edge_E2: Array, active_E: Array, member_K: Array, parent_K: Array, walk_K: Array) -> int:
    """Walk the tree that holds ``start``: its teachers in walk order, the edge each was reached by; return how many.

    member_K is set to True on the tree and left alone elsewhere.
    """
    member_K[start] = True
    parent_K[start] = -1
    walk_K[0] = start
    found, at = 1, 0
    while at < found:
        k = walk_K[at]
        at += 1
        for e in range(edge_E2.shape[0]):
            if active_E[e]:
                other = -1
                if edge_E2[e, 0] == k:
                    other = edge_E2[e, 1]
                elif edge_E2[e, 1] == k:
                    other = edge_E2[e, 0]
                if other >= 0 and not member_K[other]:
                    member_K[other] = True
                    parent_K[other] = e
                    walk_K[found] = other
                    found += 1
    return found


@kernel
def tightest_edge(
    root: int,
    size: int,
    sign: float,
    edge_E2: Array,
    parent_K: Array,
    walk_K: Array,
    v_K: Array,
    x_K: Array,
    flow_K: Array,
    rate_K: Array,
) -> tuple[int, float]:
    """Return the edge of a tree whose multiplier reaches zero first as its block moves, and after what length.

    The block moves by ``sign / size`` a unit of length, pushed at ``root``, where the walk began.  The push reached so
    far is what the tree's own sum of x - v amounts to.  Nothing leaves: (-1, inf).
    """
    for at in range(size):
        k = walk_K[at]
        flow_K[k] = x_K[k] - v_K[k]
        rate_K[k] = sign / size
    leaving, length = -1, math.inf
    for at in range(size - 1, 0, -1):  # from the leaves to the root
        k = walk_K[at]
        e = parent_K[k]
        upward = 1.0 if edge_E2[e, 0] == k else -1.0
        multiplier, rate = upward * flow_K[k], upward * rate_K[k]
        if rate < 0.0:
            reach = max(multiplier, 0.0) / -rate
            if reach < length:
                leaving, length = e, reach
        other = edge_E2[e, 1] if edge_E2[e, 0] == k else edge_E2[e, 0]
        flow_K[other] += flow_K[k]
        rate_K[other] += rate_K[k]
    return leaving, length


@kernel
def violated_edge(edge_E2: Array, x_K: Array) -> int:
    """Return the most violated edge, or -1."""
    worst, chosen = 0.0, -1
    for e in range(edge_E2.shape[0]):
        gap = x_K[edge_E2[e, 1]] - x_K[edge_E2[e, 0]]
        if gap > worst:
            worst, chosen = gap, e
    return chosen


@kernel
def regress_row(
    v_K: Array,
    edge_E2: Array,
    x_K: Array,
    active_E: Array,
    member_K: Array,
    parent_K: Array,
    walk_K: Array,
    flow_K: Array,
    rate_K: Array,
) -> bool:
    """Set x to the isotonic regression of v and active to its forest; return whether the method ended by itself."""
    K, E = v_K.shape[0], edge_E2.shape[0]
    for k in range(K):
        x_K[k] = v_K[k]
    for e in range(E):
        active_E[e] = False
    for _ in range(8 * (K + E) + 8):
        joining = violated_edge(edge_E2, x_K)
        if joining < 0:
            return True
        top, bottom = edge_E2[joining, 0], edge_E2[joining, 1]
        for _ in range(2 * K + 2):
            for k in range(K):
                member_K[k] = False
            above = component(top, edge_E2, active_E, member_K, parent_K, walk_K)
            first, up = tightest_edge(top, above, 1.0, edge_E2, parent_K, walk_K, v_K, x_K, flow_K, rate_K)
            below = component(bottom, edge_E2, active_E, member_K, parent_K, walk_K[above:])
            second, down = tightest_edge(
                bottom, below, -1.0, edge_E2, parent_K, walk_K[above:], v_K, x_K, flow_K, rate_K
            )
            meet = (x_K[bottom] - x_K[top]) / (1.0 / above + 1.0 / below)
            length = min(up, down, meet)
            for at in range(above):
                x_K[walk_K[at]] += length / above
            for at in range(above, above + below):
                x_K[walk_K[at]] -= length / below
            if length == meet:
                active_E[joining] = True
                mean = 0.0
                for at in range(above + below):  # from the scores: rounding of the steps leaves no trace
                    mean += v_K[walk_K[at]] / (above + below)
                for at in range(above + below):
                    x_K[walk_K[at]] = mean
                break
            active_E[first if up <= down else second] = False
    return False


@kernel
def settle_row(edge_E2: Array, x_K: Array) -> None:
    """Lower what stands above its better by rounding, from the top down; edges come sorted that way."""
    for e in range(edge_E2.shape[0]):
        if x_K[edge_E2[e, 1]] > x_K[edge_E2[e, 0]]:
            x_K[edge_E2[e, 1]] = x_K[edge_E2[e, 0]]


@kernel
def blocks_of_row(
    x_K: Array,
    edge_E2: Array,
    active_E: Array,
    label_K: Array,
    z_K: Array,
    size_K: Array,
    member_K: Array,
    parent_K: Array,
    walk_K: Array,
) -> int:
    """List the trees of the forest by falling value; label_K tells each teacher its place in the list."""
    K = x_K.shape[0]
    blocks = 0
    for k in range(K):
        member_K[k] = False
        label_K[k] = -1
    for root in range(K):
        if label_K[root] >= 0:
            continue
        size = component(root, edge_E2, active_E, member_K, parent_K, walk_K)
        place = blocks
        while place > 0 and z_K[place - 1] < x_K[root]:
            z_K[place], size_K[place] = z_K[place - 1], size_K[place - 1]
            place -= 1
        z_K[place], size_K[place] = x_K[root], size
        for k in range(K):
            if label_K[k] >= place:
                label_K[k] += 1
        for at in range(size):
            label_K[walk_K[at]] = place
        blocks += 1
    return blocks
