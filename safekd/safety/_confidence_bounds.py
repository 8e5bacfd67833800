"""One-sided lower confidence bounds on a mean: two that hold at every sample size, one that is approximate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import beta, t

from .._number_checks import is_number
from ..errors import InvalidInput


@dataclass(frozen=True)
class BettingSettings:
    """How the gambler of the betting bound starts and stops; ``tests/safekd/safety/test_bounds.py`` notices.

    Attributes:
        largest_bet: Share of the capital that is bet at most: below 1, so that no single value of 0 ruins the gambler.
        mean: Mean that is believed before the first value; counts as one value.
        variance: Variance that is believed before the first value, the largest that values in [0, 1] can have.
        rounding: By how much a value may lie above its size.
    """

    largest_bet: float = 0.95
    mean: float = 0.5
    variance: float = 0.25
    rounding: float = 1e-9


_BETTING = BettingSettings()


def clopper_pearson_lower_bound(successes: int, trials: int, confidence: float = 0.95) -> float:
    """Return the exact lower bound on a success rate: it exceeds the truth at most ``1 - confidence`` of the time.

    Args:
        successes: s, at least 0.
        trials: n, at least 1 and at least ``successes``.
        confidence: In (0, 1).

    Returns:
        The ``1 - confidence`` quantile of Beta(s, n - s + 1); 0 without a success.

    Raises:
        InvalidInput: The counts are no sample, or the confidence is out of range.

    Source: Clopper and Pearson 1934.

    >>> round(clopper_pearson_lower_bound(50, 50), 4)
    0.9418
    """
    confidence = require_confidence(confidence)
    if not 0 <= successes <= trials or trials < 1:
        raise InvalidInput(
            f"{successes} successes in {trials} trials is no sample; wanted 0 <= successes <= trials, trials >= 1."
        )
    if successes == 0:
        return 0.0
    return float(beta.ppf(1 - confidence, successes, trials - successes + 1))


def betting_lower_bound(values: ArrayLike, confidence: float = 0.95, sizes: ArrayLike | None = None) -> float:
    """Return a lower bound on the mean of independent values in [0, 1], whatever their distribution.

    A gambler who bets against "the mean is m" multiplies the capital by ``1 + b_i (x_i - m)``; if the mean is m the
    capital exceeds ``1 / (1 - confidence)`` with probability at most ``1 - confidence`` (Ville 1939).  The bound is the
    largest m not yet refuted.  Bets depend on earlier values only.

    With ``sizes`` c_i the bound is on the ratio of expectations, E[x] / E[c], of independent pairs (x_i, c_i): the
    gambler bets on ``x_i - m c_i``, whose expectation is 0 at m = E[x] / E[c].  So x_i is the sum of a cluster's values
    and c_i how many they are, both as shares of the most that a cluster can have.

    Args:
        values: Values in [0, 1], any shape, used in the order given: shuffle what is sorted.
        confidence: In (0, 1).
        sizes: In [0, 1] and at least the values, as many as these; None for ones.

    Returns:
        The bound, at least 0.

    Raises:
        InvalidInput: There are no values, one is outside [0, 1] or above its size, or the confidence is out of range.

    Source: Waudby-Smith and Ramdas 2024, predictable plug-in bets.
    """
    confidence = require_confidence(confidence)
    x = np.asarray(values, dtype=np.float64).ravel()
    if x.size == 0 or not np.all((x >= 0) & (x <= 1)):
        raise InvalidInput(
            (f"values between {x.min():g} and {x.max():g}" if x.size else "no values") + "; "
            "wanted at least one, all in [0, 1]."
        )
    size = np.ones_like(x) if sizes is None else np.asarray(sizes, dtype=np.float64).ravel()
    if size.shape != x.shape or not np.all((size <= 1) & (x <= size + _BETTING.rounding)):
        raise InvalidInput(f"{size.size} sizes for {x.size} values; wanted one each, at least the value and at most 1.")
    alpha, n = 1 - confidence, x.size
    seen = np.arange(1, n + 1)
    mean = (_BETTING.mean + np.cumsum(x)) / (1 + np.cumsum(size))
    variance = (_BETTING.variance + np.cumsum((x - mean * size) ** 2)) / (1 + seen)
    variance_before = np.concatenate([[_BETTING.variance], variance[:-1]])
    bet = np.minimum(np.sqrt(2 * np.log(1 / alpha) / (n * variance_before)), _BETTING.largest_bet)

    def log_capital(m: float) -> float:  # falls in m, since every bet is fixed before m is chosen
        return float(np.log1p(bet * (x - m * size)).sum() - np.log(1 / alpha))

    if log_capital(0.0) <= 0:
        return 0.0
    return float(brentq(log_capital, 0.0, 1.0, xtol=1e-12))


def skew_adjusted_t_lower_bound(values: ArrayLike, confidence: float = 0.95) -> float:
    """Return the t bound on the mean of independent values, with Johnson's correction for a tail to the left.

        mean - t s / sqrt(n) + min(skewness, 0) (1 + 2 t^2) s / (6 n),   t: quantile of Student's t, n - 1 degrees

    Approximate: its coverage tends to ``confidence`` as n grows.  Probabilities of the truth pile up near 1 with a tail
    to the left, where the plain t bound is too high.  Source: Johnson 1978; Hall 1992.

    Args:
        values: Real numbers, any shape, at least two.
        confidence: In (0, 1); at 0.5 the bound is the mean, but for the correction.

    Returns:
        The bound, which may lie below every value.

    Raises:
        InvalidInput: Fewer than two values, one that is not finite, or a confidence out of range.

    >>> round(skew_adjusted_t_lower_bound([0.7, 0.8, 0.9, 0.8]), 4)
    0.7039
    """
    confidence = require_confidence(confidence)
    x = np.asarray(values, dtype=np.float64).ravel()
    if x.size < 2 or not np.all(np.isfinite(x)):
        raise InvalidInput(f"{x.size} values cannot show their spread; wanted at least two, all finite.")
    mean, spread, quantile = float(x.mean()), float(x.std(ddof=1)), float(t.ppf(confidence, x.size - 1))
    third = float(((x - mean) ** 3).mean())
    skew = third / float(x.std()) ** 3 if spread > 1e-12 else 0.0
    correction = min(skew, 0.0) * (1 + 2 * quantile**2) * spread / (6 * x.size)
    return float(mean - quantile * spread / x.size**0.5 + correction)


def require_confidence(confidence: float) -> float:
    """Return a confidence as a float; refuse what is none."""
    if not is_number(confidence) or not 0 < confidence < 1:
        raise InvalidInput(f"`confidence` is {confidence!r}; wanted a number between 0 and 1, for example 0.95.")
    return float(confidence)
