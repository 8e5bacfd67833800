"""The sequences of the training data that a trace reads, the same at every point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ...data import Batch
from ...errors import InvalidInput
from ...safety import Constraint
from .passes import make_sequence_batch

Collate = Callable[[list[Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class SampleSettings:
    """How far rows are looked for that a constraint speaks of; ``test_training_sample.py`` notices.

    Attributes:
        stream_factor: A stream is read at most so many times as far as the sample is long.
    """

    stream_factor: int = 20


SETTINGS = SampleSettings()


@dataclass(frozen=True)
class TrainingSample:
    """Some rows of the training data.

    Attributes:
        rows: In the order in which they are read.
        of: How many rows there are; None for a stream.
    """

    rows: Sequence[Any]
    of: int | None

    @property
    def is_whole(self) -> bool:
        """Whether these are all training data."""
        return self.of is not None and len(self.rows) >= self.of

    def make_batches(self, collate: Collate, size: int, rank: int, ranks: int, device: torch.device) -> list[Batch]:
        """Return the batches that one process reads.

        Args:
            collate: Makes tensors of rows.
            size: Rows of a batch.
            rank: Number of the process.
            ranks: How many there are.
            device: Where tensors go.
        """
        mine = self.rows[rank::ranks]
        parts = (mine[start : start + size] for start in range(0, len(mine), size))
        return [make_sequence_batch(collate(list(part))).to(device) for part in parts]


def choose_sample(
    data: Any, size: int, seed: int, collate: Collate, constraints: Sequence[Constraint]
) -> TrainingSample:
    """Return a random sample, and beyond it rows until every group of every constraint has a position.

    Args:
        data: The training data: rows by number, or a stream, of which the first rows are taken.
        size: How many rows.
        seed: Of the choice.
        collate: Makes tensors of rows.
        constraints: Whose groups must have positions.

    Raises:
        InvalidInput: The data are empty, or a constraint speaks of nothing in them.
    """
    stream = isinstance(data, IterableDataset) or not hasattr(data, "__getitem__")
    rows = iter(data) if stream else _shuffle(data, seed)
    of = None if stream else len(data)
    chosen = list(islice(rows, size))
    if not chosen:
        raise InvalidInput("`train_dataset` is empty; wanted at least one row.")
    if stream:
        rows = islice(rows, (SETTINGS.stream_factor - 1) * size)
    found = _count_groups(chosen, collate, constraints)
    for row in rows:
        if bool((found > 0).all()):
            break
        here = _count_groups([row], collate, constraints)
        if bool(((found == 0) & (here > 0)).any()):
            chosen.append(row)
            found += here
    if not stream:
        _require_groups(found, constraints)
    return TrainingSample(chosen, of)


def _shuffle(data: Any, seed: int) -> Iterator[Any]:
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).tolist()
    return (data[number] for number in order)


def _count_groups(rows: list[Any], collate: Collate, constraints: Sequence[Constraint]) -> Tensor:
    if not constraints:
        return torch.zeros(0, dtype=torch.float64)
    batch = make_sequence_batch(collate(rows))
    return torch.cat([constraint.counts(batch) for constraint in constraints])


def _require_groups(found: Tensor, constraints: Sequence[Constraint]) -> None:
    sizes = [sum(average.size for _, average in constraint.parts) for constraint in constraints]
    for constraint, count_G in zip(constraints, torch.split(found, sizes) if sizes else (), strict=True):
        if bool((count_G == 0).any()):
            what = "no position" if not bool(count_G.any()) else "no position of one of its groups"
            raise InvalidInput(
                f"Constraint '{constraint.name}' covers {what} in `train_dataset`, so nothing would be constrained. "
                "Its critical tokens are looked for among the labels, its contexts in the context column."
            )
