"""Rows that are worked out once for a split, kept in memory while they fit.  Axes: N examples, B batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields

import torch
from torch import Tensor

from .._fingerprint import fingerprint_tensors
from ._batch import Batch
from ._example_source import ExampleSource
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
        # by identity; holding the source keeps its id taken
        self._contents: dict[int, tuple[ExampleSource, Hashable]] = {}

    def holds(self, split: ExampleSource) -> bool:
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

    def rows(self, source: ExampleSource, batch: Batch, compute: Callable[[Batch], Tensor]) -> Tensor:
        """Return the rows of some examples, from memory where kept; those of a stream are never kept.

        No example is worked out twice for one answer; whether rows fit is found on the first one.  Where all are kept,
        they are worked out as many at a time as the first batch holds.

        Args:
            source: Where the examples are from.
            batch: The examples.
            compute: From a batch to rows (B, ...).

        Returns:
            Rows, (B, ...).
        """
        if not self._limit or not len(batch) or batch.place is None:
            return compute(batch)
        content = self._content(source)
        if content not in self._kept:
            first = compute(batch)
            rows = None
            if first[:1].numel() * first.element_size() * len(source) <= self._limit:
                rows = _complete_rows(first, source, batch.place, compute)
            self._kept[content] = rows
            return first if rows is None else rows[batch.place]
        kept = self._kept[content]
        return compute(batch) if kept is None else kept[batch.place]

    def _content(self, split: ExampleSource) -> Hashable:
        if id(split) not in self._contents:
            self._contents[id(split)] = (split, fingerprint_split(split))
        return self._contents[id(split)][1]


def _complete_rows(
    first: Tensor, source: ExampleSource, place: Tensor, compute: Callable[[Batch], Tensor]
) -> Tensor | None:
    """Return the rows of all examples, those at ``place`` being there; None where they differ in shape."""
    rows = first.new_empty(len(source), *first.shape[1:])
    missing_N = torch.ones(len(source), dtype=torch.bool, device=place.device)
    rows[place], missing_N[place] = first, False
    for some in torch.split(missing_N.nonzero().squeeze(-1), len(place)):
        if len(some):
            more = compute(source.batch(some))
            if more.shape[1:] != rows.shape[1:]:
                return None
            rows[some] = more
    return rows


def fingerprint_split(split: ExampleSource) -> Hashable:
    """Return what tells splits of other content apart: every tensor to the last bit, and all else by its text.

    A source that is read as it is needed is told by itself.

    Args:
        split: Any source.
    """
    if not isinstance(split, Split):
        return id(split)
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
