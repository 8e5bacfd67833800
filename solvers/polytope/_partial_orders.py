"""Orderings between teachers: reading them, finding cycles, ranking.

A pair (i, j) says w_i >= w_j + margin.  ``above[i, j]`` in the transitive closure says that i must weigh at least as
much as j.  The order is *weak* when "not comparable" is transitive: then the teachers fall into tiers.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.errors import InvalidInput

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class OrderSettings:
    """How large an order may be; ``test_polytope.py`` would notice.

    Attributes:
        most_teachers: K at most: who stands above whom is a table of K x K, worked out in some K^3 / 16 steps of a
            byte, which are seconds.
    """

    most_teachers: int = 4000


_SETTINGS = OrderSettings()


def read_orderings(orderings: object, n_teachers: int, ties: bool) -> Pairs:
    """Return orderings sorted and without repeats.

    Args:
        orderings: Pairs (i, j) of teachers.
        n_teachers: K, how many teachers there are.
        ties: Whether a cycle may stand, for teachers that weigh the same.

    Raises:
        InvalidInput: A pair or an index cannot be meant, or there is a cycle and ``ties`` is False.
    """
    if not isinstance(orderings, Iterable):
        raise InvalidInput(f"`orderings` must be a list of pairs (i, j), meaning w_i >= w_j; found {orderings!r}.")
    try:
        given = list(orderings)
    except TypeError as cause:  # an array of no dimensions
        raise InvalidInput(f"`orderings` must be a list of pairs (i, j); found {orderings!r}.") from cause
    pairs = tuple(sorted({_read_pair(pair, n_teachers) for pair in given}))
    if pairs and n_teachers > _SETTINGS.most_teachers:
        raise InvalidInput(
            f"`orderings` among {n_teachers:,} teachers are too many to work out who stands above whom; wanted at most "
            f"{_SETTINGS.most_teachers:,} teachers, or no orderings."
        )
    cycle = [] if ties else find_cycle(pairs, n_teachers)
    if cycle:
        raise InvalidInput(
            f"`orderings` go round in a circle: {' >= '.join(map(str, cycle))}. "
            "Take one of these pairs out, or pass ties=True to make these teachers weigh the same."
        )
    return pairs


def number_orderings(orderings: Any, names: Sequence[str]) -> Any:
    """Return orderings with numbers in place of the names of teachers.

    Args:
        orderings: Pairs (i, j) of teachers, numbers or names.
        names: Of all teachers, in order.

    Raises:
        InvalidInput: There is no teacher of that name; the message has the nearest and all others.
    """
    if not names or not isinstance(orderings, Iterable):
        return orderings
    pairs = [list(pair) if isinstance(pair, Iterable) and not isinstance(pair, str) else pair for pair in orderings]
    return [
        tuple(find_teacher(one, names) if isinstance(one, str) else one for one in pair)
        if isinstance(pair, list)
        else pair
        for pair in pairs
    ]


def find_teacher(name: str, names: Sequence[str]) -> int:
    """Return the number of a teacher.

    Args:
        name: What is looked for.
        names: Of all teachers, in order.

    Raises:
        InvalidInput: There is none of that name; the message has the nearest and all others.
    """
    if name in names:
        return list(names).index(name)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise InvalidInput(f"There is no teacher '{name}'; there is {', '.join(map(repr, names))}.{hint}")


def _read_pair(pair: object, n_teachers: int) -> tuple[int, int]:
    try:
        items = list(pair) if isinstance(pair, Iterable) and not isinstance(pair, str) else []
    except TypeError:
        items = []
    if len(items) != 2 or any(isinstance(x, bool) or not isinstance(x, Integral) for x in items):
        names = " Names are known where the polytope has them: WeightPolytope(..., names=[...])."
        text = any(isinstance(x, str) for x in items)
        raise InvalidInput(f"`orderings` must hold pairs (i, j) of teacher numbers; found {pair!r}.{names * text}")
    i, j = (int(x) for x in items)
    for index in (i, j):
        if not 0 <= index < n_teachers:
            raise InvalidInput(
                f"`orderings` names teacher {index} in ({i}, {j}); "
                f"there are {n_teachers} teachers, 0 to {n_teachers - 1}."
            )
    if i == j:
        raise InvalidInput(f"`orderings` compares teacher {i} with itself in ({i}, {j}). Take the pair out.")
    return i, j


def find_cycle(pairs: Pairs, n_teachers: int) -> list[int]:
    """Return a cycle of an order, by depth-first search.

    Args:
        pairs: Pairs (above, below).
        n_teachers: K, how many teachers there are.

    Returns:
        A closed walk, such as [0, 2, 0], or an empty list.
    """
    below: list[list[int]] = [[] for _ in range(n_teachers)]
    for i, j in pairs:
        below[i].append(j)
    finished: set[int] = set()
    for root in range(n_teachers):
        path, choices = [root], [iter(below[root])]
        while path:
            step = next(choices[-1], None)
            if step is None:
                finished.add(path.pop())
                choices.pop()
            elif step in path:
                return [*path[path.index(step) :], step]
            elif step not in finished:
                path.append(step)
                choices.append(iter(below[step]))
    return []


def closure(pairs: Pairs, n_teachers: int) -> npt.NDArray[np.bool_]:
    """Return the transitive closure of an order.

    Args:
        pairs: Pairs (above, below).
        n_teachers: K, how many teachers there are.

    Returns:
        Booleans, shape (K, K); entry (i, j) tells whether i stands above j.

    Source: Warshall 1962.
    """
    above_KK = np.zeros((n_teachers, n_teachers), dtype=bool)
    named = np.unique(np.array(pairs, dtype=np.int64))  # the others stand above nobody
    if len(named) == 0:
        return above_KK
    above_MM = np.zeros((len(named), len(named)), dtype=bool)
    above_MM[tuple(np.searchsorted(named, np.array(pairs, dtype=np.int64)).T)] = True
    above_MM = np.packbits(above_MM, axis=1)
    for via in range(len(named)):
        higher = np.flatnonzero((above_MM[:, via >> 3] >> (7 - (via & 7))) & 1)
        above_MM[higher] |= above_MM[via]
    above_KK[np.ix_(named, named)] = np.unpackbits(above_MM, axis=1, count=len(named)).astype(bool)
    return above_KK


def tied_teachers(pairs: Pairs, n_teachers: int) -> tuple[tuple[int, ...], ...]:
    """Return the groups of teachers that stand above each other, which can only weigh the same."""
    if not pairs:
        return ()
    above_KK = closure(pairs, n_teachers)
    mutual_KK = above_KK & above_KK.T
    groups = {tuple(np.flatnonzero(row_K).tolist()) for row_K in mutual_KK if row_K.any()}
    return tuple(sorted(groups))


def between_groups(pairs: Pairs, groups: tuple[tuple[int, ...], ...]) -> Pairs:
    """Return the pairs as they hold for every member of the groups, without those inside a group."""
    group_of = {k: group for group in groups for k in group}
    between = {
        (above, below)
        for i, j in pairs
        if group_of.get(i, (i,)) != group_of.get(j, (j,))
        for above in group_of.get(i, (i,))
        for below in group_of.get(j, (j,))
    }
    return tuple(sorted(between))


def weak_order_tiers(pairs: Pairs, n_teachers: int) -> tuple[int, ...] | None:
    """Return a rank for each teacher, higher for those above, or None if the order is not weak.

    In a weak order everyone in a tier stands above the same teachers, so counting them ranks the tiers; and the
    order is weak exactly when the count decides every comparison.
    """
    if not pairs:
        return (0,) * n_teachers
    above_KK = closure(pairs, n_teachers)
    below_count_K = above_KK.sum(axis=1)
    if not (above_KK == (below_count_K[:, None] > below_count_K[None, :])).all():
        return None
    ranks = {count: rank for rank, count in enumerate(sorted(set(below_count_K.tolist())))}
    return tuple(ranks[count] for count in below_count_K.tolist())


def topological_order(pairs: Pairs, n_teachers: int) -> tuple[int, ...]:
    """Return the teachers so that everyone comes after all who stand above them."""
    if not pairs:
        return tuple(range(n_teachers))
    above_count_K = closure(pairs, n_teachers).sum(axis=0)
    return tuple(int(k) for k in np.argsort(above_count_K, kind="stable"))


def covering_pairs(pairs: Pairs, n_teachers: int) -> Pairs:
    """Return the pairs that do not follow from others (the transitive reduction), those nearer the top first."""
    if not pairs:
        return ()
    above_KK = closure(pairs, n_teachers)
    through_KK = (above_KK.astype(int) @ above_KK.astype(int)) > 0
    rank = {teacher: place for place, teacher in enumerate(topological_order(pairs, n_teachers))}
    kept = [(int(i), int(j)) for i, j in np.argwhere(above_KK & ~through_KK)]
    return tuple(sorted(kept, key=lambda pair: (rank[pair[0]], rank[pair[1]])))


def tier_pairs(scores: tuple[float, ...]) -> Pairs:
    """Return the pairs between neighboring tiers of ``scores``: a higher score stands above a lower one."""
    levels = sorted(set(scores), reverse=True)
    members = [[k for k, score in enumerate(scores) if score == level] for level in levels]
    return tuple(sorted((i, j) for upper, lower in pairwise(members) for i in upper for j in lower))
