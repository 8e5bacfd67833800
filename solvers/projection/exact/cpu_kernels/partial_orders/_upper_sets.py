"""All upper sets of a partial order, listed so that each is an earlier one and a teacher more.

An upper set holds, with each teacher, all who stand above.  Orders of up to some 60 teachers often have only hundreds
(20 to 40 of 8 teachers, 200 to 400 of 16 in the benchmark), and then ``_upper_set_kernels`` looks at all of them faster
than any search.  Parts of the order that no edge joins are listed apart, so their numbers add up, not multiply.

Teachers stand part by part and below those above them, so adding them in that order passes through upper sets only:
every upper set has one parent, itself without its last teacher, and a walk in depth meets each once.

Axes: K teachers by place, E edges, C parts, S upper sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._kernel_compiler import cpu_kernel

Array = Any
Integers = npt.NDArray[np.int64]

LONGEST_PART = 64  # teachers, one bit of an int64 each


@dataclass(frozen=True)
class UpperSetSettings:
    """When upper sets are looked at; the rows "dag" of `python -m benchmarks.projection` notice a change.

    Attributes:
        most_a_teacher: Upper sets a teacher; the search of ``_forest_search`` is as fast from about here on.
    """

    most_a_teacher: int = 100


UPPER_SETS = UpperSetSettings()


class UpperSets(NamedTuple):
    """The upper sets of each part, for a kernel to walk along.

    teacher_K: who stands at each place.  near_K: who is joined by an edge, as bits counted from the part's first place.
    edge_E2: the edges (above, below), by teacher.  part_C1: the part's first place, and K; list_C1: its first upper
    set, and S.  added_S: the place of the last teacher.  size_S, bits_S: how many and who, counted within the part.
    """

    teacher_K: Integers
    near_K: Integers
    edge_E2: Integers
    part_C1: Integers
    list_C1: Integers
    added_S: Integers
    size_S: Integers
    bits_S: Integers


def list_all_upper_sets(edge_E2: Integers, n_teachers: int) -> UpperSets | None:
    """Return the upper sets of an order, or None where they are too many or a part has too many teachers.

    edge_E2: pairs (above, below), int64, without needless ones, those nearer the top first.
    """
    return _list_cached(np.ascontiguousarray(edge_E2).tobytes(), n_teachers)


@lru_cache(maxsize=256)
def _list_cached(edges: bytes, K: int) -> UpperSets | None:
    edge_E2 = np.frombuffer(edges, dtype=np.int64).reshape(-1, 2).copy()
    part_K, depth_K = _split_into_parts(edge_E2, K)
    teacher_K = np.lexsort((depth_K, part_K)).astype(np.int64)
    part_C1 = np.append(np.flatnonzero(np.diff(part_K[teacher_K], prepend=-1)), K).astype(np.int64)
    if np.diff(part_C1).max() > LONGEST_PART:
        return None
    place_K = np.empty(K, np.int64)
    place_K[teacher_K] = np.arange(K)
    near_K, above_K = np.zeros(K, np.int64), np.zeros(K, np.int64)
    bit_K = 1 << (place_K - part_C1[np.searchsorted(part_C1, place_K, side="right") - 1])
    for above, below in edge_E2:
        above_K[place_K[below]] |= bit_K[above]
        near_K[place_K[below]] |= bit_K[above]
        near_K[place_K[above]] |= bit_K[below]
    added_S, size_S, bits_S = (np.empty(UPPER_SETS.most_a_teacher * K, np.int64) for _ in range(3))
    list_C1 = [0]
    for first, end in pairwise(part_C1.tolist()):
        start = list_C1[-1]
        count = list_upper_sets(first, above_K[first:end], added_S[start:], size_S[start:], bits_S[start:])
        if count < 0:
            return None
        list_C1.append(start + count)
    lists = (np.ascontiguousarray(x_S[: list_C1[-1]]) for x_S in (added_S, size_S, bits_S))
    return UpperSets(teacher_K, near_K, edge_E2, part_C1, np.array(list_C1, np.int64), *lists)


def _split_into_parts(edge_E2: Integers, K: int) -> tuple[Integers, Integers]:
    """Return for each teacher the part's smallest teacher, and how long the longest way down from the top is."""
    part_K, depth_K = np.arange(K), np.zeros(K, np.int64)
    for above, below in edge_E2:
        depth_K[below] = max(depth_K[below], depth_K[above] + 1)
        joined = sorted((part_K[above], part_K[below]))
        part_K[part_K == joined[1]] = joined[0]
    return part_K, depth_K


@cpu_kernel
def list_upper_sets(first: int, above_K: Array, added_S: Array, size_S: Array, bits_S: Array) -> int:
    """List the upper sets of one part but the empty one; return how many, or -1 if they do not fit."""
    K = above_K.shape[0]
    last_K, held_K = np.empty(K + 1, np.int64), np.zeros(K + 1, np.int64)
    count, depth, k = 0, 0, 0
    while True:
        if k == K:
            if depth == 0:
                return count
            depth -= 1
            k = last_K[depth] + 1
            continue
        if above_K[k] & ~held_K[depth] == 0:
            if count == added_S.shape[0]:
                return -1
            last_K[depth], held_K[depth + 1] = k, held_K[depth] | (1 << k)
            depth += 1
            added_S[count], size_S[count], bits_S[count] = first + k, depth, held_K[depth]
            count += 1
        k += 1
