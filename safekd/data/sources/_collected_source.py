"""Examples of a stream that are held in memory, as they were collated: a sample of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...errors import InvalidInput
from .._batch import Batch
from .._example_source import ExampleSource
from .._group_names import GroupNames
from ._joined_batches import group_alike, join_batches


class CollectedSource(ExampleSource):
    """Some examples of a source, in memory; those of equal shape are read together.

    Args:
        source: Where they are from.
        batches: The examples.
    """

    def __init__(self, source: ExampleSource, batches: Sequence[Batch]) -> None:
        self.name, self._source = source.name, source
        self._batches = [join_batches([batches[i] for i in group]) for group in group_alike(batches)]
        self.random_access = len(self._batches) == 1
        if self.random_access:
            self._batches = [replace(self._batches[0], place=torch.arange(len(self._batches[0])))]
        self._length = sum(map(len, batches))
        self._positions = sum(batch.positions for batch in batches)

    @property
    def names(self) -> GroupNames:
        """What its classes, contexts and tasks are called."""
        return self._source.names

    @property
    def numbered(self) -> bool:
        """Whether examples have numbers by which tables know them."""
        return all(batch.numbered for batch in self._batches)

    @property
    def device(self) -> torch.device:
        """Where its batches are."""
        return self._source.device

    @property
    def positions(self) -> int:
        """How many positions count, over all examples."""
        return self._positions

    def __len__(self) -> int:
        return self._length

    def batch(self, index: Tensor | None = None) -> Batch:
        """Return some examples, or all of them.

        Args:
            index: Their places, (B,), or a mask (N,) of booleans; None for all.

        Returns:
            The batch.

        Raises:
            InvalidInput: They have several shapes.
        """
        if not self.random_access:
            raise InvalidInput(
                f"`{self.name}` is a sample of a stream whose examples have several shapes; what asks for chosen "
                "examples needs a kd.Split."
            )
        (whole,) = self._batches
        index = torch.arange(self._length) if index is None else index.cpu()
        return whole.select(index.nonzero().squeeze(-1) if index.dtype == torch.bool else index).to(self.device)

    def batches(self, rows: int) -> Iterator[Batch]:
        """Yield every example once, always in the same order.

        Args:
            rows: How many at a time, at most.

        Yields:
            Batches.
        """
        for batch in self._batches:
            yield from (part.to(self.device) for part in batch.cut(rows))

    def sample(self, examples: int, seed: int) -> CollectedSource:
        """Return the same examples: they are a sample.

        Args:
            examples: Not looked at.
            seed: Not looked at.
        """
        return self

    def to(self, device: torch.device | str) -> CollectedSource:
        """Return the same examples, read on another device.

        Args:
            device: Where to.
        """
        return CollectedSource(self._source.to(device), self._batches)
