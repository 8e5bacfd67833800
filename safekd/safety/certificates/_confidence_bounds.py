"""One-sided lower confidence bounds on a mean, or on a ratio of means: four that hold at every sample size, and one
that is approximate.

    clopper_pearson       how many of n independent cases of 0 and 1 succeed; exact
    hoeffding             values in [0, 1]; reads the mean alone
    empirical_bernstein   values in [0, 1]; reads mean and variance
    betting               values in [0, 1]; reads all of them, and is the tightest of the last three nearly everywhere
    skew_adjusted_t       any values; approximate: no certificate

With ``sizes`` c_i the last four are about E[x] / E[c], of independent pairs (x_i, c_i): x_i is the sum of the values of
a cluster and c_i how many they are, or x_i = w_i f_i and c_i = w_i for importance weights w, both as shares of the most
that they can be.  At m = E[x] / E[c] the expectation of ``x - m c`` is 0, and it lies in [-m, 1 - m]: what a bound says
of its mean, it says of m.  Axes: T samples, N values of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.typing import ArrayLike
from scipy.stats import beta, t
from torch import Tensor

from ..._number_checks import is_number, is_whole
from ...errors import InvalidInput

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BettingSettings:
    """How the gambler of the betting bound starts and stops; ``tests/safekd/safety/test_bounds.py`` notices.

    Attributes:
        largest_bet: Share of the capital that is bet at most: below 1, so that no single value of 0 ruins the gambler.
        mean: Mean that is believed before the first value; counts as one value.
        variance: Variance that is believed before the first value, the largest that values in [0, 1] can have.
        rounding: By how much a value may lie above its size.
        steps: Newton's steps at most, for the largest mean that is not refuted; a dozen are usual.
        exactness: A step below this ends them.
    """

    largest_bet: float = 0.95
    mean: float = 0.5
    variance: float = 0.25
    rounding: float = 1e-9
    steps: int = 200
    exactness: float = 1e-13


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
    """
    confidence = require_confidence(confidence)
    if not (is_whole(successes) and is_whole(trials) and 0 <= successes <= trials and trials >= 1):
        raise InvalidInput(
            f"{successes} successes in {trials} trials is no sample; wanted 0 <= successes <= trials, trials >= 1."
        )
    return float(bound_success_share(np.array([float(successes)]), trials, confidence)[0])


def bound_success_share(success_T: Floats, trials: float | Floats, confidence: float) -> Floats:
    """Return Clopper and Pearson's bound of counts that may be fractions, for planning; (T,).

    Args:
        success_T: Successes, (T,).
        trials: Of each.
        confidence: In (0, 1).
    """
    bound_T = beta.ppf(1 - confidence, np.maximum(success_T, 1e-300), trials - success_T + 1)
    return np.where(success_T > 0, bound_T, 0.0)


def hoeffding_lower_bound(values: ArrayLike, confidence: float = 0.95, sizes: ArrayLike | None = None) -> float:
    """Return ``mean - sqrt(log(1 / alpha) / (2 n))``, alpha = 1 - confidence, for independent values in [0, 1].

    The widest of the bounds, as it takes the variance for the largest possible; nothing but the mean is read.

    Args:
        values: Values in [0, 1], any shape.
        confidence: In (0, 1).
        sizes: In [0, 1] and at least the values, as many as these, for the ratio E[x] / E[c]; None for ones.

    Returns:
        The bound, at least 0.

    Raises:
        InvalidInput: There are no values, one is outside [0, 1] or above its size, or the confidence is out of range.

    Source: Hoeffding 1963, theorem 1.

    >>> round(hoeffding_lower_bound([1.0] * 150), 4)
    0.9001
    """
    return _bound_one(_bound_hoeffding, values, confidence, sizes)


