"""A dataset with random access, read as it is needed.  Axes: N examples, B batch."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from ..._number_checks import is_whole
from ...errors import InvalidInput
from .._batch import Batch
from .._bit_mixing import draw_places, rank_places
from .._build_batch import build_batch
from .._data_sources import Fields
from .._inputs import list_inputs
from ._pass_randomness import PassRandomness
from ._surveyed_source import Collate, SurveyedSource


@dataclass(frozen=True)
class DatasetSettings:
    """How a dataset is read; ``tests/safekd/data/test_datasets.py`` notices.

    Attributes:
        batch_bytes: Size up to which examples are read together where a whole source is.
        read_twice: Examples that are read twice, to see whether reading gives the same.
    """

    batch_bytes: int = 2**26
    read_twice: int = 8


SETTINGS = DatasetSettings()


class DatasetSource(SurveyedSource):
    """Anything with a length and items, such as a torch ``Dataset`` or one of Hugging Face, never all in memory.

    Items are tuples, (inputs, labels) or what ``fields`` says, or dictionaries.  Where two readings of an item differ,
    as with random crops, teachers are asked anew each time, and an item is a function of the trainer's seed, the epoch
    and its place; evaluations read the same each time.

    Args:
        name: "train", "validation", ...
        dataset: Has ``len`` and items 0, 1, ...
        fields: What the parts of an item are, as for ``as_split``; ``numbers`` among them are the rows of stored tables
            that belong to the examples.  A list of names makes inputs a dictionary:
            ``{"inputs": ["input_ids", "attention_mask"], "labels": "labels"}``.
        collate: From a list of items to one such item of a batch, for examples of unequal lengths, say; torch's
            ``default_collate`` if left out.  Labels of -100 do not count.
        class_names: What to call the classes, in the order of their numbers.
        context_names: What to call the contexts.
        task_names: What to call the tasks.
        workers: Processes that read ahead; 0 for none.  They change no result.
        pin_memory: Whether batches come in memory from which a GPU copies fast.
        device: Where batches go.

    Raises:
        InvalidInput: It has no length or no items, or a number is out of range.
    """

    def __init__(
        self,
        name: str,
        dataset: Any,
        *,
        fields: Fields | None = None,
        collate: Collate | None = None,
        class_names: Sequence[str] = (),
        context_names: Sequence[str] = (),
        task_names: Sequence[str] = (),
        workers: int = 0,
        pin_memory: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(name, fields, class_names, context_names, task_names, device)
        if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise InvalidInput(
                f"`{name}` is a {type(dataset).__name__}, which has no length or no items; wanted a dataset with both. "
                "For a stream take kd.data.StreamSource."
            )
        if not is_whole(workers) or workers < 0:
            raise InvalidInput(f"`workers` is {workers!r}; wanted a number of processes, 0 for none.")
        if len(dataset) == 0:
            raise InvalidInput(f"`{name}` has no examples; give at least one.")
        self.dataset, self.collate, self.workers, self.pin_memory = dataset, collate, int(workers), pin_memory
        self._places: Tensor | None = None  # of the examples in the dataset; None where they are all of it
        few = torch.arange(min(SETTINGS.read_twice, len(dataset)))
        self.repeats = False  # until two readings have shown it
        first, again = self._read(few, 0), self._read(few, 1)
        self.repeats = _are_same_examples(first, again)
        self._row_bytes = max(1, first.bytes // len(first))

    def __len__(self) -> int:
        return len(self.dataset) if self._places is None else len(self._places)

    def batch(self, index: Tensor | None = None) -> Batch:
        """Return some examples, or all of them.

        Args:
            index: Their places, (B,), or a mask (N,) of booleans; None for all.

        Returns:
            The batch.
        """
        if index is None:
            index = torch.arange(len(self))
        index = index.nonzero().squeeze(-1) if index.dtype == torch.bool else index
        return self._place(self._read(index.cpu(), 0))

    def read_batches(self, indices: Iterable[Tensor], seed: int = 0) -> Iterator[Batch]:
        """Yield the batches of some examples, read ahead by the workers.

        Args:
            indices: Their places, (B,) each.
            seed: Of examples that change from reading to reading; evaluations have seed 0.

        Yields:
            Batches, in order.
        """
        return map(self._place, self._read_ahead([index.cpu() for index in indices], seed))

    def sample(self, examples: int, seed: int) -> DatasetSource:
        """Return some examples, drawn at random without replacement, in the order that they have here.

        Args:
            examples: How many; all of them where there are no more.
            seed: The only source of chance.
        """
        if examples >= len(self):
            return self
        return self._copy(places=self._in_dataset(draw_places(len(self), examples, seed)), survey=None)

    def to(self, device: torch.device | str) -> DatasetSource:
        """Return the same source, its batches on another device.

        Args:
            device: Where to.
        """
        return self if torch.device(device) == self.device else self._copy(device=torch.device(device))

    def _read_pass(self, rows: int) -> Iterator[Batch]:
        together = max(1, min(rows, SETTINGS.batch_bytes // self._row_bytes))
        return self._read_ahead(list(torch.split(torch.arange(len(self)), together)), 0)

    def _read(self, index_B: Tensor, seed: int) -> Batch:
        """Return some examples, on the processor."""
        data, places = self._list_items(index_B, seed)
        many = getattr(data, "__getitems__", None)  # as torch's loaders ask, where a dataset has it
        items = [data[place] for place in places] if many is None else list(many(places))
        return self._build(_CollateItems(self.name, self.fields, self.collate)(items), index_B)

    def _read_ahead(self, indices: list[Tensor], seed: int) -> Iterator[Batch]:
        """Yield some examples batch by batch, on the processor."""
        pin = self.pin_memory and torch.cuda.is_available()
        if not self.workers and not pin:
            return (self._read(index, seed) for index in indices)
        loader: DataLoader[Any] = DataLoader(
            self._list_items(indices[0], seed)[0] if indices else self.dataset,
            batch_sampler=[self._list_items(index, seed)[1] for index in indices],
            collate_fn=_CollateItems(self.name, self.fields, self.collate),
            num_workers=self.workers,
            pin_memory=pin,
            generator=torch.Generator().manual_seed(0),  # items need no chance of the loader's, and use up none
        )
        return map(self._build, loader, indices)

    def _list_items(self, index_B: Tensor, seed: int) -> tuple[Any, list[Any]]:
        """Return what items are read from, and by which keys: their places, and seeds where readings differ."""
        place_B = self._in_dataset(index_B)
        if self.repeats:
            return self.dataset, place_B.tolist()
        seeds = rank_places(place_B.numpy().astype(np.uint64), seed) >> np.uint64(1)
        return _SeededItems(self.dataset), list(zip(place_B.tolist(), seeds.tolist(), strict=True))

    def _build(self, item: Any, index_B: Tensor) -> Batch:
        whole = self._places is None
        return build_batch(
            self._name_item(item),
            self.names,
            place=index_B if self.repeats else None,
            index=self._in_dataset(index_B),
            size=len(self) if whole else None,
        )

    def _place(self, batch: Batch) -> Batch:
        return batch.to(self.device)

    def _in_dataset(self, index: Tensor) -> Tensor:
        return index if self._places is None else self._places[index]

    def _copy(self, **changes: Any) -> DatasetSource:
        other = copy.copy(self)
        for name, value in changes.items():
            setattr(other, f"_{name}", value)
        return other


@dataclass(frozen=True)
class _SeededItems:
    """Reads items that draw random numbers, each from a seed of its own; it travels to worker processes."""

    dataset: Any

    def __getitem__(self, key: tuple[int, int]) -> Any:
        place, seed = key
        with PassRandomness(seed).use():
            return self.dataset[place]


@dataclass(frozen=True)
class _CollateItems:
    """Makes items one batch; it travels to worker processes."""

    name: str
    fields: Fields | None
    collate: Collate | None

    def __call__(self, items: list[Any]) -> Any:
        if self.collate is not None:
            return self.collate(items)
        used = [_read_used_parts(item, self.fields) for item in items]
        try:
            return default_collate(used)
        except (RuntimeError, TypeError, KeyError, ValueError) as error:
            raise InvalidInput(_explain_unequal_items(used, self.name, error)) from error


def _read_used_parts(item: Any, fields: Fields | None) -> Any:
    """Return the parts of an item that are used, lists of numbers as tensors."""
    if isinstance(item, Mapping):
        keys = (
            item if not isinstance(fields, Mapping) else [key for key in item if str(key) in _list_field_names(fields)]
        )
        return {key: _read_lists(item[key]) for key in keys}
    if isinstance(item, (tuple, list)) and fields is not None and len(fields) == len(item):
        return tuple(0 if field is None else _read_lists(part) for field, part in zip(fields, item, strict=True))
    return tuple(_read_lists(part) for part in item) if isinstance(item, (tuple, list)) else item


def _list_field_names(fields: Any) -> set[str]:
    if isinstance(fields, Mapping):
        return set[str]().union(*map(_list_field_names, fields.values()))
    return set(map(str, fields)) if isinstance(fields, (list, tuple)) else {str(fields)}


def _read_lists(part: Any) -> Any:
    """Return a part with lists of numbers as tensors, which default_collate would take for columns."""
    if isinstance(part, Mapping):
        return {key: _read_lists(value) for key, value in part.items()}
    if not isinstance(part, (list, tuple)):
        return part
    try:
        return (
            torch.as_tensor(np.asarray(part))
            if not all(isinstance(x, Tensor) for x in part)
            else torch.stack(list(part))
        )
    except (TypeError, ValueError, RuntimeError):
        return part


def _list_item_parts(item: Any, name: str = "") -> dict[str, Any]:
    """Return the parts of an item by what messages call them."""
    named = item.items() if isinstance(item, Mapping) else enumerate(item, 1) if isinstance(item, tuple) else None
    if named is None:
        return {name: item}
    pairs = [
        (f"{name}['{key}']" if name else f"'{key}'" if isinstance(key, str) else f"part {key}", one)
        for key, one in named
    ]
    return {found: part for key, one in pairs for found, part in _list_item_parts(one, key).items()}


def _explain_unequal_items(items: list[Any], name: str, error: Exception) -> str:
    """Say why items do not make one batch."""
    parts = [_list_item_parts(item) for item in items]
    for what, first in parts[0].items():
        shapes = [tuple(np.shape(part[what])) for part in parts if what in part and not isinstance(part[what], str)]
        other = next((shape for shape in shapes if shape != tuple(np.shape(first))), None)
        if other is not None:
            return (
                f"Examples of `{name}` have unequal lengths: {what} has shape {shapes[0]} in one and {other} in "
                f"another. Give a function that pads them, from a list of items to a batch: "
                f"kd.data.DatasetSource('{name}', data, collate=...), with label -100 where a position does not count."
            )
    return (
        f"Items of `{name}` cannot be made one batch ({' '.join(str(error).split())}); let the dataset give tensors, "
        "arrays or numbers, in the same parts each, or give collate=, a function from a list of items to a batch."
    )


def _are_same_examples(one: Batch, other: Batch) -> bool:
    """Whether two readings of the same examples are the same."""
    mine, others = ((*list_inputs(batch.inputs), batch.labels) for batch in (one, other))
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(mine, others, strict=True))
