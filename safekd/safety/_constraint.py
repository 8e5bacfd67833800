"""One safety requirement: a measure, whom it covers, how much is wanted, and on which data it is posed."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data import Batch
from ..errors import InvalidInput
from ._measures import SafetyMeasure


@dataclass(frozen=True)
class SafetyConstraint:
    """``average of measure >= at_least`` on the split named ``split``.

    name: how tables and CSV columns call it.  measure: for example ``TruthProbability(critical=[0])``.
    at_least: threshold in (0, 1].  contexts: only examples of these contexts count; None for all.
    split: the data on which it is posed, "train" by default.
    average: "critical" (default) averages over examples with a critical label, so 0.95 is read as it sounds;
    "all" is Definition VIII.3 to the letter, where every uncritical example counts as 1 and so
    ``safety_all = 1 - share_of_critical (1 - safety_critical)``.
    Raises InvalidInput for thresholds outside (0, 1] and unknown averages.
    """

    name: str
    measure: SafetyMeasure
    at_least: float
    contexts: Collection[int] | None = None
    split: str = "train"
    average: str = "critical"

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidInput("A safety constraint needs a name: tables and CSV columns are called after it.")
        number = isinstance(self.at_least, (int, float)) and math.isfinite(self.at_least)
        if not number or not 0 < self.at_least <= 1:
            raise InvalidInput(
                f"Safety constraint '{self.name}': at_least is {self.at_least!r}; safety is a number between 0 and 1, "
                "so the threshold must be above 0 and at most 1."
            )
        if not isinstance(self.measure, SafetyMeasure):
            raise InvalidInput(
                f"Safety constraint '{self.name}': measure is a {type(self.measure).__name__}; "
                "wanted a safety measure such as kd.safety.TruthProbability(critical=[0])."
            )
        if self.contexts is not None and len(tuple(self.contexts)) == 0:
            raise InvalidInput(
                f"Safety constraint '{self.name}': contexts is empty, so nobody is covered; "
                "name at least one context, or leave it out for all."
            )
        if self.average not in ("critical", "all"):
            raise InvalidInput(
                f"Safety constraint '{self.name}': average is {self.average!r}; wanted 'critical' or 'all'."
            )

    def covers(self, batch: Batch) -> Tensor:
        """Say which positions of the batch are averaged, bool, shape of the labels."""
        covered = torch.ones_like(batch.labels, dtype=torch.bool)
        if self.average == "critical":
            covered = self.measure.is_critical(batch.labels)
        if self.contexts is not None:
            inside = torch.isin(batch.context, torch.tensor(sorted(self.contexts), device=batch.context.device))
            covered = covered & inside.reshape(inside.shape + (1,) * (covered.ndim - inside.ndim))
        return covered

    def sums(self, log_p_V: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return (sum of surrogate, sum of measured, count) over the covered positions, scalars.

        Sums and counts, not means, so that batches and ranks can be added up before dividing.
        """
        covered = self.covers(batch)
        smooth = self.measure.surrogate(log_p_V, batch.labels)
        with torch.no_grad():
            exact = self.measure.measured(log_p_V, batch.labels)
        zero = torch.zeros((), dtype=smooth.dtype, device=smooth.device)
        return (
            torch.where(covered, smooth, zero).sum(),
            torch.where(covered, exact, zero).sum(),
            covered.sum(),
        )

    def at(self, threshold: float) -> SafetyConstraint:
        """Return the same constraint with another threshold."""
        return replace(self, at_least=threshold)
