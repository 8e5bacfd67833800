"""Means of differences on the same positions, with a standard error that respects cases.  Axes: P positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor

from ...errors import InvalidInput


@dataclass(frozen=True)
class PairedMeanSettings:
    """When a difference is one; ``tests/safekd/theory/ensembles/test_ensemble_report.py`` (copies) notices.

    Attributes:
        least: Nats or units of safety: pools that agree up to rounding differ by less, always the same way.
    """

    least: float = 1e-9


_SETTINGS = PairedMeanSettings()


@dataclass(frozen=True)
class PairedMean:
    """The mean of a difference.

    Attributes:
        mean: Over positions.
        error: Its standard error; infinite with a single case.
        cases: How many are independent of each other.
    """

    mean: float
    error: float
    cases: int

    def is_below_zero(self, level: float) -> bool:
        """Say whether the mean is below 0 beyond chance, by Student's t.

        Args:
            level: The probability of saying so where it is not.
        """
        if self.mean >= -_SETTINGS.least:
            return False
        if self.error == 0 or math.isinf(self.mean):
            return True
        if not math.isfinite(self.error):
            return False
        return bool(self.mean + float(stats.t.isf(level, self.cases - 1)) * self.error < 0)

    def is_above_zero(self, level: float) -> bool:
        """Say whether the mean is above 0 beyond chance.

        Args:
            level: As above.
        """
        return PairedMean(-self.mean, self.error, self.cases).is_below_zero(level)


def compare_means(difference_P: Tensor, case_P: Tensor) -> PairedMean:
    """Return the mean of a difference; positions of one case are not independent of each other.

    Args:
        difference_P: Differences, (P,); at least one.
        case_P: Which case each position belongs to, integers from 0, (P,).

    Raises:
        InvalidInput: Shapes differ, or there are none.
    """
    if difference_P.ndim != 1 or difference_P.shape != case_P.shape or not len(difference_P):
        raise InvalidInput(
            f"Differences have shape {tuple(difference_P.shape)}, cases {tuple(case_P.shape)}; wanted (P,) each."
        )
    difference_P = difference_P.double()
    mean = difference_P.mean()
    found, place_P = np.unique(case_P.cpu().numpy(), return_inverse=True)
    cases = len(found)
    if cases == 1:
        return PairedMean(float(mean), math.inf, 1)
    sums = np.bincount(place_P, weights=(difference_P - mean).cpu().numpy())
    error = math.sqrt(cases / (cases - 1) * float(np.square(sums).sum())) / len(difference_P)
    return PairedMean(float(mean), error, cases)
