"""Labeled examples, and batches of them, as every other module receives them.

Axes: N examples, B batch.  Labels may carry positions too, (N, T); task and context are one integer an example.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from ..errors import InvalidInput


@dataclass(frozen=True, repr=False)
class Batch(ShortRepr):
    """Some examples of a split.

    Attributes:
        inputs: (B, ...).
        labels: Class numbers, (B, ...).
        task: Task of each example, (B,).
        context: Context of each example, (B,).
        index: Number of each example in the whole split, (B,).
    """

    inputs: Tensor
    labels: Tensor
    task: Tensor
    context: Tensor
    index: Tensor

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on another device.

        Args:
            device: Where its tensors go.
        """
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True, repr=False)
class Split(ShortRepr):
    """A named set of labeled examples.

    Attributes:
        name: "train", "validation", ...
        inputs: (N, ...).
        labels: Class numbers from 0, (N,) or (N, T).
        task: Integers from 0, (N,); zeros when left out.
        context: Integers from 0, (N,); zeros when left out.
        context_names: What to call the contexts.
        numbers: What batches call the examples, (N,); 0 to N - 1 when left out; a part keeps the numbers of the whole.

    Raises:
        InvalidInput: Lengths differ, labels are no whole numbers, or inputs are not finite.
    """

    name: str
    inputs: Tensor
    labels: Tensor
    task: Tensor | None = None
    context: Tensor | None = None
    context_names: Sequence[str] = ()
    numbers: Tensor | None = None

    def __post_init__(self) -> None:
        named = {what: getattr(self, what) for what in _PARTS}
        for what, value in named.items():
            if not isinstance(value, Tensor) and not (value is None and what in ("task", "context", "numbers")):
                raise InvalidInput(
                    f"Split '{self.name}': {what} is a {type(value).__name__}; wanted a tensor, e.g. torch.as_tensor."
                )
        size = int(self.labels.shape[0]) if self.labels.numel() and self.labels.ndim else 0
        if size == 0:
            raise InvalidInput(f"Split '{self.name}' has no examples; give at least one.")
        for what, value in named.items():
            if value is not None and value.shape[:1] != (size,):
                rows = len(value) if value.ndim else "no"
                raise InvalidInput(f"Split '{self.name}': {what} has {rows} rows, labels have {size}; wanted equal.")
        for what, value in [(what, value) for what, value in named.items() if what != "inputs"]:
            if value is not None and (value.is_floating_point() or value.dtype == torch.bool):
                raise InvalidInput(
                    f"Split '{self.name}': {what} is {value.dtype}; wanted integers from 0, e.g. .long()."
                )
            if value is not None and int(value.min()) < 0:
                raise InvalidInput(f"Split '{self.name}': {what} holds {int(value.min())}; wanted integers from 0.")
        if self.inputs.is_floating_point() and not bool(torch.isfinite(self.inputs).all()):
            row = int((~torch.isfinite(self.inputs)).reshape(size, -1).any(1).nonzero()[0])
            raise InvalidInput(f"Split '{self.name}': inputs of row {row} are not finite; clean or drop that row.")

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def batch(self, index: Tensor | None = None) -> Batch:
        """Return some examples, or all of them.

        Args:
            index: Their places, (B,), or a mask (N,) of booleans; None for all.

        Returns:
            The batch.
        """
        if index is None:
            index = torch.arange(len(self), device=self.labels.device)
        if index.dtype == torch.bool:
            index = index.nonzero().squeeze(-1)
        none = torch.zeros_like(index)
        return Batch(
            self.inputs[index],
            self.labels[index].long(),
            none if self.task is None else self.task[index].long(),
            none if self.context is None else self.context[index].long(),
            index if self.numbers is None else self.numbers[index].long(),
        )

    def part(self, index: Tensor) -> Split:
        """Return some examples as a split of the same name; they keep the numbers they have here.

        Args:
            index: Their places, (n,), or a mask (N,) of booleans.

        Returns:
            A split of n examples.
        """
        batch, given = self.batch(index), {what for what in _PARTS if getattr(self, what) is not None}
        parts = {what: getattr(batch, what) for what in given - {"numbers"}}
        return replace(self, **parts, numbers=batch.index)

    def chunks(self, size: int) -> Iterator[Tensor]:
        """Yield the places of all examples in order.

        Args:
            size: How many at a time, at most.

        Yields:
            Places, (B,).
        """
        for start in range(0, len(self), size):
            yield torch.arange(start, min(start + size, len(self)), device=self.labels.device)

    def to(self, device: torch.device | str) -> Split:
        """Return the same split on another device.

        Args:
            device: Where its tensors go.
        """
        on_device = {name: value.to(device) for name in _PARTS if (value := getattr(self, name)) is not None}
        return replace(self, **on_device)


_PARTS = ("inputs", "labels", "task", "context", "numbers")


def as_split(data: Any, name: str) -> Split:
    """Return data as a Split.

    Args:
        data: A Split, tensors (inputs, labels[, task[, context]]), or a torch dataset of such.
        name: Name of the split, where the data have none.

    Returns:
        The split.

    Raises:
        InvalidInput: It is none of these; the message says what was given.
    """
    if isinstance(data, Split):
        return data
    if _is_example(data) and all(isinstance(part, Tensor) for part in data):
        return Split(name, *data)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (Tensor, str, tuple, list)):
        try:
            items = [data[i] for i in range(len(data))]
        except LookupError:  # a dictionary or a table of columns, which has no item 0
            items = []
        if items and all(_is_example(item) and len(item) == len(items[0]) for item in items):
            whats = ("inputs", "labels", "task", "context")
            parts = [
                _stack_values(part, what, name) for part, what in zip(zip(*items, strict=True), whats, strict=False)
            ]
            return Split(name, parts[0], parts[1], *parts[2:])  # type: ignore[arg-type]  # task and context at most
    raise InvalidInput(
        f"`{name}` is a {type(data).__name__}; wanted a kd.Split, tensors (inputs, labels[, task[, context]]), "
        "or a torch dataset whose items are such tuples (for a DataLoader pass its .dataset)."
    )


def move_split(data: Any, name: str, device: torch.device) -> Split:
    """Return data on a device; the same Split if it is there already, since targets are kept by Split.

    Args:
        data: What ``as_split`` takes.
        name: Name of the split, where the data have none.
        device: Where its tensors go.

    Returns:
        The split.

    Raises:
        InvalidInput: As by ``as_split``.
    """
    split = as_split(data, name)
    on_device = split.to(device)
    return split if all(getattr(on_device, part) is getattr(split, part) for part in _PARTS) else on_device


def _stack_values(values: Sequence[Any], what: str, name: str) -> Tensor:
    try:
        return torch.stack([torch.as_tensor(value) for value in values])
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"The {what} of `{name}` cannot be stacked into one tensor ({error}); "
            "let the dataset give tensors or numbers of one shape."
        ) from error


def _is_example(item: Any) -> bool:
    return isinstance(item, tuple) and 2 <= len(item) <= 4


def expand_to_positions(value: Tensor, shape: torch.Size) -> Tensor:
    """Repeat one value an example over its positions.

    Args:
        value: One value for each index of the first axes of ``shape``, (B,) for (B, T) say.
        shape: Shape of the positions, (...).

    Returns:
        A view of ``value``, (...).
    """
    return value.reshape(value.shape + (1,) * (len(shape) - value.ndim)).expand(shape)