def empirical_bernstein_lower_bound(
    values: ArrayLike, confidence: float = 0.95, sizes: ArrayLike | None = None
) -> float:
    """Return the bound that reads the sample variance V, for independent values in [0, 1].

        mean - sqrt(2 V log(2 / alpha) / n) - 7 log(2 / alpha) / (3 (n - 1)),   alpha = 1 - confidence

    Tighter than Hoeffding's where values are nearly the same and cases are many.

    Args:
        values: Values in [0, 1], any shape; one alone shows nothing.
        confidence: In (0, 1).
        sizes: In [0, 1] and at least the values, as many as these, for the ratio E[x] / E[c]; None for ones.

    Returns:
        The bound, at least 0.

    Raises:
        InvalidInput: There are no values, one is outside [0, 1] or above its size, or the confidence is out of range.

    Source: Maurer and Pontil 2009, theorem 4.

    >>> round(empirical_bernstein_lower_bound([0.9] * 150), 4)
    0.8422
    """
    return _bound_one(_bound_bernstein, values, confidence, sizes)


def betting_lower_bound(values: ArrayLike, confidence: float = 0.95, sizes: ArrayLike | None = None) -> float:
    """Return a lower bound on the mean of independent values in [0, 1], whatever their distribution.

    A gambler who bets against "the mean is m" multiplies the capital by ``1 + b_i (x_i - m)``; if the mean is m the
    capital exceeds ``1 / (1 - confidence)`` with probability at most ``1 - confidence`` (Ville 1939).  The bound is the
    largest m not yet refuted.  Bets depend on earlier values only.

    With ``sizes`` c_i the bound is on the ratio of expectations, E[x] / E[c], of independent pairs (x_i, c_i): the
    gambler bets on ``x_i - m c_i``, whose expectation is 0 at m = E[x] / E[c].

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
    return _bound_one(_bound_betting, values, confidence, sizes)


def skew_adjusted_t_lower_bound(values: ArrayLike, confidence: float = 0.95) -> float:
    """Return the t bound on the mean of independent values, with Johnson's correction for a tail to the left.

        mean - t s / sqrt(n) + min(skewness, 0) (1 + 2 t^2) s / (6 n),   t: quantile of Student's t, n - 1 degrees

    Approximate, so no certificate rests on it: its coverage tends to ``confidence`` as n grows.  Probabilities of the
    truth pile up near 1 with a tail to the left, where the plain t bound is too high.  Source: Johnson 1978; Hall 1992.

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
    x = _read_floats(values, "values").ravel()
    if x.size < 2 or not np.all(np.isfinite(x)):
        raise InvalidInput(f"{x.size} values cannot show their spread; wanted at least two, all finite.")
    return float(_bound_skew_adjusted_t(x[None], np.ones_like(x[None]), 1 - confidence)[0])


def bound_rows(method: str, value_TN: ArrayLike, confidence: float = 0.95, size_TN: ArrayLike | None = None) -> Floats:
    """Return the lower bounds of many samples at once, as simulations want them.

    Args:
        method: "clopper_pearson", "hoeffding", "empirical_bernstein", "betting" or "skew_adjusted_t".
        value_TN: T samples of N values in [0, 1], (T, N).
        confidence: In (0, 1).
        size_TN: In [0, 1] and at least the values, (T, N); None for ones.

    Returns:
        One bound a sample, (T,).

    Raises:
        InvalidInput: The method is unknown or takes no sizes, or values do not fit it.
    """
    alpha = 1 - require_confidence(confidence)
    given = None if size_TN is None else np.atleast_2d(_read_floats(size_TN, "size_TN"))
    x_TN, c_TN = _read_pairs(np.atleast_2d(_read_floats(value_TN, "value_TN")), given)
    if x_TN.ndim != 2:
        raise InvalidInput(f"`value_TN` has shape {x_TN.shape}; wanted a row of values for each sample.")
    if isinstance(method, str) and method in _ROWS:
        return _ROWS[method](x_TN, c_TN, alpha)
    if not isinstance(method, str) or method != "clopper_pearson":
        raise InvalidInput(f"`method` is {method!r}; wanted 'clopper_pearson' or one of {sorted(_ROWS)}.")
    if size_TN is not None or not np.all((x_TN == 0) | (x_TN == 1)):
        raise InvalidInput("'clopper_pearson' is for values of 0 and 1 without sizes; take 'betting' for these.")
    return bound_success_share(x_TN.sum(-1), x_TN.shape[-1], confidence)


def _bound_one(
    bound: Callable[[Floats, Floats, float], Floats], values: ArrayLike, confidence: float, sizes: ArrayLike | None
) -> float:
    alpha = 1 - require_confidence(confidence)
    flat = _read_floats(values, "values").reshape(1, -1)
    given = None if sizes is None else _read_floats(sizes, "sizes").reshape(1, -1)
    return float(bound(*_read_pairs(flat, given), alpha)[0])


