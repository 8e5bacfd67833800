"""Many rows of few teachers at once: Euclidean; no orderings, a chain, or tiers.

The programs of ``_vector_programs`` become numba intrinsics here, compiled once for each number of teachers and kind of
order.  Every row goes through the same instructions whatever stands beside it, and rows that do not fill the registers
are padded, so an answer does not depend on the batch it came in.

Axes: B rows, K teachers, L rows side by side, R = 1 or B.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from llvmlite.binding import get_host_cpu_features
from numba.core import types
from numba.extending import register_jitable

from ...._projection_orders import CHAIN, FALLING, FREE, OWN_TIERS, SHARED_TIERS
from .._batch_kernels import HUGE
from .._kernel_compiler import cpu_kernel, intrinsic
from .._row_shares import finish_share, take_share
from . import _vector_programs as programs
from ._vector_builder import VectorBuilder, select

Array = Any


@dataclass(frozen=True)
class SimdSettings:
    """Which rows go side by side; `python -m benchmarks.projection` shows a change.

    Attributes:
        longest: By kind of order, teachers up to which rows go side by side: beyond, the walk of one row at a time
            costs no more, and compiling does.
        few_teachers: Up to so many, rows fill the registers twice, once while the other waits.
        rows_of_few: How many rows that are: 16 where a register holds 8 numbers (AVX-512), 8 where it holds 4.
        rows_of_many: How many rows of more teachers stand side by side.
    """

    longest: Mapping[int, int] = field(default_factory=lambda: {FREE: 128, CHAIN: 32, SHARED_TIERS: 16, OWN_TIERS: 16})
    few_teachers: int = 8
    rows_of_few: int = 16 if get_host_cpu_features().get("avx512f") else 8
    rows_of_many: int = 8


SIMD = SimdSettings()
_FEW, _ROWS_OF_FEW, _ROWS_OF_MANY = SIMD.few_teachers, SIMD.rows_of_few, SIMD.rows_of_many  # kernels read numbers
# numbers that the compiler must know are told by the length of a tuple, which is part of its type
StaticNumber = tuple[int, ...]


def encode_static(number: int) -> StaticNumber:
    """Return a number in a form that the compiler can read."""
    return (0,) * number


@register_jitable
def count_simd_rows(K: int) -> int:
    """Return how many rows stand side by side: as many as the registers hold."""
    return _ROWS_OF_FEW if K <= _FEW else _ROWS_OF_MANY


@intrinsic
def _project(  # type: ignore[no-untyped-def]  # numba reads the signature
    _, v, order, tier, w, block, row, lower, upper, K, kind
):
    """Project L rows; return a bit for each row that has not converged, whose weights are NaN."""

    def write(context: Any, ir_builder: Any, signature: Any, arguments: Any) -> Any:
        v_at, order_at, tier_at, w_at, block_at, first, low, high, *_ = arguments
        builder = VectorBuilder(context, ir_builder, first, count_simd_rows(K.count), K.count)
        columns = builder.load_permutation(order, order_at) if kind.count == CHAIN else None
        x = builder.load(v, v_at, columns)
        usable = programs.are_usable(x, HUGE)
        if kind.count in (SHARED_TIERS, OWN_TIERS):
            ranks = builder.load(tier, tier_at)
            place = programs.sort_vectors_by_tier(x, ranks)
        z = x if kind.count == FREE else programs.pool_vectors(x)
        moved, converged = programs.shift_to_unit_sum(
            builder, z, builder.broadcast(low), builder.broadcast(high), usable
        )
        answer = [select(converged, weight, math.nan) for weight in moved]
        if kind.count in (SHARED_TIERS, OWN_TIERS):
            builder.scatter(w, w_at, answer, place)
            with builder.if_any_rows(block, block_at):
                builder.scatter(block, block_at, programs.label_vector_blocks(z, ranks), place)
        else:
            builder.store(w, w_at, answer, columns)
        return (~converged).pack_bits()

    return types.int64(v, order, tier, w, block, row, lower, upper, K, kind), write


@intrinsic
def _pull_back(  # type: ignore[no-untyped-def]
    _, grad, order, w, block, out, row, lower, upper, K, kind
):
    """Write the transposed Jacobian times grad for L rows."""

    def write(context: Any, ir_builder: Any, signature: Any, arguments: Any) -> Any:
        grad_at, order_at, w_at, block_at, out_at, first, low, high, *_ = arguments
        builder = VectorBuilder(context, ir_builder, first, count_simd_rows(K.count), K.count)
        columns = builder.load_permutation(order, order_at) if kind.count == CHAIN else None
        if kind.count == FREE:
            average: programs.Average = programs.average_alone
        elif kind.count in (CHAIN, FALLING):
            average = programs.average_runs
        else:
            average = programs.average_labeled(builder.load(block, block_at))
        g, weights = builder.load(grad, grad_at, columns), builder.load(w, w_at, columns)
        gradient = programs.pull_back_vectors(g, weights, builder.broadcast(low), builder.broadcast(high), average)
        builder.store(out, out_at, gradient, columns)
        return context.get_dummy_value()

    return types.void(grad, order, w, block, out, row, lower, upper, K, kind), write


@cpu_kernel
def project_simd_rows(
    v_BK: Array,
    order_K: Array,
    tier_RK: Array,
    w_BK: Array,
    block_BK: Array,
    lower: float,
    upper: float,
    tally: Array,
    share: int,
    width: StaticNumber,
    kind: StaticNumber,
) -> None:
    """Project rows, as many shares of them as the tally gives; its result is not 0 if some are left to do one by one.

    Left are rows with scores that are not finite, or so large that sums overflow: their weights are NaN.
    order_K, tier_RK, kind: as in ``RowOrder``.  w_BK: answers.  block_BK: block labels for tiers, or no rows where
    they are not wanted.
    """
    L, rows = count_simd_rows(len(width)), v_BK.shape[0]
    start = take_share(tally, share)
    while start < rows:
        stop, left = min(start + share, rows), 0
        whole = start + (stop - start) // L * L
        v, tier, w, block, first, last = v_BK, tier_RK, w_BK, block_BK, start, whole
        for padding in range(2):
            if padding:
                if whole == stop:
                    break
                v, w = _pad_rows(v_BK, whole, stop, L), np.empty((L, len(width)), w_BK.dtype)
                tier = _pad_rows(tier_RK, whole, stop, L) if tier_RK.shape[0] > 1 else tier_RK
                block = np.empty((L if block_BK.shape[0] > 0 else 0, len(width)), block_BK.dtype)
                first, last = 0, L
            for row in range(first, last, L):
                left |= _project(v, order_K, tier, w, block, row, lower, upper, width, kind)
        if whole < stop:
            _copy_rows(w, w_BK, whole, stop)
            if block_BK.shape[0] > 0:
                _copy_rows(block, block_BK, whole, stop)
        finish_share(tally, stop - start, left)
        start = take_share(tally, share)


@cpu_kernel
def pull_back_simd_rows(
    grad_BK: Array,
    order_K: Array,
    w_BK: Array,
    block_BK: Array,
    out_BK: Array,
    lower: float,
    upper: float,
    tally: Array,
    share: int,
    width: StaticNumber,
    kind: StaticNumber,
) -> None:
    """Set out to the transposed Jacobian times grad, shares of the rows; arguments as in ``project_simd_rows``."""
    L, rows = count_simd_rows(len(width)), w_BK.shape[0]
    start = take_share(tally, share)
    while start < rows:
        stop = min(start + share, rows)
        whole = start + (stop - start) // L * L
        grad, w, block, out, first, last = grad_BK, w_BK, block_BK, out_BK, start, whole
        for padding in range(2):
            if padding:
                if whole == stop:
                    break
                grad, w = _pad_rows(grad_BK, whole, stop, L), _pad_rows(w_BK, whole, stop, L)
                block = _pad_rows(block_BK, whole, stop, L) if block_BK.shape[0] > 0 else block_BK
                out, first, last = np.empty((L, len(width)), out_BK.dtype), 0, L
            for row in range(first, last, L):
                _pull_back(grad, order_K, w, block, out, row, lower, upper, width, kind)
        if whole < stop:
            _copy_rows(out, out_BK, whole, stop)
        finish_share(tally, stop - start, 0)
        start = take_share(tally, share)


@cpu_kernel
def _pad_rows(x_BK: Array, start: int, stop: int, L: int) -> Array:
    """Return L rows: those from start to stop, and the last of them again as often as it takes."""
    x_LK = np.empty((L, x_BK.shape[1]), x_BK.dtype)
    for slot in range(L):
        for k in range(x_BK.shape[1]):
            x_LK[slot, k] = x_BK[min(start + slot, stop - 1), k]
    return x_LK


@cpu_kernel
def _copy_rows(x_LK: Array, x_BK: Array, start: int, stop: int) -> None:
    """Set rows start to stop to the first of x_LK, number by number: a slice brings numba's message of shapes along.

    It is most of the code that a kernel then has, and each kernel is compiled with its own.
    """
    for b in range(start, stop):
        for k in range(x_BK.shape[1]):
            x_BK[b, k] = x_LK[b - start, k]
