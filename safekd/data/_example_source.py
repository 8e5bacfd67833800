"""Where labeled examples come from: a split in memory, a data set that is read as it is needed, a stream.

Axes: B batch, N examples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..distributed import Ranks
from ._batch import Batch
from ._group_names import GroupNames


class ExampleSource(ABC):
    """A named set of labeled examples, read in batches.

    Attributes:
        name: "train", "validation", ...
        names: What classes, contexts and tasks are called.
        random_access: Whether ``batch`` gives any examples asked for; a stream gives all of them, in its order.
        device: Where batches are.
        ranks: The processes that read it between them: what is added up over its batches, ``ranks.add_up`` completes.
    """

    name: str
    random_access: bool = True
    ranks: Ranks = Ranks()

    @property
    def own(self) -> ExampleSource:
        """What this process reads of, itself unless several share it."""
        return self

    @property
    def numbered(self) -> bool:
        """Whether examples have numbers by which tables know them."""
        return True

    @property
    @abstractmethod
    def names(self) -> GroupNames:
        """What its classes, contexts and tasks are called."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where its batches are."""

    @property
    @abstractmethod
    def positions(self) -> int:
        """How many positions count, over all examples."""

    @abstractmethod
    def __len__(self) -> int:
        """How many examples there are."""

    @abstractmethod
    def batch(self, index: Tensor | None = None) -> Batch:
        """Return some examples, or all of them.

        Args:
            index: Their places, (B,), or a mask (N,) of booleans; None for all.

        Returns:
            The batch.
        """

    @abstractmethod
    def batches(self, rows: int) -> Iterator[Batch]:
        """Yield every example once, always in the same order.

        Args:
            rows: How many at a time, at most.

        Yields:
            Batches.
        """

    def read_batches(self, indices: Iterable[Tensor], seed: int = 0) -> Iterator[Batch]:
        """Yield the batches of some examples, read ahead where workers do that.

        Args:
            indices: Their places, (B,) each.
            seed: Of examples that change from reading to reading; evaluations have seed 0.

        Yields:
            Batches, in order.
        """
        return map(self.batch, indices)

    @abstractmethod
    def sample(self, examples: int, seed: int) -> ExampleSource:
        """Return some examples, drawn at random without replacement, in the order that they have here.

        Args:
            examples: How many; all of them where there are no more.
            seed: The only source of chance.
        """

    @abstractmethod
    def to(self, device: torch.device | str) -> ExampleSource:
        """Return the same source, its batches on another device.

        Args:
            device: Where to.
        """
