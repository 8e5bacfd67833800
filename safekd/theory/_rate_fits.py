"""Rates and factors fitted to measured sequences, with confidence bands.  Axes: G independent groups, N points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from solvers.short_repr import ShortRepr

from .._number_checks import is_number
from ..errors import InvalidInput


@dataclass(frozen=True, repr=False)
class RateFit(ShortRepr):
    """A straight line through logarithms, with the confidence band of its slope.

    Attributes:
        slope: Of log y against log x (a rate: -1 is O(1/x)), or against n (a factor's logarithm).
        low: Lower end of the band.
        high: Upper end.
        intercept: Of the line, a natural logarithm.
        level: Confidence of the band.
        points: How many points, or slopes of groups, it rests on.
    """

    slope: float
    low: float
    high: float
    intercept: float
    level: float
    points: int

    @property
    def factor(self) -> float:
        """What the values are multiplied by a step, where the line is against step numbers."""
        return math.exp(self.slope)

    @property
    def factor_band(self) -> tuple[float, float]:
        """The band of ``factor``."""
        return math.exp(self.low), math.exp(self.high)

    def excludes(self, slope: float) -> bool:
        """Say whether the band leaves out a slope.

        Args:
            slope: Any number.
        """
        return not self.low <= slope <= self.high


def fit_power(x: Any, y: Any, level: float = 0.95) -> RateFit:
    """Fit ``y = c x^slope``, a line through logarithms.

    Args:
        x: Positive numbers, (N,), N >= 3 different ones.
        y: Positive numbers, (N,); or (G, N), one row an independent group: the band is then Student's t between the
            slopes of the groups, and does not ask points of one group to be independent.
        level: Confidence of the band, between 0 and 1.

    Returns:
        The fit.

    Raises:
        InvalidInput: A number is not positive, or there are too few.

    >>> round(fit_power([1, 2, 4, 8], [3, 1.5, 0.75, 0.375]).slope, 6)
    -1.0
    """
    x_N = np.asarray(x, dtype=float)
    if not bool((x_N > 0).all()):
        raise InvalidInput("`x` holds numbers that are not positive, of which there is no logarithm.")
    return _fit_line(np.log(x_N), y, level)


def fit_factor(y: Any, level: float = 0.95) -> RateFit:
    """Fit ``y_n = c factor^n``, a line through logarithms against the number of the step.

    Args:
        y: Positive numbers in order, (N,), N >= 3; or (G, N), one row an independent group.
        level: Confidence of the band, between 0 and 1.

    Returns:
        The fit; its ``factor`` and ``factor_band`` are those of a step.

    Raises:
        InvalidInput: A number is not positive, or there are too few.

    >>> round(fit_factor([8.0, 4.0, 2.0, 1.0]).factor, 6)
    0.5
    """
    return _fit_line(np.arange(np.asarray(y).shape[-1], dtype=float), y, level)


def _fit_line(x_N: np.ndarray, y: Any, level: float) -> RateFit:
    y_GN = np.atleast_2d(np.asarray(y, dtype=float))
    if not is_number(level) or not 0 < level < 1:
        raise InvalidInput(f"`level` is {level!r}; wanted a confidence between 0 and 1, such as 0.95.")
    if x_N.shape != y_GN.shape[1:] or len(np.unique(x_N)) < 3:
        raise InvalidInput(f"{len(x_N)} points for {y_GN.shape[-1]} values; a line with a band needs at least 3.")
    if not bool((y_GN > 0).all()) or not bool(np.isfinite(y_GN).all()):
        raise InvalidInput("Values to fit a rate to must be positive and finite; leave out those at rounding error.")
    log_GN = np.log(y_GN)
    away_N = x_N - x_N.mean()
    slope_G = log_GN @ away_N / (away_N @ away_N)
    slope, intercept = float(slope_G.mean()), float((log_GN.mean(1) - slope_G * x_N.mean()).mean())
    if len(slope_G) > 1:
        error, freedom = float(slope_G.std(ddof=1)) / math.sqrt(len(slope_G)), len(slope_G) - 1
    else:
        left_N = log_GN[0] - intercept - slope * x_N
        freedom = len(x_N) - 2
        error = math.sqrt(float(left_N @ left_N) / freedom / float(away_N @ away_N))
    half = float(student_t.ppf((1 + level) / 2, freedom)) * error
    return RateFit(
        slope, slope - half, slope + half, intercept, float(level), y_GN.size if len(slope_G) == 1 else len(slope_G)
    )
