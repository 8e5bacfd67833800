"""What the rounds of a search came to: in training, and on data that the student did not see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .._fit_result import FitResult


@dataclass(frozen=True)
class HeldOutReading:
    """What new data said of one constraint in one round.

    Attributes:
        average: Average safety on them.
        cases: Examples in the average.
        bound: Lower bound on its expectation; no number where nothing is bounded.
        confidence: Of the bound, in (0, 1); no number where nothing is bounded.
    """

    average: float
    cases: int
    bound: float = math.nan
    confidence: float = math.nan


@dataclass(frozen=True)
class TrainedRound:
    """What one round's training came to; over several students where it trains several.

    Attributes:
        status: Of the verdict.
        loss: Distillation loss on the training data.
        steps: Optimizer steps.
        measured: Average safety where each constraint is posed, by its number.
    """

    status: str
    loss: float
    steps: int
    measured: Mapping[int, float]

    @classmethod
    def of_result(cls, result: FitResult) -> TrainedRound:
        """Return what a single student came to.

        Args:
            result: Of its training.
        """
        measured = {m: reading.measured for m, reading in enumerate(result.point.readings)}
        return cls(result.status, result.point.loss, result.point.step, measured)
