"""What the first pass over a source shows of it, in constant memory.  Axes: B batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ...errors import InvalidInput
from .._batch import Batch
from .._bit_mixing import Keys, rank_places
from .._inputs import list_inputs
from ..provenance import SeenExamples, hash_examples
from ._joined_batches import group_alike, join_batches


@dataclass(frozen=True)
class ReservoirSettings:
    """How much of a stream is held for evaluations; ``tests/safekd/data/test_streams.py`` notices.

    Attributes:
        most_examples: How many at most.
        most_bytes: How large they are together at most, but for one example.
    """

    most_examples: int = 2**16
    most_bytes: int = 2**27


RESERVOIR = ReservoirSettings()


@dataclass
class SourceSurvey:
    """Counts of a source, and which examples it holds.

    Attributes:
        name: Of the source, for messages.
        examples: How many there are.
        positions: How many positions count.
        batches: How many batches came.
        batch_rows: Examples of the largest one.
        seen: Keys of the examples.
    """

    name: str
    examples: int = 0
    positions: int = 0
    batches: int = 0
    batch_rows: int = 0
    seen: SeenExamples = field(default_factory=SeenExamples)

    def add(self, batch: Batch) -> None:
        """Take in the next batch.

        Args:
            batch: On the processor.

        Raises:
            InvalidInput: Inputs are not finite.
        """
        for value in list_inputs(batch.inputs):
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                row = int((~torch.isfinite(value)).reshape(len(batch), -1).any(1).nonzero()[0])
                raise InvalidInput(
                    f"`{self.name}`: inputs of example {self.examples + row} are not finite; clean or drop it."
                )
        self.seen.add(hash_examples(batch))
        self.examples += len(batch)
        self.positions += batch.positions
        self.batches += 1
        self.batch_rows = max(self.batch_rows, len(batch))


class Reservoir:
    """A sample of a stream's examples: those of the lowest ranks, which are a function of seed and place.

    Args:
        seed: The only source of chance.
        examples: How many to hold; None for what RESERVOIR says.
    """

    def __init__(self, seed: int, examples: int | None = None) -> None:
        self.seed, self.most, self._limited = (
            seed,
            RESERVOIR.most_examples if examples is None else examples,
            examples is None,
        )
        self._ranks: list[Keys] = []
        self._rows: list[Batch] = []
        self._held, self._bound = 0, np.uint64(2**64 - 1)

    def add(self, batch: Batch, first: int) -> None:
        """Take in the next batch.

        Args:
            batch: On the processor.
            first: Place of its first example in the stream.
        """
        if self._limited:
            self.most = max(1, min(self.most, RESERVOIR.most_bytes // max(batch.bytes // max(len(batch), 1), 1)))
        rank_B = rank_places(np.arange(first, first + len(batch), dtype=np.uint64), self.seed)
        chosen_B = rank_B <= self._bound
        if chosen_B.any():
            self._ranks.append(rank_B[chosen_B])
            self._rows.append(batch.select(torch.from_numpy(chosen_B.nonzero()[0])))
            self._held += int(chosen_B.sum())
        if self._held > 2 * self.most:
            self._keep_lowest(self.most)

    def batches(self, examples: int) -> list[Batch]:
        """Return a sample, in the order of the stream.

        Args:
            examples: How many, at most as many as are held.
        """
        self._keep_lowest(self.most)
        kept = Reservoir(self.seed, examples)
        kept._ranks, kept._rows, kept._held = [*self._ranks], [*self._rows], self._held
        kept._keep_lowest(examples)
        return kept._rows

    def _keep_lowest(self, count: int) -> None:
        if self._held <= count or not self._ranks:
            return
        self._bound = np.partition(np.concatenate(self._ranks), count - 1)[count - 1]
        kept = [(rank_B, rank_B <= self._bound, rows) for rank_B, rows in zip(self._ranks, self._rows, strict=True)]
        kept = [part for part in kept if part[1].any()]
        rows = [rows.select(torch.from_numpy(inside_B.nonzero()[0])) for _, inside_B, rows in kept]
        groups = group_alike(rows)  # thousands of small tensors would take more memory than what they hold
        self._rows = [join_batches([rows[i] for i in group]) for group in groups]
        self._ranks = [np.concatenate([kept[i][0][kept[i][1]] for i in group]) for group in groups]
        self._held = count
