"""Labeled examples in memory.

Axes: N examples, B batch.  Labels may carry positions too, (N, T); task, context and cluster are one integer an
example.  Positions with label -100, or where ``mask`` is False, as padding has them, do not count: they are in no loss,
measure, count, certificate or comparison of teachers, and inputs and answers there may be anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from ..errors import InvalidInput
from ._batch import Batch
from ._bit_mixing import draw_places
from ._column_values import IGNORED, read_group_names, read_named_numbers, read_tensor
from ._example_source import ExampleSource
from ._group_names import GroupNames
from ._inputs import Inputs, map_inputs, name_inputs
from ._position_mask import clear_uncounted, fill_uncounted, read_position_mask


@dataclass(frozen=True, repr=False)
class Split(ShortRepr, ExampleSource):
    """A named set of labeled examples.

    Tensors, numpy arrays, columns of pandas and lists are taken; an array keeps its dtype, numbers in lists become
    float32 or int64.  Text as labels, context, task or cluster is numbered: by the names given, else in the order of
    the alphabet, so give ``class_names`` where a split may lack a class that another has.

    Attributes:
        name: "train", "validation", ...
        inputs: (N, ...), or a dictionary of such tensors, which a student and teachers get as keywords.
        labels: Class numbers from 0, or names, (N,) or (N, T); -100 where a position does not count.
        task: Integers from 0, or names, one an example, (N,); zeros when left out.
        context: Integers from 0, or names, one an example, (N,); zeros when left out.
        context_names: What to call the contexts.
        numbers: What batches call the examples, (N,): the rows of stored tables that belong to them; 0 to N - 1 when
            left out; a part keeps the numbers of the whole.
        class_names: What to call the classes, in the order of their numbers.
        task_names: What to call the tasks.
        cluster: Which examples belong together, such as those of one patient, integers from 0 or names, (N,); examples
            of different clusters are independent.  Every example is one of its own when left out.
        mask: Which positions count, booleans of the labels' shape, or 0 and 1; a label of -100 says no by itself.  An
            attention mask is another one, and a part of the inputs.

    Raises:
        InvalidInput: Lengths differ, labels are no whole numbers or have no name, no position counts, or inputs are not
            finite where one does.
    """

    name: str
    inputs: Inputs
    labels: Tensor
    task: Tensor | None = None
    context: Tensor | None = None
    context_names: Sequence[str] = ()
    numbers: Tensor | None = None
    class_names: Sequence[str] = ()
    task_names: Sequence[str] = ()
    cluster: Tensor | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        self._read_values()
        numbers = {what: getattr(self, what) for what in _NUMBERS}
        named = {**name_inputs(self.inputs), **numbers}
        size = int(self.labels.shape[0]) if self.labels.numel() and self.labels.ndim else 0
        if size == 0:
            raise InvalidInput(f"Split '{self.name}' has no examples; give at least one.")
        for what, value in named.items():
            if value is not None and value.shape[:1] != (size,):
                rows = len(value) if value.ndim else "no"
                raise InvalidInput(f"Split '{self.name}': {what} has {rows} rows, labels have {size}; wanted equal.")
        for what, value in numbers.items():
            if value is not None:
                self._require_whole_numbers(what, value)
        self._read_mask()
        if self.class_names and (top := int(self._counted(self.labels).max())) >= len(self.class_names):
            raise InvalidInput(
                f"Split '{self.name}': labels hold {top}, but class_names has {len(self.class_names)} names, for 0 to "
                f"{len(self.class_names) - 1}; name every class."
            )
        self._require_finite_inputs()

    def _read_values(self) -> None:
        """Put tensors where arrays, lists or names were given."""
        read: dict[str, Any] = {"inputs": _read_inputs(self.inputs, self.name)}
        for what, names in _NAMED.items():
            given = getattr(self, what)
            known = getattr(self, names) if names else ()
            if given is None and what != "labels":
                read |= {names: read_group_names(known, what, self.name)} if names else {}
                continue
            value, known = read_named_numbers(given, known, what, self.name)
            read |= {what: value} | ({names: known} if names else {})
        if self.numbers is not None:
            read["numbers"] = read_tensor(self.numbers, "numbers", self.name)
        for what, tidy in read.items():
            object.__setattr__(self, what, tidy)

    def _require_whole_numbers(self, what: str, value: Tensor) -> None:
        who = f"Split '{self.name}': {what}"
        if value.is_floating_point() or value.dtype == torch.bool:
            shapes = [tensor.shape for tensor in name_inputs(self.inputs).values()]
            if value.dtype == torch.bool and value.shape in shapes and value.ndim > 1:
                raise InvalidInput(
                    f"{who} is torch.bool of the inputs' shape {tuple(value.shape)}, as a mask is; wanted class "
                    "numbers."
                )
            raise InvalidInput(f"{who} is {value.dtype}; wanted integers from 0, e.g. .long().")
        if what != "labels" and int(value.min()) < 0:
            raise InvalidInput(f"{who} holds {int(value.min())}; wanted integers from 0.")
        if what != "labels" and value.ndim != 1:
            raise InvalidInput(
                f"{who} has shape {tuple(value.shape)}; wanted one number an example, ({len(self.labels)},). Only "
                "labels may have one a position."
            )

    def _read_mask(self) -> None:
        """Put True in the mask where a position counts by its label too, and None in its place where all do."""
        object.__setattr__(self, "mask", read_position_mask(self.mask, self.labels, self.name))
        if self.mask is not None and not bool(self.mask.any()):
            raise InvalidInput(
                f"Split '{self.name}' has no position that counts: of {self.mask.numel()} all have label {IGNORED} or "
                "are masked; give at least one that does."
            )
        if (least := int(self._counted(self.labels).min())) < 0:
            raise InvalidInput(
                f"Split '{self.name}': labels holds {least}; wanted integers from 0, or {IGNORED} where a position "
                "does not count."
            )

    def _counted(self, value: Tensor) -> Tensor:
        """Return the values at positions that count, (P, ...)."""
        return value if self.mask is None else value[self.mask]

    def _require_finite_inputs(self) -> None:
        """Refuse inputs that are not finite; those of positions that do not count become 0."""
        object.__setattr__(self, "inputs", map_inputs(self.inputs, lambda value: clear_uncounted(value, self.mask)))
        for what, value in name_inputs(self.inputs).items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                row = int((~torch.isfinite(value)).reshape(len(self), -1).any(1).nonzero()[0])
                raise InvalidInput(f"Split '{self.name}': {what} of row {row} are not finite; clean or drop that row.")

    @property
    def names(self) -> GroupNames:
        """What its classes, contexts and tasks are called."""
        return GroupNames(self.name, tuple(self.class_names), tuple(self.context_names), tuple(self.task_names))

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.labels.device

    @cached_property
    def positions(self) -> int:
        """How many positions count, over all examples."""
        return self.labels.numel() if self.mask is None else int(self.mask.sum())

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
        none, mask = torch.zeros_like(index), None if self.mask is None else self.mask[index]
        return Batch(
            map_inputs(self.inputs, lambda value: value[index]),
            fill_uncounted(self.labels[index].long(), mask, 0),
            none if self.task is None else self.task[index].long(),
            none if self.context is None else self.context[index].long(),
            index if self.numbers is None else self.numbers[index].long(),
            len(self) if self.numbers is None else None,
            mask=mask,
            place=index,
        )

    def part(self, index: Tensor) -> Split:
        """Return some examples as a split of the same name; they keep the numbers they have here.

        Args:
            index: Their places, (n,), or a mask (N,) of booleans.

        Returns:
            A split of n examples.
        """
        index = index.nonzero().squeeze(-1) if index.dtype == torch.bool else index
        numbers = torch.arange(len(self), device=self.labels.device) if self.numbers is None else self.numbers
        return replace(self._change_tensors(lambda value: value[index]), numbers=numbers[index])

    def chunks(self, size: int) -> Iterator[Tensor]:
        """Yield the places of all examples in order.

        Args:
            size: How many at a time, at most.

        Yields:
            Places, (B,).
        """
        for start in range(0, len(self), size):
            yield torch.arange(start, min(start + size, len(self)), device=self.labels.device)

    def batches(self, rows: int) -> Iterator[Batch]:
        """Yield every example once, in order.

        Args:
            rows: How many at a time, at most.

        Yields:
            Batches.
        """
        return map(self.batch, self.chunks(rows))

    def sample(self, examples: int, seed: int) -> Split:
        """Return some examples, drawn at random without replacement, in the order that they have here.

        Args:
            examples: How many; all of them where there are no more.
            seed: The only source of chance.
        """
        return self if examples >= len(self) else self.part(draw_places(len(self), examples, seed).to(self.device))

    def to(self, device: torch.device | str) -> Split:
        """Return the same split on another device.

        Args:
            device: Where its tensors go.
        """
        return self._change_tensors(lambda value: value.to(device))

    def _change_tensors(self, change: Callable[[Tensor], Tensor]) -> Split:
        named = {what: getattr(self, what) for what in (*_NUMBERS, "mask")}
        parts: dict[str, Any] = {what: change(value) for what, value in named.items() if value is not None}
        return replace(self, **parts, inputs=map_inputs(self.inputs, change))


_NUMBERS = ("labels", "task", "context", "numbers", "cluster")
_NAMED = {"labels": "class_names", "task": "task_names", "context": "context_names", "cluster": ""}


def _read_inputs(inputs: Any, name: str) -> Inputs:
    """Return inputs as tensors: one, or a dictionary of them."""
    if not isinstance(inputs, Mapping):
        return read_tensor(inputs, "inputs", name)
    if not inputs or not all(isinstance(key, str) for key in inputs):
        raise InvalidInput(
            f"Split '{name}': inputs is a dictionary with keys {list(inputs)!r}; wanted the names of at least one "
            'argument of the student, such as {"ids": ..., "attention_mask": ...}.'
        )
    return {key: read_tensor(value, f"inputs['{key}']", name) for key, value in inputs.items()}


def expand_to_positions(value: Tensor, shape: torch.Size) -> Tensor:
    """Repeat one value an example over its positions.

    Args:
        value: One value for each index of the first axes of ``shape``, (B,) for (B, T) say.
        shape: Shape of the positions, (...).

    Returns:
        A view of ``value``, (...).
    """
    return value.reshape(value.shape + (1,) * (len(shape) - value.ndim)).expand(shape)


def require_class_count(split: ExampleSource, classes: int, who: str) -> None:
    """Refuse a split whose classes have names, but not as many as somebody knows classes.

    Names that were numbered from text alone lack those of classes that the split has no example of; numbers would then
    mean other classes than elsewhere.

    Args:
        split: The data.
        classes: How many there are.
        who: Who knows that many: "the student".

    Raises:
        InvalidInput: The numbers differ.
    """
    names = split.names.classes
    if names and len(names) != classes:
        raise InvalidInput(
            f"Split '{split.name}' has names for {len(names)} classes, {', '.join(names)}, and "
            f"{who} knows {classes}; give it all of them in their order, class_names=[...]."
        )