def _read_floats(values: Any, name: str) -> Floats:
    try:
        plain = values.detach().to("cpu", torch.float64).to_dense() if isinstance(values, Tensor) else values
        return np.asarray(plain, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"`{name}` is a {type(values).__name__}; wanted numbers.") from error


def _read_pairs(x_TN: Floats, sizes: Floats | None) -> tuple[Floats, Floats]:
    """Return values and sizes, (T, N) each, after a look at both."""
    if x_TN.size == 0 or not np.all((x_TN >= 0) & (x_TN <= 1)):
        raise InvalidInput(
            (f"values between {x_TN.min():g} and {x_TN.max():g}" if x_TN.size else "no values") + "; "
            "wanted at least one, all in [0, 1]."
        )
    c_TN = np.ones_like(x_TN) if sizes is None else sizes
    if c_TN.shape != x_TN.shape or not np.all((c_TN <= 1) & (x_TN <= c_TN + _BETTING.rounding)):
        raise InvalidInput(
            f"{c_TN.size} sizes for {x_TN.size} values; wanted one each, at least the value and at most 1."
        )
    return x_TN, c_TN


def _bound_hoeffding(x_TN: Floats, c_TN: Floats, alpha: float) -> Floats:
    return bound_by_mean(x_TN.mean(-1), c_TN.mean(-1), x_TN.shape[-1], alpha)


def bound_by_mean(mean_T: Floats, size_T: Floats, cases: float, alpha: float) -> Floats:
    """Return Hoeffding's bound, (T,).

    Args:
        mean_T: Mean values, (T,).
        size_T: Mean sizes, (T,).
        cases: n.
        alpha: 1 - confidence.
    """
    over_T = mean_T - np.sqrt(np.log(1 / alpha) / (2 * cases))
    return np.where(over_T > 0, over_T / np.where(size_T > 0, size_T, 1.0), 0.0)


def _bound_bernstein(x_TN: Floats, c_TN: Floats, alpha: float) -> Floats:
    n = x_TN.shape[-1]
    if n < 2:
        return np.zeros(len(x_TN))
    dx_TN, dc_TN = x_TN - x_TN.mean(-1, keepdims=True), c_TN - c_TN.mean(-1, keepdims=True)
    spreads = [(a * b).sum(-1) / (n - 1) for a, b in ((dx_TN, dx_TN), (dx_TN, dc_TN), (dc_TN, dc_TN))]
    return bound_by_moments(x_TN.mean(-1), c_TN.mean(-1), spreads, n, alpha)


def bound_by_moments(mean_T: Floats, size_T: Floats, spreads: list[Floats], cases: float, alpha: float) -> Floats:
    """Return Maurer and Pontil's bound, (T,).

    Args:
        mean_T: Mean values, (T,).
        size_T: Mean sizes, (T,).
        spreads: Sample variance of values, covariance of values and sizes, variance of sizes, (T,) each.
        cases: n, above 1.
        alpha: 1 - confidence.
    """
    term, (xx_T, xc_T, cc_T) = np.log(2 / alpha), spreads

    def gain(m_T: Floats) -> tuple[Floats, Floats]:  # concave in m: a root of a variance that is a square in m
        root_T = np.sqrt(np.maximum(xx_T - 2 * m_T * xc_T + m_T**2 * cc_T, 0))
        bend_T = np.where(root_T > 0, (m_T * cc_T - xc_T) / np.where(root_T > 0, root_T, 1.0), 0.0)
        width = np.sqrt(2 * term / cases)
        return mean_T - m_T * size_T - width * root_T - 7 * term / (3 * (cases - 1)), -size_T - width * bend_T

    return _find_last_kept(gain, len(mean_T))


