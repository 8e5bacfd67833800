"""What a teacher is.  Axes: B batch, ... positions, V classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..data import Batch
from ..errors import InvalidInput, NotFinite


@runtime_checkable
class Teacher(Protocol):
    """A named source of distributions over classes.

    Attributes:
        name: What tables and messages call it.
    """

    @property
    def name(self) -> str:
        """How tables and messages call it."""
        ...

    def log_probabilities(self, batch: Batch, split: str) -> Tensor:
        """Return log-probabilities, without gradients.

        Args:
            batch: Examples.
            split: Name of the split that the batch is from.

        Returns:
            (B, ..., V), on the batch's device.
        """
        ...


@dataclass(frozen=True)
class DistributionSettings:
    """What still counts as a distribution; ``tests/safekd/teachers/test_teachers.py`` notices.

    Attributes:
        sum_error: How far a teacher's probabilities may sum beside 1, as those of tables with two digits do.
        log_sum_error: The same for log-probabilities, which half types round twice as coarsely.
        floor: Smallest probability where none is asked for: a mistake of a hard classifier costs at most 14 nats.
        floor_mass: Share of the mass that all floors together may add; it lowers the floor where classes are many.
    """

    sum_error: float = 1e-2
    log_sum_error: float = 2e-2
    floor: float = 1e-6
    floor_mass: float = 1e-3


DISTRIBUTIONS = DistributionSettings()


def require_floor(floor: float | None, name: str) -> float | None:
    """Return the floor if it is None or a number that can stand under probabilities.

    Args:
        floor: None, or a number between 0 and 1.
        name: Of the teacher.

    Returns:
        The same.

    Raises:
        InvalidInput: It is neither.
    """
    if floor is not None and not 0 < floor < 1:
        raise InvalidInput(f"Teacher '{name}': floor is {floor!r}; wanted a small number above 0, such as 1e-6.")
    return floor


def take_log(p_V: Tensor, name: str, floor: float | None) -> Tensor:
    """Return log-probabilities of rows that should be distributions, with a floor under each entry.

    Hard classifiers answer exactly 0, whose logarithm would make one mistake infinitely expensive.  Half types are
    widened.

    Args:
        p_V: Probabilities, (..., V).
        name: Of the teacher.
        floor: Smallest probability; None for that of ``DistributionSettings``.

    Returns:
        Log-probabilities, (..., V).

    Raises:
        InvalidInput: A row is no distribution; the message names teacher and row.
        NotFinite: A row is not finite.
    """
    p_V = p_V.float() if p_V.dtype.itemsize < 4 else p_V
    total, classes = p_V.sum(-1), p_V.shape[-1]
    bad = ~torch.isfinite(p_V).all(-1) | (p_V < 0).any(-1) | ((total - 1).abs() > DISTRIBUTIONS.sum_error)
    if bool(bad.any()):
        row = tuple(int(i) for i in bad.nonzero()[0])
        shown = ", ".join(f"{x:.6g}" for x in p_V[row][:8].tolist()) + (", ..." if classes > 8 else "")
        what = f"Teacher '{name}' gave [{shown}] (sum {float(total[row]):.6g}) for example {row[0]}"
        wanted = "probabilities: finite, at least 0, sum 1"
        raise (InvalidInput(f"{what}; wanted {wanted}.") if bool(total[row].isfinite()) else NotFinite(what, wanted))
    least = min(DISTRIBUTIONS.floor, DISTRIBUTIONS.floor_mass / classes) if floor is None else floor
    p_V = p_V.clamp_min(least)
    return (p_V / p_V.sum(-1, keepdim=True)).log()
