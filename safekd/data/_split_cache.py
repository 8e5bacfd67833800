"""Rows that are worked out once for a split, kept in memory while they fit.  Axes: N examples, B batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ._split import Split


class SplitCache:
    """Rows worked out once a split and kept, as long as they fit.

    Args:
        limit: How many bytes a split may need at most.
    """

    def __init__(self, limit: int = 2**30) -> None:
        self._limit = limit
        self._kept: dict[int, tuple[Split, Tensor]] = {}

    def holds(self, split: Split) -> bool:
        """Tell whether the rows of a split are in memory.

        Args:
            split: The split, by identity.
        """
        return id(split) in self._kept

    def __getstate__(self) -> dict[str, object]:
        """Travel empty: what a split is called here, its id, means another object in another process."""
        return {"_limit": self._limit, "_kept": {}}

    def rows(self, split: Split, index: Tensor, compute: Callable[[Tensor], Tensor], chunk: int = 1024) -> Tensor:
        """Return the rows of some examples, from memory where kept.

        Args:
            split: Where the examples are from.
            index: Their places, (B,).
            compute: From places (B,) to rows (B, ...).
            chunk: How many rows are worked out at a time where all are kept.

        Returns:
            Rows, (B, ...).
        """
        kept = self._kept.get(id(split))
        if kept is None:
            one = compute(index[:1])
            if one.numel() * one.element_size() * len(split) > self._limit:
                return compute(index)
            rows = torch.cat([compute(some) for some in split.chunks(chunk)])
            kept = self._kept[id(split)] = (split, rows)  # holding the split keeps its id taken
        return kept[1][index]
