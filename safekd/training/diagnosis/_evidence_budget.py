"""What looking for evidence may cost, and what is too dear: a probe that would cost more is not begun, or is stopped.

The student is trained by then, so nothing that a probe needs may lose it: see ``RunProbes``.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..._number_checks import is_number, is_whole
from ..._torch_state import evaluation_mode
from ...data import Batch, ExampleSource
from ...errors import InvalidInput, SafekdError

_BYTES = 8  # of a number, float64
_LOGIT_COPIES = 10  # of what a chunk's logits need: logits, log-probabilities, targets, losses, and gradients of each


@dataclass(frozen=True)
class EvidenceBudget:
    """Memory and time that a probe may take once a run has ended; what it would pass is named in the verdict.

    Evaluations on the way hold the gradient of each constraint where all of them fit, and else two vectors, from which
    stationarity follows, but no constraint's own gradient norm.

    The defaults hold the vectors of a student of some ten million parameters in every probe, of some fifty million in
    the second-order check, and a bound over a hundred million gains of classes;
    ``tests/safekd/training/diagnosis/test_evidence_budget.py`` notices both.

    Attributes:
        memory_bytes: What one probe may hold beside student, data and activations, at least 1.
        seconds: What one probe may last, above 0; it is looked at between passes, which are not cut short.

    Raises:
        InvalidInput: A number is out of range.
    """

    memory_bytes: int = 4 * 2**30
    seconds: float = 600.0

    def __post_init__(self) -> None:
        if not is_whole(self.memory_bytes) or self.memory_bytes < 1:
            raise InvalidInput(f"`memory_bytes` is {self.memory_bytes!r}; wanted a whole number of at least 1.")
        if not is_number(self.seconds) or not 0 < self.seconds <= math.inf:
            raise InvalidInput(f"`seconds` is {self.seconds!r}; wanted a number above 0.")

    def holds(self, numbers: int) -> bool:
        """Say whether float64 numbers fit.

        Args:
            numbers: How many are to be held at once.
        """
        return _BYTES * numbers <= self.memory_bytes


class LogitSource(Protocol):
    """Whoever has a student and its logits; an ``Objective`` is one."""

    @property
    def student(self) -> nn.Module:
        """The student."""
        ...

    @property
    def rows(self) -> int:
        """How many examples go through it at once."""
        ...

    def logits(self, batch: Batch) -> Tensor:
        """Return its logits, (B, ..., V).

        Args:
            batch: Examples.
        """
        ...


class BeyondBudget(SafekdError):
    """A probe would take more than its budget; the message says how much of what."""


class EvidenceMeter:
    """Holds one probe to its budget.

    Args:
        budget: Of every probe.
    """

    def __init__(self, budget: EvidenceBudget) -> None:
        self.budget = budget
        self.restart()

    def restart(self) -> None:
        """Begin another probe."""
        self._started = time.monotonic()

    def require_memory(self, numbers: int) -> None:
        """Raise BeyondBudget where float64 numbers do not fit.

        Args:
            numbers: How many a probe is about to hold.
        """
        if not self.budget.holds(numbers):
            raise BeyondBudget(
                f"it needs {_format_bytes(_BYTES * numbers)} of memory, and "
                f"{_format_bytes(self.budget.memory_bytes)} are allowed"
            )

    def require_time(self) -> None:
        """Raise BeyondBudget where the time of this probe is over."""
        if time.monotonic() - self._started > self.budget.seconds:
            raise BeyondBudget(f"its {self.budget.seconds:g} seconds were over before it ended")

    def most_vectors(self, n: int) -> int:
        """Return how many vectors fit.

        Args:
            n: Numbers in each.
        """
        return self.budget.memory_bytes // (_BYTES * max(n, 1))

    def most_rows(self, objective: LogitSource, split: ExampleSource) -> int:
        """Return how many examples of a split may be in the student at once.

        Args:
            objective: Gives the student's logits.
            split: Of the examples.
        """
        with evaluation_mode(objective.student), torch.no_grad():
            logits_V = objective.logits(next(iter(split.batches(1))))
        return max(1, min(objective.rows, self.most_vectors(_LOGIT_COPIES * logits_V.numel())))


def _format_bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB" if count < 1000 else f"{count:,.0f} GB"
