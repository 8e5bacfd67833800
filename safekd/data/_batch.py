"""Some examples, as every reader receives them.  Axes: B batch, ... positions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from .._fingerprint import Fingerprint, fingerprint_tensors
from ._inputs import list_inputs, map_inputs
from ._position_mask import fill_uncounted


@dataclass(frozen=True, repr=False)
class Batch(ShortRepr):
    """Some examples of a source.

    Attributes:
        inputs: (B, ...), or a dictionary of such tensors, which a student gets as keywords.
        labels: Class numbers, (B, ...); 0 where a position does not count.
        task: Task of each example, (B,).
        context: Context of each example, (B,).
        index: Number of each example in the whole source, (B,): the rows of stored tables that belong to it.
        split_size: How many examples the split has, where ``index`` are their places in it; None where the split gives
            its examples numbers of their own.
        mask: Which positions count, bool (B, ...); None where all do.
        place: Places of the examples in a source with random access, (B,), by which answers about them are kept; None
            in a stream.
        numbered: Whether ``index`` names examples, so that rows of tables belong to it; in a stream without numbers it
            counts them as they come.
    """

    inputs: Any
    labels: Tensor
    task: Tensor
    context: Tensor
    index: Tensor
    split_size: int | None = None
    mask: Tensor | None = None
    place: Tensor | None = None
    numbered: bool = True

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    @cached_property
    def positions(self) -> int:
        """How many positions count."""
        return self.labels.numel() if self.mask is None else int(self.mask.sum())

    def sum_positions(self, value: Tensor) -> Tensor:
        """Return the sum over the positions that count; of others not even a NaN gets in.

        Args:
            value: One number a position, (B, ...).
        """
        return value.sum() if self.mask is None else torch.where(self.mask, value, 0.0).sum()

    def fill_uncounted(self, value: Tensor, filling: float) -> Tensor:
        """Return values with a number where a position does not count, so that nothing there reaches a sum or gradient.

        Args:
            value: Anything a position, (B, ..., *more).
            filling: The number.
        """
        return fill_uncounted(value, self.mask, filling)

    def average_positions(self, value: Tensor) -> Tensor:
        """Return the mean over the positions that count.

        Args:
            value: One number a position, (B, ...).
        """
        return value.mean() if self.mask is None else self.sum_positions(value) / max(self.positions, 1)

    def cut(self, rows: int) -> list[Batch]:
        """Return the batch in parts.

        Args:
            rows: Examples of a part, at most.
        """
        if len(self) <= rows:
            return [self]
        return [self.select(slice(start, start + rows)) for start in range(0, len(self), rows)]

    def every(self, step: int, start: int) -> Batch:
        """Return every so many-th example.

        Args:
            step: How many examples on the next one is.
            start: Which is the first.
        """
        return self.select(slice(start, None, step))

    def fingerprint(self) -> list[Fingerprint]:
        """Return numbers that are the same for batches of the same content, one a tensor."""
        return fingerprint_tensors([*self._tensors().values(), *list_inputs(self.inputs)])

    @property
    def bytes(self) -> int:
        """Memory that its inputs and labels take."""
        return sum(value.numel() * value.element_size() for value in (*list_inputs(self.inputs), self.labels))

    def select(self, where: slice | Tensor) -> Batch:
        """Return some of its examples.

        Args:
            where: Their places in the batch.
        """
        parts: dict[str, Any] = {name: value[where] for name, value in self._tensors().items()}
        return replace(self, **parts, inputs=map_inputs(self.inputs, lambda value: value[where]))

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on another device.

        Args:
            device: Where its tensors go.
        """
        parts: dict[str, Any] = {name: value.to(device) for name, value in self._tensors().items()}
        return replace(self, **parts, inputs=map_inputs(self.inputs, lambda value: value.to(device)))

    def _tensors(self) -> dict[str, Tensor]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "inputs"}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}
