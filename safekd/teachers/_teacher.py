"""What a teacher is.  Axes: B batch, ... positions, V classes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..data import Batch
from ..errors import InvalidInput, NotFinite


@runtime_checkable
class Teacher(Protocol):
    """A named source of distributions; ``log_probabilities(batch, split)`` returns (B, ..., V) without gradients."""

    @property
    def name(self) -> str:
        """How tables and messages call it."""
        ...

    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return log-probabilities, (B, ..., V), on the batch's device.  ``split`` names where the batch is from."""
        ...


def require_floor(floor: float | None, name: str) -> float | None:
    """Return the floor if it is None or a number that can stand under probabilities."""
    if floor is not None and not 0 < floor < 1:
        raise InvalidInput(f"Teacher '{name}': floor is {floor!r}; wanted a small number above 0, such as 1e-6.")
    return floor


def take_log(p_V: Tensor, name: str, floor: float | None) -> Tensor:
    """Return log-probabilities of rows that should be distributions, (..., V), with ``floor`` under each entry.

    floor: None for 1e-6, or less where that many classes would add more than a thousandth of the mass.  Hard
    classifiers answer exactly 0, whose logarithm would make one mistake infinitely expensive.  Half types are widened.
    Raises InvalidInput naming the teacher and the row when a row is no distribution.
    """
    p_V = p_V.float() if p_V.dtype.itemsize < 4 else p_V
    total, classes = p_V.sum(-1), p_V.shape[-1]
    bad = ~torch.isfinite(p_V).all(-1) | (p_V < 0).any(-1) | ((total - 1).abs() > 1e-2)
    if bool(bad.any()):
        row = tuple(int(i) for i in bad.nonzero()[0])
        shown = ", ".join(f"{x:.6g}" for x in p_V[row][:8].tolist()) + (", ..." if classes > 8 else "")
        found = f"Teacher '{name}' gave [{shown}] (sum {float(total[row]):.6g}) for example {row[0]}"
        wanted = "probabilities: finite, at least 0, sum 1"
        raise InvalidInput(f"{found}; wanted {wanted}.") if bool(total[row].isfinite()) else NotFinite(found, wanted)
    p_V = p_V.clamp_min(min(1e-6, 1e-3 / classes) if floor is None else floor)
    return (p_V / p_V.sum(-1, keepdim=True)).log()
