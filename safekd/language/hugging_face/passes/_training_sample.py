"""The sequences of the training data that a trace reads, the same at every point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ....data import Batch
from ....distributed import Ranks
from ....errors import InvalidInput
from ....safety import Constraint
from ._sequence_columns import make_sequence_batch

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
    """What a trace reads of the training data.

    Attributes:
        sequences: How many.
        of: How many there are; None for a stream, and for what the student writes itself.
        read: Gives the batches that this process reads.
    """

    sequences: int
    of: int | None
    read: Callable[[], Sequence[Batch]]

    @property
    def is_whole(self) -> bool:
        """Whether these are all training data."""
        return self.of is not None and self.sequences >= self.of


def sample_rows(
    data: Any,
    size: int,
    seed: int,
    collate: Collate,
    constraints: Sequence[Constraint],
    batch_size: int,
    ranks: Ranks,
    device: torch.device,
) -> TrainingSample:
    """Return a sample of rows, the same at each point.

    Args:
        data: The training data.
        size: How many rows, and as many more as constraints need.
        seed: Of the choice.
        collate: Makes tensors of rows.
        constraints: Whose groups must have positions.
        batch_size: Rows of a batch.
        ranks: Who reads.
        device: Where tensors go.

    Raises:
        InvalidInput: The data are empty, or a constraint speaks of nothing in them.
    """
    rows, of = choose_rows(data, size, seed, collate, constraints)
    mine = rows[ranks.rank :: ranks.size]

    def read() -> list[Batch]:
        parts = (mine[start : start + batch_size] for start in range(0, len(mine), batch_size))
        return [make_sequence_batch(collate(list(part))).to(device) for part in parts]

    return TrainingSample(len(rows), of, read)


def choose_rows(
    data: Any, size: int, seed: int, collate: Collate, constraints: Sequence[Constraint]
) -> tuple[list[Any], int | None]:
    """Return random rows, and more until every group of every constraint has a position; and how many rows there are.

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
    return chosen, of


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