def _bound_betting(x_TN: Floats, c_TN: Floats, alpha: float) -> Floats:
    n = x_TN.shape[-1]
    seen = np.arange(1, n + 1)
    mean_TN = (_BETTING.mean + np.cumsum(x_TN, -1)) / (1 + np.cumsum(c_TN, -1))
    variance_TN = (_BETTING.variance + np.cumsum((x_TN - mean_TN * c_TN) ** 2, -1)) / (1 + seen)
    before_TN = np.concatenate([np.full((len(x_TN), 1), _BETTING.variance), variance_TN[:, :-1]], -1)
    return bound_by_bets(x_TN, c_TN, choose_bets(before_TN, n, alpha), alpha)


def choose_bets(variance: Floats, cases: float, alpha: float) -> Floats:
    """Return the share of the capital that is bet where the variance is believed to be so large.

    Args:
        variance: Any shape.
        cases: n.
        alpha: 1 - confidence.
    """
    best = np.sqrt(2 * np.log(1 / alpha) / (cases * variance))
    return np.asarray(np.minimum(best, _BETTING.largest_bet), dtype=np.float64)


def bound_by_bets(x_TN: Floats, c_TN: Floats, bet_TN: Floats, alpha: float, times: float = 1.0) -> Floats:
    """Return the largest mean that some bets do not refute, (T,).

    Args:
        x_TN: Values, (T, N).
        c_TN: Sizes, (T, N).
        bet_TN: Shares of the capital, (T, N).
        alpha: 1 - confidence.
        times: How often the sample is played.
    """

    def gain(m_T: Floats) -> tuple[Floats, Floats]:  # log capital: falls in m, since no bet depends on m; concave
        growth_TN = bet_TN * (x_TN - m_T[:, None] * c_TN)
        slope_T = -(bet_TN * c_TN / (1 + growth_TN)).sum(-1)
        return times * np.log1p(growth_TN).sum(-1) - np.log(1 / alpha), times * slope_T

    return _find_last_kept(gain, len(x_TN))


def _find_last_kept(gain: Callable[[Floats], tuple[Floats, Floats]], samples: int) -> Floats:
    """Return the m in [0, 1] up to which a concave gain is above 0, 0 where it never is; (T,).

    At m = 1 no gain is above 0, and from there Newton's steps along a concave function never pass the root.
    """
    refuted_T = gain(np.zeros(samples))[0] > 0
    m_T = np.ones(samples)
    for _ in range(_BETTING.steps):
        value_T, slope_T = gain(m_T)
        next_T = np.where(refuted_T & (slope_T < 0), m_T - value_T / np.where(slope_T < 0, slope_T, -1.0), 0.0)
        next_T = np.clip(next_T, 0.0, 1.0)
        done = bool(np.all(np.abs(next_T - m_T) <= _BETTING.exactness))
        m_T = next_T
        if done:
            break
    return m_T


def _bound_skew_adjusted_t(x_TN: Floats, c_TN: Floats, alpha: float) -> Floats:
    """With sizes, of the linearized ratio ``r + (x - r c) / mean c``, r = mean x / mean c."""
    n, mean_size = x_TN.shape[-1], c_TN.mean(-1, keepdims=True)
    ratio = x_TN.mean(-1, keepdims=True) / mean_size
    off_TN = (x_TN - ratio * c_TN) / mean_size
    spread_T, quantile = off_TN.std(-1, ddof=1), float(t.ppf(1 - alpha, n - 1))
    wide_T = spread_T > 1e-12
    cube_T = np.where(wide_T, (off_TN**2).mean(-1), 1.0) ** 1.5
    skew_T = np.where(wide_T, (off_TN**3).mean(-1) / cube_T, 0.0)
    correction_T = np.minimum(skew_T, 0.0) * (1 + 2 * quantile**2) * spread_T / (6 * n)
    return np.asarray(ratio[:, 0] - quantile * spread_T / n**0.5 + correction_T, dtype=np.float64)


_ROWS: dict[str, Callable[[Floats, Floats, float], Floats]] = {
    "hoeffding": _bound_hoeffding,
    "empirical_bernstein": _bound_bernstein,
    "betting": _bound_betting,
    "skew_adjusted_t": _bound_skew_adjusted_t,
}


def require_confidence(confidence: float) -> float:
    """Return a confidence as a float; refuse what is none."""
    if not is_number(confidence) or not 0 < confidence < 1:
        raise InvalidInput(f"`confidence` is {confidence!r}; wanted a number between 0 and 1, for example 0.95.")
    return float(confidence)
