"""What a pass over a file gathers: moments of columns, a sample of rows, and in which split each group is.

Axes: N rows, F features.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data import rank_places
from ._example_table import Array


class Moments:
    """Mean and standard deviation of columns that come in parts.  Source: Chan, Golub and LeVeque 1979."""

    def __init__(self, features: int) -> None:
        self.count, self.mean_F, self._squares_F = 0, np.zeros(features), np.zeros(features)

    def add(self, x_NF: Array) -> None:
        if not len(x_NF):
            return
        with np.errstate(over="ignore", invalid="ignore"):  # what is beyond floats is refused by its column's name
            mean_F, total = x_NF.mean(0), self.count + len(x_NF)
            apart_F = mean_F - self.mean_F
            self._squares_F += np.square(x_NF - mean_F).sum(0) + apart_F**2 * self.count * len(x_NF) / total
            self.mean_F = self.mean_F + apart_F * len(x_NF) / total
        self.count = total

    def measure_spread(self) -> Array:
        """Return the standard deviations, (F,)."""
        spread_F: Array = np.sqrt(self._squares_F / max(self.count, 1))
        return spread_F


class RowSample:
    """Rows of the lowest ranks, all where there is no limit."""

    def __init__(self, limit: int | None, seed: int) -> None:
        self._limit, self._seed = limit, seed + 1  # other ranks than those by which splits are drawn
        self._parts: list[dict[str, Array]] = []
        self._held = 0

    def add(self, rows: dict[str, Array]) -> None:
        self._parts.append(rows)
        self._held += len(rows["row"])
        if self._limit is not None and self._held > 2 * self._limit:
            self._cut(self._limit)

    def rows(self) -> dict[str, Any]:
        if self._limit is not None:
            self._cut(self._limit)
        return self._join()

    def _join(self) -> dict[str, Array]:
        return {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}

    def _cut(self, limit: int) -> None:
        whole = self._join()
        rank_N = rank_places(whole["row"], self._seed)
        kept = np.argpartition(rank_N, limit)[:limit] if len(rank_N) > limit else np.arange(len(rank_N))
        self._parts, self._held = [{name: part[kept] for name, part in whole.items()}], len(kept)


class GroupSplits:
    """In which split each group of rows is, 16 bytes a group."""

    def __init__(self) -> None:
        self._hash_G, self._split_G = np.empty(0, np.uint64), np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._hash_G)

    def add(self, hash_N: Array, split_N: Array) -> tuple[int, int] | None:
        """Note rows; return the first one whose group is in another split too, and the number of that split.

        Args:
            hash_N: Of their groups, (N,).
            split_N: Numbers of their splits, (N,).
        """
        hash_G, first_G, group_N = np.unique(hash_N, return_index=True, return_inverse=True)
        split_G = split_N[first_G]
        place_G = np.searchsorted(self._hash_G, hash_G)
        known_G = place_G < len(self)
        known_G[known_G] = self._hash_G[place_G[known_G]] == hash_G[known_G]
        split_G[known_G] = self._split_G[place_G[known_G]]
        torn = np.flatnonzero(split_N != split_G[group_N])
        if len(torn):
            return int(torn[0]), int(split_G[group_N[torn[0]]])
        self._hash_G = np.insert(self._hash_G, place_G[~known_G], hash_G[~known_G])
        self._split_G = np.insert(self._split_G, place_G[~known_G], split_G[~known_G])
        return None
