"""The batches of training: in an order that is a function of (seed, epoch) alone, or in that of a stream.

Axes: B batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...data import Batch, ExampleSource, StreamSource, read_stream
from .._training_problem import TrainingProblem
from ._point_reader import mix_seed


class EpochBatches:
    """Reads the batches that steps are taken on.

    Args:
        problem: What is trained.
        train: Training data.
        epochs: Passes over them at most.
    """

    def __init__(self, problem: TrainingProblem, train: ExampleSource, epochs: int) -> None:
        self._problem, self._train, self._epochs = problem, train, epochs
        self._whole: Batch | None = None  # the batch of every step, where that is the whole data
        self._left: int | None = None  # examples of a stream that are still to come

    def read(self, epoch: int, taken: int) -> Iterator[tuple[Batch, Batch | None]]:
        """Return each batch and, where that was asked for, the one half an epoch away.

        Args:
            epoch: From 1.
            taken: How many batches of the epoch were taken before, and are passed over.
        """
        train, seed = self._train, mix_seed(self._problem.seed, epoch)
        if isinstance(train.own, StreamSource):
            return ((batch, None) for batch in self._read_stream(train.own, epoch, taken, seed))
        if self._problem.is_full_batch(train) and getattr(train.own, "repeats", True):
            if self._whole is None:
                self._whole = train.batch()
            return iter([] if taken else [(self._whole, None)])
        indices = self._problem.split_batches(self._order_examples(seed))
        alone = not self._problem.independent_batches or len(indices) < 2
        batches = train.read_batches(indices[taken:], seed)
        if alone:
            return ((batch, None) for batch in batches)
        others = self._problem.split_batches(self._order_examples(seed).roll(len(train) // 2))
        return zip(batches, train.read_batches(others[taken:], seed), strict=True)

    def correct_steps(self, step: int, steps: int, epoch: int) -> int:
        """Return how many steps the run has, as it shows: passes over a stream may have different numbers of batches.

        Args:
            step: Steps so far.
            steps: Of the whole run, as the first pass showed.
            epoch: In which the last one was taken.
        """
        if self._left is None:
            return steps
        return step if self._left == 0 and epoch == self._epochs else max(steps, step + 1)

    def _read_stream(self, train: StreamSource, epoch: int, taken: int, seed: int) -> Iterator[Batch]:
        for number, (batch, left) in enumerate(read_stream(self._train, train.epoch_batches(epoch, seed))):
            self._left = left
            if number >= taken:
                yield batch

    def _order_examples(self, seed: int) -> Tensor:
        """Return the order of examples; all of them in theirs, where a step reads all."""
        size = len(self._train)
        if self._problem.is_full_batch(self._train):
            return torch.arange(size, device=self._problem.device)
        return torch.randperm(size, generator=torch.Generator().manual_seed(seed)).to(self._problem.device)
