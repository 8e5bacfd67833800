"""Tiles of rows as columns in registers, and the sorting of columns, in Triton.

A tile (R, P) is read as it lies in memory, which is the fast way to read it, and then split into its columns, each of
shape (R,).  A thread so holds whole rows, and every step on a row is arithmetic between its own registers: no sum,
sort or scan has to cross threads.  Loops over columns are unrolled: a column is named by a number known in advance.

Triton reads these functions itself.  Two of its rules show: tuples grow by sums only, and a number stays known in
advance as an argument marked constexpr, not as a local variable.

Axes: R rows in a tile, K teachers, P the power of two from K on, N pairs.  A name that ends in _K is a tuple of K
columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def triton_kernel(function: Callable[..., Any]) -> Any:
    """Compile ``function`` for the device at its first call; whatever the number of rows, compile it once."""
    return triton.jit(function, do_not_specialize=["rows"])


@triton_kernel
def column_maximum(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """Return the larger; float64 has no instruction for it, and to ignore NaN, as ``tl.maximum`` does, costs
    more.
    """
    if a.dtype == tl.float64:
        return tl.where(a > b, a, b)
    return tl.maximum(a, b)


@triton_kernel
def column_minimum(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """Return the smaller; see ``column_maximum``."""
    if a.dtype == tl.float64:
        return tl.where(a < b, a, b)
    return tl.minimum(a, b)


@triton_kernel
def split_columns(tile: tl.tensor, P: tl.constexpr) -> tl.tuple:
    """Return the columns of a tile (R, P)."""
    parts = (tl.reshape(tile, (tile.shape[0],)) if P == 1 else tile,)
    for level in tl.static_range(4):  # P is at most 16
        if P >> level > 1:  # part i of 2^level holds the columns i, i + 2^level, ...
            evens, odds = (), ()
            for i in tl.static_range(1 << level):
                if P >> level == 2:
                    even, odd = tl.split(parts[i])
                else:
                    even, odd = tl.split(tl.reshape(parts[i], (tile.shape[0], P >> (level + 1), 2)))
                evens = evens + (even,)
                odds = odds + (odd,)
            parts = evens + odds
    return parts


@triton_kernel
def join_columns(x_K: tl.tuple, K: tl.constexpr, P: tl.constexpr) -> tl.tensor:
    """Return the tile (R, P) of these columns, filled up with copies of the first."""
    parts = (tl.reshape(x_K[0], (x_K[0].shape[0], 1)),) if P == 1 else x_K
    for _ in tl.static_range(P - K):
        parts = parts + (x_K[0],)
    for level in tl.static_range(4):
        if P >> level > 1:  # the way back: parts i and i + half become one
            joined = ()
            for i in tl.static_range(P >> (level + 1)):
                pair = tl.join(parts[i], parts[i + (P >> (level + 1))])
                joined = joined + (tl.reshape(pair, (pair.shape[0], 2 << level)),)
            parts = joined
    return parts[0]


@triton_kernel
def sort_columns(x_K: tl.tuple, K: tl.constexpr, PAIRS_N: tl.constexpr) -> tl.tuple:
    """Return each row in falling order.  PAIRS_N: places to compare and exchange, i < j, that sort K numbers."""
    for n in tl.static_range(len(PAIRS_N)):
        x_K = _put_in_order(x_K, PAIRS_N[n][0], PAIRS_N[n][1], K)
    return x_K


@triton_kernel
def sort_columns_by_tier(x_K: tl.tuple, tier_K: tl.tuple, K: tl.constexpr, PAIRS_N: tl.constexpr) -> tl.tuple:
    """Return x and tiers in falling (tier, x), and for each pair where it was exchanged."""
    moved_N = ()
    for n in tl.static_range(len(PAIRS_N)):
        moved = _is_out_of_order(x_K, tier_K, PAIRS_N[n][0], PAIRS_N[n][1])
        x_K = _exchange(moved, x_K, PAIRS_N[n][0], PAIRS_N[n][1], K)
        tier_K = _exchange(moved, tier_K, PAIRS_N[n][0], PAIRS_N[n][1], K)
        moved_N = moved_N + (moved,)
    return x_K, tier_K, moved_N


@triton_kernel
def unsort_columns(x_K: tl.tuple, moved_N: tl.tuple, K: tl.constexpr, PAIRS_N: tl.constexpr) -> tl.tuple:
    """Return columns to the places from which ``sort_columns_by_tier`` took them: the exchanges again, the last one
    first.
    """
    for back in tl.static_range(1, len(PAIRS_N) + 1):
        x_K = _exchange(moved_N[len(PAIRS_N) - back], x_K, PAIRS_N[-back][0], PAIRS_N[-back][1], K)
    return x_K


@triton_kernel
def _put_in_order(x_K: tl.tuple, i: tl.constexpr, j: tl.constexpr, K: tl.constexpr) -> tl.tuple:
    high, low = column_maximum(x_K[i], x_K[j]), column_minimum(x_K[i], x_K[j])
    return x_K[:i] + (high,) + x_K[i + 1 : j] + (low,) + x_K[j + 1 : K]


@triton_kernel
def _is_out_of_order(x_K: tl.tuple, tier_K: tl.tuple, i: tl.constexpr, j: tl.constexpr) -> tl.tensor:
    return (tier_K[i] < tier_K[j]) | ((tier_K[i] == tier_K[j]) & (x_K[i] < x_K[j]))


@triton_kernel
def _exchange(where: tl.tensor, x_K: tl.tuple, i: tl.constexpr, j: tl.constexpr, K: tl.constexpr) -> tl.tuple:
    x_i, x_j = tl.where(where, x_K[j], x_K[i]), tl.where(where, x_K[i], x_K[j])
    return x_K[:i] + (x_i,) + x_K[i + 1 : j] + (x_j,) + x_K[j + 1 : K]
