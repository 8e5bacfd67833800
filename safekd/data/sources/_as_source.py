"""What ``fit`` takes as data, as a source: a Split where they are small, else one that reads them as needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from ...errors import InvalidInput
from .._batch import Batch
from .._data_sources import Fields, move_split
from .._example_source import ExampleSource
from .._split import Split
from ._dataset_source import DatasetSource
from ._stream_source import StreamSource


@dataclass(frozen=True)
class SourceSettings:
    """What is small; ``tests/safekd/data/test_as_source.py`` notices.

    Attributes:
        split_bytes: Size of a dataset up to which it is read into memory as a Split, by its first item.
    """

    split_bytes: int = 2**28


SETTINGS = SourceSettings()


def as_source(data: Any, name: str, fields: Fields | None = None, device: torch.device | str = "cpu") -> ExampleSource:
    """Return data as a source on a device.

    Args:
        data: A source; what ``as_split`` takes, where a dataset becomes a Split if its items are of one shape, the same
            in each reading, and small together, else a DatasetSource; or what StreamSource takes: a DataLoader, a list
            of batches, a function that opens a stream.
        name: What it is called, where it has no name.
        fields: As for ``as_split``, and for the sources.
        device: Where its batches go.

    Raises:
        InvalidInput: It is none of these, or it is not clear which part is what.
    """
    place = torch.device(device)
    if isinstance(data, ExampleSource):
        return move_split(data, name, place) if isinstance(data, Split) else data.to(place)
    if isinstance(data, (Mapping, Tensor, str, bytes, tuple)) or hasattr(data, "__array__"):
        return move_split(data, name, place, fields)
    if isinstance(data, list):
        if not data or not isinstance(data[0], (tuple, list, Mapping, Batch)):
            return move_split(data, name, place, fields)
        if not _is_list_of_examples(data, name, fields):
            return _open_stream(data, name, fields, place)
        examples: Any = data
        data = Subset(examples, range(len(data)))
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return _read_dataset(data, name, fields, place)
    if isinstance(data, Iterator) or hasattr(data, "__iter__") or (callable(data) and not isinstance(data, type)):
        return _open_stream(data, name, fields, place)
    return move_split(data, name, place, fields)


def _open_stream(data: Any, name: str, fields: Fields | None, device: torch.device) -> StreamSource:
    return StreamSource(name, data, fields=fields, device=device)


def _read_dataset(data: Any, name: str, fields: Fields | None, device: torch.device) -> ExampleSource:
    try:
        small = not len(data) or _count_bytes(data[0]) * len(data) <= SETTINGS.split_bytes
    except LookupError:  # something with keys, of which ``as_split`` says what is wanted
        small = True
    if not small:
        return DatasetSource(name, data, fields=fields, device=device)
    try:
        changes = not DatasetSource(name, data, fields=fields).repeats
    except (InvalidInput, LookupError):  # of which ``as_split`` speaks
        changes = False
    if changes:  # random crops, say: what was read once is not what comes next
        return DatasetSource(name, data, fields=fields, device=device)
    return move_split(data, name, device, fields)


def _count_bytes(item: Any) -> int:
    """Return about how much memory an item takes."""
    if isinstance(item, Tensor):
        return item.numel() * item.element_size()
    if hasattr(item, "nbytes"):
        return int(item.nbytes)
    if isinstance(item, Mapping):
        return sum(map(_count_bytes, item.values()))
    return sum(map(_count_bytes, item)) if isinstance(item, (tuple, list)) else 8


def _is_list_of_examples(data: list[Any], name: str, fields: Fields | None) -> bool:
    """Whether the items of a list are examples and not batches: a label is one number."""
    item = data[0]
    parts: Mapping[Any, Any] = {}
    wanted = fields.get("labels", "labels") if isinstance(fields, Mapping) else "labels"
    if isinstance(item, Mapping):
        parts = {"labels": item.get(wanted)}
    elif isinstance(item, tuple) and len(item) > 1:
        order = list(fields) if fields is not None and not isinstance(fields, Mapping) else ["inputs", "labels"]
        parts = dict(zip(order, item, strict=False))
    labels: Any = parts.get("labels")
    inputs: Any = parts.get("inputs")
    if np.ndim(labels) == 1 and np.shape(labels) == np.shape(inputs):
        raise InvalidInput(
            f"`{name}` is a list of {type(item).__name__}s whose inputs and labels have shape {np.shape(labels)}: "
            f"batches of single numbers, or sequences? Say which: kd.data.StreamSource('{name}', data) for batches, "
            f"kd.data.DatasetSource('{name}', data) for sequences."
        )
    return labels is not None and np.ndim(labels) == 0
