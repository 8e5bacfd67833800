"""A stream of batches, read from its beginning in each pass.  Axes: B batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..._number_checks import is_whole
from ...errors import InvalidInput
from .._batch import Batch
from .._build_batch import build_batch
from .._data_sources import Fields
from ._collected_source import CollectedSource
from ._pass_randomness import PassRandomness
from ._source_survey import Reservoir
from ._surveyed_source import SurveyedSource


class StreamSource(SurveyedSource):
    """Batches that come in an order of their own: a ``DataLoader``, a list of batches, a function that opens a stream.

    Each pass reads the stream from its beginning.  A pass of training is a function of the trainer's seed and the
    epoch, and evaluations read the same pass each time: random numbers that a loader draws are its own
    (``PassRandomness``), and ``set_epoch`` is called where loader, sampler or dataset have it.  The first pass counts
    the examples and holds a random sample of them; a later one that gives another number is refused.

    Args:
        name: "train", "validation", ...
        batches: A DataLoader, a ``torchdata`` StatefulDataLoader, another iterable that starts anew each time it is
            asked, or a function without arguments that returns an iterator.  Batches are tuples, (inputs, labels) or
            what ``fields`` says, dictionaries, or ``Batch``.
        fields: What the parts of a batch are, as for ``as_split``; ``numbers`` among them are the rows of stored tables
            that belong to the examples, without which such tables are refused.  A list of names makes inputs a
            dictionary: ``{"inputs": ["input_ids", "attention_mask"], "labels": "labels"}``.
        examples: After how many examples a pass ends, for streams without an end; None for all that come.
        class_names: What to call the classes, in the order of their numbers.
        context_names: What to call the contexts.
        task_names: What to call the tasks.
        device: Where batches go.

    Raises:
        InvalidInput: It can be read only once, it is no iterable, or a number is out of range.
    """

    random_access = False

    def __init__(
        self,
        name: str,
        batches: Iterable[Any] | Callable[[], Iterable[Any]],
        *,
        fields: Fields | None = None,
        examples: int | None = None,
        class_names: Sequence[str] = (),
        context_names: Sequence[str] = (),
        task_names: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(name, fields, class_names, context_names, task_names, device)
        if isinstance(batches, Iterator):
            raise InvalidInput(
                f"`{name}` is a {type(batches).__name__}, which can be read once, and each epoch and evaluation reads "
                "it anew; give a function that opens it, kd.data.StreamSource(name, lambda: read(...)), or an object "
                "whose __iter__ does."
            )
        if not callable(batches) and not hasattr(batches, "__iter__"):
            raise InvalidInput(
                f"`{name}` is a {type(batches).__name__}; wanted batches: a DataLoader, a list, or a function that "
                "returns an iterator."
            )
        if examples is not None and (not is_whole(examples) or examples < 1):
            raise InvalidInput(f"`examples` is {examples!r}; wanted a whole number of at least 1, or None.")
        self.loader, self._most = batches, examples
        self._generators = _find_generators(batches)
        self._reservoir: Reservoir | None = None
        self._numbered = True  # until a batch without numbers comes

    def __len__(self) -> int:
        return self.survey.examples

    @property
    def numbered(self) -> bool:
        """Whether all examples have numbers by which tables know them."""
        return bool(self.survey.examples) and self._numbered

    def batch(self, index: Tensor | None = None) -> Batch:
        """Refuse to give examples by their place.

        Args:
            index: Places.

        Raises:
            InvalidInput: Always: a stream is read in its order.
        """
        raise InvalidInput(
            f"`{self.name}` is a stream, read batch after batch in its order; what asks for chosen examples, or for "
            "all of them at once, needs a kd.Split, or a dataset with random access."
        )

    def epoch_batches(self, epoch: int, seed: int) -> Iterator[Batch]:
        """Return the batches of one epoch of training, as the stream gives them.

        Args:
            epoch: From 1.
            seed: Of the epoch, below 2**63; evaluations have seed 0.

        Returns:
            Batches.

        Raises:
            InvalidInput: It gives another number of examples than in its first pass.
        """
        return (batch.to(self.device) for batch in self._read_epoch(epoch, seed))

    def sample(self, examples: int, seed: int) -> CollectedSource | StreamSource:
        """Return some examples, drawn at random without replacement, and held in memory.

        Args:
            examples: How many; all of them, still a stream, where there are no more.
            seed: The only source of chance.  Seed 0 reads the sample that the first pass held, if it is large enough;
                another one reads the stream once more.
        """
        if examples >= len(self):
            return self
        reservoir = self._reservoir
        if reservoir is None or reservoir.seed != seed or examples > reservoir.most:
            reservoir, first = Reservoir(seed, examples), 0
            for batch in self._read_epoch(None, 0):
                reservoir.add(batch, first)
                first += len(batch)
        return CollectedSource(self, reservoir.batches(examples))

    def to(self, device: torch.device | str) -> StreamSource:
        """Return the same source, its batches on another device.

        Args:
            device: Where to.
        """
        if torch.device(device) == self.device:
            return self
        other = copy.copy(self)
        other._device = torch.device(device)
        return other

    def _read_pass(self, rows: int) -> Iterator[Batch]:
        return self._read_epoch(None, 0)

    def _note(self, batch: Batch, first: int) -> None:
        if first == 0:
            self._reservoir, self._numbered = Reservoir(0), True
        assert self._reservoir is not None
        self._reservoir.add(batch, first)
        self._numbered = self._numbered and batch.numbered

    def _read_epoch(self, epoch: int | None, seed: int) -> Iterator[Batch]:
        """Yield the batches of one pass, on the processor; ``epoch`` is None in evaluations, which move no sampler."""
        randomness, done = PassRandomness(seed, self._generators), 0
        with randomness.use():
            if epoch is not None or self._survey is None:
                _set_epoch(self.loader, epoch or 0)
            items = iter(self.loader() if callable(self.loader) else _open_loader(self.loader, again=epoch is None))
        while self._most is None or done < self._most:
            with randomness.use():
                item = next(items, _END)
            if item is _END:
                break
            batch = self._build(item, done)
            if self._most is not None and done + len(batch) > self._most:
                batch = batch.select(slice(0, self._most - done))
            if not len(batch):
                continue
            done += len(batch)
            yield batch
        self._require_length(done, epoch)

    def _build(self, item: Any, first: int) -> Batch:
        if isinstance(item, Batch):
            return replace(item.to("cpu"), place=None, split_size=None)
        return build_batch(self._name_item(item), self.names, first=first).to("cpu")

    def _require_length(self, examples: int, epoch: int | None) -> None:
        if not examples:
            raise InvalidInput(
                f"`{self.name}` gave no examples{f' in epoch {epoch}' if epoch else ''}; give a stream that starts "
                "anew each time it is read, kd.data.StreamSource(name, lambda: read(...)) for instance."
            )
        if self._most is not None and examples < self._most:
            raise InvalidInput(f"`{self.name}` ended after {examples} examples; `examples` asks for {self._most}.")
        if self._survey is not None and examples != self._survey.examples:
            raise InvalidInput(
                f"`{self.name}` gave {examples} examples {f'in epoch {epoch}' if epoch else 'in an evaluation'}, and "
                f"{self._survey.examples} in its first pass; wanted as many in each pass, since averages are taken "
                "over them. Where a stream grows, or has no end, give examples=, after how many a pass ends."
            )


_END = object()


def _open_loader(loader: Iterable[Any], *, again: bool) -> Iterable[Any]:
    """Return what is iterated: for evaluations a second loader where the first knows only one pass at a time."""
    stateful = getattr(loader, "persistent_workers", False) or hasattr(loader, "state_dict")
    if not (again and isinstance(loader, DataLoader) and stateful):
        return loader
    if isinstance(loader.dataset, IterableDataset):  # which has no sampler that could be passed on
        batching: dict[str, Any] = {"batch_size": loader.batch_size, "drop_last": loader.drop_last}
    elif loader.batch_sampler is None:
        batching = {"batch_size": None, "sampler": loader.sampler}
    else:
        batching = {"batch_sampler": loader.batch_sampler}
    return DataLoader(
        loader.dataset,
        **batching,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


def _list_loader_parts(loader: Any) -> list[Any]:
    """Return a loader, its samplers and its dataset."""
    names = (("batch_sampler",), ("batch_sampler", "sampler"), ("sampler",), ("dataset",))
    parts = [loader]
    for path in names:
        part = loader
        for name in path:
            part = getattr(part, name, None)
        if part is not None and all(part is not other for other in parts):
            parts.append(part)
    return parts


def _set_epoch(loader: Any, epoch: int) -> None:
    for part in _list_loader_parts(loader):
        if callable(set_epoch := getattr(part, "set_epoch", None)):
            set_epoch(epoch)


def _find_generators(loader: Any) -> list[tuple[torch.Generator, int]]:
    """Return the generators of a loader and its samplers, with their seeds."""
    owned = [getattr(part, "generator", None) for part in _list_loader_parts(loader)]
    distinct = {id(one): one for one in owned if isinstance(one, torch.Generator)}
    return [(generator, generator.initial_seed()) for generator in distinct.values()]
