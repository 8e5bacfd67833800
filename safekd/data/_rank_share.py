"""Examples that several processes read between them.

Where every rank was given the same examples, each reads its rows of every batch.  Where each was given its own part, by
a ``DistributedSampler`` or as some files of many, the whole is the parts one after the other, by rank, and each reads
what it has of a batch.  Either way a batch of the whole is the same as in one process.  Axes: B batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..distributed import Ranks
from ..errors import InvalidInput
from ._batch import Batch
from ._example_source import ExampleSource
from ._group_names import GroupNames
from ._split import Split
from ._split_cache import fingerprint_split
from .provenance import SeenExamples, StoredSplit, read_seen_examples
from .sources import SurveyedSource

_SHOWN = 64  # examples of a source that is read as it is needed, by which ranks see whether they have the same


class RankShare(ExampleSource):
    """This rank's share of a source; sizes are those of the whole.

    Every rank makes it at the same time.

    Args:
        source: What this rank was given.
        ranks: Who shares it.

    Attributes:
        same: Whether every rank was given the same examples.

    Raises:
        InvalidInput: Ranks were given parts whose classes, contexts or tasks are called differently.
    """

    def __init__(self, source: ExampleSource, ranks: Ranks) -> None:
        self._source, self.ranks = source, ranks
        self.name, self.random_access = source.name, source.random_access
        self._first = None if source.random_access else next(iter(source.batches(_SHOWN))).select(slice(0, 2))
        self.same = len(set(ranks.gather(_describe_content(source)))) == 1
        names = ranks.gather(repr(source.names))
        if len(set(names)) > 1:
            raise InvalidInput(
                f"Each rank was given its own part of '{source.name}', and their classes, contexts or tasks are called "
                "differently; give class_names, context_names and task_names to each part, all of them, in one order."
            )
        counts = torch.zeros(ranks.size, 2, dtype=torch.float64)
        counts[ranks.rank] = torch.tensor([len(source), source.positions], dtype=torch.float64)
        counts = ranks.add_up(lambda: counts.reshape(-1), counts.numel()).reshape(-1, 2)
        total = counts[0] if self.same else counts.sum(0)
        self._examples, self._positions = int(total[0]), int(total[1])
        self._start = int(counts[: ranks.rank, 0].sum())

    @property
    def own(self) -> ExampleSource:
        """What this rank was given."""
        return self._source

    @property
    def names(self) -> GroupNames:
        """What its classes, contexts and tasks are called."""
        return self._source.names

    @property
    def device(self) -> torch.device:
        """Where its batches are."""
        return self._source.device

    @property
    def positions(self) -> int:
        """How many positions count, over all examples of all ranks."""
        return self._positions

    def __len__(self) -> int:
        return self._examples

    @property
    def numbered(self) -> bool:
        """Whether examples have numbers by which tables know them."""
        return self._source.numbered

    def used(self) -> Split | StoredSplit | SurveyedSource | None:
        """Return what a run is to be remembered to have used, the parts of all ranks; None where that is not known."""
        own = self._source
        if not isinstance(own, (Split, SurveyedSource)):
            return None
        return (
            own if self.same else StoredSplit(self.name, SeenExamples.join(self.ranks.gather(read_seen_examples(own))))
        )

    def batch(self, index: Tensor | None = None) -> Batch:
        """Return what this rank reads of some examples, or of all; perhaps nothing.

        Args:
            index: Their places in the whole, (B,), the same on every rank; None for all.

        Returns:
            The batch.
        """
        if index is None:
            index = torch.arange(len(self), device=self.device)
        if index.dtype == torch.bool:
            index = index.nonzero().squeeze(-1)
        return self._source.batch(self._find_own(index))

    def _find_own(self, index: Tensor) -> Tensor:
        """Return which of some places in the whole this rank reads, as places in what it was given."""
        if self.same:
            return self.ranks.take_own(index)
        here = index - self._start
        return here[(here >= 0) & (here < len(self._source))]

    def read_batches(self, indices: Iterable[Tensor], seed: int = 0) -> Iterator[Batch]:
        """Yield what this rank reads of the batches of some examples, read ahead where workers do that.

        Args:
            indices: Their places in the whole, (B,) each.
            seed: Of examples that change from reading to reading; evaluations have seed 0.

        Yields:
            Batches, in order; perhaps of no example.
        """
        return self._source.read_batches([self._find_own(index) for index in indices], seed)

    def share_batch(self, batch: Batch) -> Batch:
        """Return what this rank reads of a batch that its own stream gave; perhaps nothing.

        Args:
            batch: Of the stream that this rank was given.
        """
        return batch.every(self.ranks.size, self.ranks.rank) if self.same else batch

    def idle_batch(self) -> Batch:
        """Return two examples that a rank shows where it has none to read: one alone is too few to normalize."""
        if self._first is not None:
            return self._first
        return self._source.batch(torch.arange(2, device=self.device) % len(self._source))

    def sample(self, examples: int, seed: int) -> ExampleSource:
        """Return this rank's share of some examples, drawn at random without replacement.

        Args:
            examples: How many, over all ranks; all of them where there are no more.
            seed: The only source of chance.
        """
        if examples >= len(self):
            return self
        mine = examples if self.same else max(1, round(examples * len(self._source) / len(self)))
        return RankShare(self._source.sample(mine, seed), self.ranks)

    def to(self, device: torch.device | str) -> RankShare:
        """Return the same share, its batches on another device.

        Args:
            device: Where to.
        """
        return RankShare(self._source.to(device), self.ranks)

    def batches(self, rows: int) -> Iterator[Batch]:
        """Yield every example of this rank's once, always in the same order.

        Args:
            rows: How many at a time, at most.

        Yields:
            Batches; none where this rank has nothing to read.
        """
        if not self.same:
            yield from self._source.batches(rows)
        elif self.random_access:
            own = self.ranks.take_own(torch.arange(len(self), device=self.device))
            yield from (self._source.batch(index) for index in torch.split(own, rows) if len(index))
        else:
            for batch in self._source.batches(rows * self.ranks.size):
                part = self.share_batch(batch)
                if len(part):
                    yield part


def share_source(source: ExampleSource, ranks: Ranks) -> ExampleSource:
    """Return what this process reads of a source: all of it where it is alone.

    Args:
        source: What it was given.
        ranks: Who shares it.

    Raises:
        InvalidInput: Ranks were given parts whose classes, contexts or tasks are called differently.
    """
    return source if ranks.size == 1 or isinstance(source, RankShare) else RankShare(source, ranks)


def read_stream(source: ExampleSource, batches: Iterable[Batch]) -> Iterator[tuple[Batch, int]]:
    """Yield this rank's part of each batch of a pass, as many on every rank, and how many examples are left then.

    Args:
        source: What this process reads of a stream.
        batches: Of the stream that it was given.

    Yields:
        A batch, of no example where this rank's own stream has ended before others', and what is left on all.
    """
    left, each = len(source.own), iter(batches)
    while True:
        batch = next(each, None)
        left -= 0 if batch is None else len(batch)
        alone = not isinstance(source, RankShare) or source.same
        told = [(batch is not None, left)] if alone else source.ranks.gather((batch is not None, left))
        if not any(more for more, _ in told):
            return
        if isinstance(source, RankShare):
            batch = source.idle_batch().select(slice(0, 0)) if batch is None else source.share_batch(batch)
        assert batch is not None
        yield batch, sum(rest for _, rest in told)


def read_evenly(source: ExampleSource, rows: int, *, together: bool = True) -> Iterator[tuple[Batch, bool]]:
    """Yield the batches of a source, as many on every rank as on any other.

    Args:
        source: What is read.
        rows: Examples at a time, at most; of all ranks where they keep step.
        together: Whether all ranks have to keep step; else each reads its own and no more.

    Yields:
        A batch, and whether it counts: a rank that has no more shows its first two examples again.
    """
    if not isinstance(source, RankShare) or not together:
        yield from ((batch, True) for batch in source.batches(rows))
        return
    if source.same and source.random_access:  # the batches of one process
        for index in torch.split(torch.arange(len(source), device=source.device), rows):
            drawn = source.batch(index)
            yield (drawn, True) if len(drawn) else (source.idle_batch(), False)
        return
    batches = iter(source.batches(max(1, rows // source.ranks.size)))
    while True:
        batch = next(batches, None)
        if not any(source.ranks.gather(batch is not None)):
            return
        yield (source.idle_batch(), False) if batch is None else (batch, True)


def _describe_content(source: ExampleSource) -> str:
    """Return text that is the same for the same examples: all of them in memory, else the first and how many."""
    if isinstance(source, Split):
        return repr(fingerprint_split(source))
    first = next(iter(source.batches(_SHOWN)))
    return repr((len(source), source.positions, first.fingerprint()))
