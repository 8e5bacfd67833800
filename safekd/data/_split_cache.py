"""Rows that are worked out once for a split, kept in memory while they fit.  Axes: N examples, B batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields

import torch
from torch import Tensor

from .._fingerprint import fingerprint_tensors
from ._split import Split


class SplitCache:
    """Rows worked out once a split and kept, as long as they fit.

    What is kept belongs to the content of a split: a copy finds it, a split that was changed in place does not, once
    ``recheck`` was called.

    Args:
        limit: How many bytes a split may need at most; 0 keeps nothing.
    """

    def __init__(self, limit: int = 2**30) -> None:
        self._limit = limit
        self._kept: dict[Hashable, Tensor | None] = {}  # by content; None where the rows do not fit
        self._contents: dict[int, tuple[Split, Hashable]] = {}  # by identity; holding the split keeps its id taken

    def holds(self, split: Split) -> bool:
        """Tell whether the rows of a split are in memory.

        Args:
            split: The split.
        """
        return bool(self._limit) and self._kept.get(self._content(split)) is not None

    def recheck(self) -> None:
        """Look at the content of every split anew when it is next asked for; forget what nobody asked for lately."""
        asked = {content for _, content in self._contents.values()}
        self._kept = {content: rows for content, rows in self._kept.items() if content in asked}
        self._contents.clear()

    def forget(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._contents.clear()

    def __getstate__(self) -> dict[str, object]:
        """Travel empty: what a split is called here, its id, means another object in another process."""
        return {"_limit": self._limit, "_kept": {}, "_contents": {}}

    def rows(self, split: Split, index: Tensor, compute: Callable[[Tensor], Tensor], chunk: int = 1024) -> Tensor:
        """Return the rows of some examples, from memory where kept.

        No example is worked out twice for one answer; whether rows fit is found on the first one.

        Args:
            split: Where the examples are from.
            index: Their places, (B,).
            compute: From places (B,) to rows (B, ...).
            chunk: How many rows are worked out at a time where all are kept.

        Returns:
            Rows, (B, ...).
        """
        if not self._limit or not len(index):
            return compute(index)
        content = self._content(split)
        if content not in self._kept:
            first = compute(index)
            if first[:1].numel() * first.element_size() * len(split) > self._limit:
                self._kept[content] = None
                return first
            self._kept[content] = _complete_rows(first, split, index, compute, chunk)
        kept = self._kept[content]
        return compute(index) if kept is None else kept[index]

    def _content(self, split: Split) -> Hashable:
        if id(split) not in self._contents:
            self._contents[id(split)] = (split, _fingerprint_split(split))
        return self._contents[id(split)][1]


def _complete_rows(
    first: Tensor, split: Split, index: Tensor, compute: Callable[[Tensor], Tensor], chunk: int
) -> Tensor:
    """Return the rows of all examples, those of ``index`` being there."""
    rows = first.new_empty(len(split), *first.shape[1:])
    missing_N = torch.ones(len(split), dtype=torch.bool, device=index.device)
    rows[index], missing_N[index] = first, False
    for some in torch.split(missing_N.nonzero().squeeze(-1), chunk):
        if len(some):
            rows[some] = compute(some)
    return rows


def _fingerprint_split(split: Split) -> Hashable:
    """Return what tells splits of other content apart: every tensor to the last bit, and all else by its text."""
    tensors: dict[str, Tensor] = {}
    others = []
    for field in fields(split):
        value = getattr(split, field.name)
        parts = value if isinstance(value, Mapping) else {"": value}
        for key, part in parts.items():
            if isinstance(part, Tensor):
                tensors[f"{field.name}.{key}"] = part
            else:
                others.append((field.name, str(key), repr(part)))
    return tuple(tensors), tuple(fingerprint_tensors(tensors.values())), tuple(others)
