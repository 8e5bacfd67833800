"""A batch, made of the parts that a dataset or a loader gives.  Axes: B batch, ... positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput
from ._batch import Batch
from ._column_values import read_named_numbers, read_tensor
from ._group_names import GroupNames, Key
from ._inputs import map_inputs, name_inputs
from ._position_mask import clear_uncounted, read_position_mask

_KEYS: dict[str, Key] = {"labels": "class", "task": "task", "context": "context"}


def build_batch(
    parts: Mapping[str, Any],
    names: GroupNames,
    *,
    first: int = 0,
    place: Tensor | None = None,
    index: Tensor | None = None,
    size: int | None = None,
) -> Batch:
    """Return a batch of some examples; labels of -100, and those that a mask leaves out, do not count.

    Args:
        parts: By name: ``inputs``, (B, ...) or a dictionary of such, and ``labels``, (B, ...); where there are,
            ``task``, ``context`` and ``numbers`` or ``index``, (B,), and ``mask``, of the labels' shape.  Tensors,
            arrays and lists are taken.
        names: What the source is called, and its classes, contexts and tasks; text among the parts is numbered by them.
        first: How many examples came before, where they have no numbers and no places.
        place: Places of the examples in a source with random access, (B,).
        index: What numbers them where they have no numbers of their own, (B,).
        size: How many examples the source has, where ``index`` are their places in it.

    Raises:
        InvalidInput: Lengths differ, or labels are no whole numbers or have no name.
    """
    who = f"`{names.split}`"
    inputs = _read_batch_inputs(parts["inputs"], who)
    labels = _read_group_numbers(parts["labels"], "labels", names)
    if labels.ndim == 0:
        raise InvalidInput(
            f"{who} gives single examples, a label of shape (); wanted batches: "
            "torch.utils.data.DataLoader(data, batch_size=64)."
        )
    mask = read_position_mask(parts.get("mask"), labels, names.split)
    labels = labels.long() if mask is None else torch.where(mask, labels.long(), 0)
    least, most = (int(x) for x in torch.aminmax(labels)) if labels.numel() else (0, 0)
    if least < 0:
        raise InvalidInput(f"{who}: labels holds {least}; wanted integers from 0, or -100 where one does not count.")
    if names.classes and most >= len(names.classes):
        raise InvalidInput(
            f"{who}: labels hold {most}, but class_names has {len(names.classes)} names, for 0 to "
            f"{len(names.classes) - 1}; name every class."
        )
    inputs = map_inputs(inputs, lambda value: clear_uncounted(value, mask))
    rows = int(labels.shape[0])
    given = {what: parts.get(what) for what in ("task", "context")}
    given["numbers"] = parts.get("numbers", parts.get("index"))
    read = {what: _read_row_numbers(value, what, names, rows) for what, value in given.items() if value is not None}
    for what, value in name_inputs(inputs).items():
        if value.shape[:1] != (rows,):
            raise InvalidInput(
                f"{who}: {what} has {len(value) if value.ndim else 'no'} rows, labels have {rows}; wanted equal."
            )
    none, numbers = torch.zeros(rows, dtype=torch.long), read.get("numbers", index)
    return Batch(
        inputs,
        labels,
        read.get("task", none),
        read.get("context", none),
        torch.arange(first, first + rows) if numbers is None else numbers,
        None if "numbers" in read else size,
        mask,
        place,
        numbered=numbers is not None,
    )


def _read_batch_inputs(value: Any, who: str) -> Any:
    if not isinstance(value, Mapping):
        return _read_batch_values(value, "inputs", who)
    if not value:
        raise InvalidInput(f"{who}: inputs is an empty dictionary; wanted tensors by the student's argument names.")
    return {str(key): _read_batch_values(part, f"inputs['{key}']", who) for key, part in value.items()}


def _read_batch_values(value: Any, what: str, who: str) -> Tensor:
    return read_tensor(value, what, who.strip("`"))


def _read_group_numbers(value: Any, what: str, names: GroupNames) -> Tensor:
    """Return class, context or task numbers; text by its names."""
    who, known = f"`{names.split}`", names.known(_KEYS[what]) if what in _KEYS else ()
    text = not isinstance(value, Tensor) and isinstance(next(iter(value), None), str)
    if text and not known:
        what_names = f"{_KEYS.get(what, what)}_names"
        raise InvalidInput(f"{who}: {what} is text, '{next(iter(value))}' say; give its names, {what_names}=[...].")
    numbers, _ = read_named_numbers(value, known, what, names.split)
    if numbers.is_floating_point() or numbers.dtype == torch.bool:
        raise InvalidInput(f"{who}: {what} is {numbers.dtype}; wanted integers from 0, e.g. .long().")
    return numbers


def _read_row_numbers(value: Any, what: str, names: GroupNames, rows: int) -> Tensor:
    """Return whole numbers, one an example."""
    numbers = _read_group_numbers(value, what, names)
    if numbers.shape != (rows,):
        raise InvalidInput(
            f"`{names.split}`: {what} has shape {tuple(numbers.shape)}; wanted one number an example, ({rows},)."
        )
    if rows and int(numbers.min()) < 0:
        raise InvalidInput(f"`{names.split}`: {what} holds {int(numbers.min())}; wanted integers from 0.")
    return numbers.long()
