"""How many cases would show what these do not: the method's own bound, at the same mean and spread, on more cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..._number_checks import is_finite
from ...errors import InvalidInput
from ._clustered_values import ClusterSample
from ._confidence_bounds import (
    Floats,
    bound_by_bets,
    bound_by_mean,
    bound_by_moments,
    bound_rows,
    bound_success_share,
    choose_bets,
    require_confidence,
)


@dataclass(frozen=True)
class CaseCountSettings:
    """How far cases are counted; ``tests/safekd/safety/test_cases_needed.py`` notices.

    Attributes:
        most: Cases above which the answer is that it is too many.
        replayed: Cases up to which the bets of a longer sample are played one by one; beyond, as of its variance.
        chunk: Counts of cases that are tried at once.
    """

    most: int = 10**9
    replayed: int = 2**12
    chunk: int = 4096


SETTINGS = CaseCountSettings()


class GroupSample(NamedTuple):
    """What was seen of one group, for the bound on more of the same.

    Attributes:
        method: Which bound.
        sample: What it read.
    """

    method: str
    sample: ClusterSample


def cases_needed(
    threshold: float, expected: float, confidence: float = 0.95, binary: bool = True, *, spread: float | None = None
) -> int:
    """Return how many independent cases it takes to show a threshold, before there are any data.

    Args:
        threshold: What is to be shown, in (0, 1).
        expected: The average that the student is believed to have, above ``threshold``, at most 1.
        confidence: In (0, 1).
        binary: Whether values are 0 and 1: the answer is then the least n at which ``floor(expected n)`` successes show
            ``threshold`` by Clopper and Pearson's bound.  Else it is about the betting bound, and approximate.
        spread: Standard deviation of values that are not binary; None for the largest that they can have.

    Returns:
        How many cases.

    Raises:
        InvalidInput: A number is out of range, nothing above ``threshold`` is expected, or it takes too many.

    >>> cases_needed(0.95, 1.0), cases_needed(0.95, 0.97), cases_needed(0.9, 0.95, binary=False, spread=0.1)
    (59, 361, 73)
    """
    confidence = require_confidence(confidence)
    for name, value in (("threshold", threshold), ("expected", expected)):
        if not is_finite(value) or not 0 < value <= 1:
            raise InvalidInput(f"`{name}` is {value!r}; wanted a number above 0 and at most 1.")
    if not isinstance(binary, bool):
        raise InvalidInput(f"`binary` is {binary!r}; wanted True for values of 0 and 1, False for others.")
    threshold, expected = float(threshold), float(expected)
    if not expected > threshold:
        raise InvalidInput(
            f"`expected` is {expected:g} and `threshold` {threshold:g}: what is not above a threshold cannot be shown "
            "to be, by however many cases. Ask for less, or make the student safer."
        )
    largest = math.sqrt(expected * (1 - expected))
    spread = largest if spread is None else spread
    if not is_finite(spread) or not 0 <= spread <= largest + 1e-12:
        raise InvalidInput(
            f"`spread` is {spread!r}; values in [0, 1] with average {expected:g} have a standard deviation from 0 to "
            f"{largest:g}."
        )
    if binary:
        found = count_cases_of_successes(threshold, expected, confidence)
    else:
        group = GroupSample("betting", _make_sample(expected, min(spread, largest)))
        found = count_cases([group], 1, lambda bounds: float(bounds[0]) >= threshold, confidence)
    if found is None:
        raise InvalidInput(
            f"From {expected:g} to {threshold:g} is so little that it takes more than {SETTINGS.most:,} cases. "
            "Ask for less."
        )
    return found


def count_cases_of_successes(threshold: float, expected: float, confidence: float) -> int | None:
    """Return the least n at which ``floor(expected n)`` successes show a threshold, None where it is too large.

    Args:
        threshold: What is to be shown.
        expected: Share of successes.
        confidence: In (0, 1).
    """

    def shows(successes_n: Floats, cases_n: Floats) -> Floats:
        return np.asarray(bound_success_share(successes_n, cases_n, confidence) >= threshold)

    start = _search_least(1, lambda n: bool(shows(np.array([expected * n]), np.array([float(n)]))[0]))
    while start is not None and start <= SETTINGS.most:  # fractions of a success are lost: it may take a few more
        cases_n = np.arange(start, start + SETTINGS.chunk, dtype=np.float64)
        shown_n = shows(np.floor(expected * cases_n + 1e-9), cases_n)
        if shown_n.any():
            return int(cases_n[int(np.argmax(shown_n))])
        start += SETTINGS.chunk
    return None


def count_cases(
    groups: Sequence[GroupSample], cases: int, shows: Callable[[Floats], bool], confidence: float
) -> int | None:
    """Return about how many cases in all would do, in the proportions of the groups; None where it is too many.

    Args:
        groups: What was seen of each, at least one case.
        cases: How many there are, with which the search begins.
        shows: Whether such bounds of the groups, (G,), are enough.
        confidence: Of each group's bound, in (0, 1).
    """
    share_G = np.array([len(group.sample.total_C) for group in groups], dtype=np.float64)
    share_G /= share_G.sum()

    def enough(total: int) -> bool:
        pairs = zip(groups, share_G, strict=True)
        return shows(np.array([project_bound(group, max(1, round(total * s)), confidence) for group, s in pairs]))

    return _search_least(max(cases, 1), enough)


def _search_least(start: int, enough: Callable[[int], bool]) -> int | None:
    """Return the n at which ``enough`` begins to hold, from ``start`` on."""
    low, high = start - 1, start
    while not enough(high):
        low, high = high, 2 * high
        if high > SETTINGS.most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def project_bound(group: GroupSample, cases: int, confidence: float) -> float:
    """Return what a bound would be on so many cases of the same mean and spread.

    Args:
        group: What was seen.
        cases: n, at least 1.
        confidence: In (0, 1).
    """
    x_C, c_C, _ = group.sample
    if group.method == "clopper_pearson":
        return float(bound_success_share(np.array([x_C.mean() * cases]), float(cases), confidence)[0])
    alpha, mean, size = 1 - confidence, x_C.mean(keepdims=True), c_C.mean(keepdims=True)
    if group.method == "hoeffding":
        return float(bound_by_mean(mean, size, cases, alpha)[0])
    if group.method == "empirical_bernstein":
        if min(cases, len(x_C)) < 2:
            return 0.0
        return float(bound_by_moments(mean, size, _read_spreads(x_C, c_C), cases, alpha)[0])
    if cases <= SETTINGS.replayed:
        played = [np.resize(part, cases)[None] for part in (x_C, c_C)]
        return float(bound_rows("betting", played[0], confidence, played[1])[0])
    variance = float(((x_C - mean / size * c_C) ** 2).mean())
    bets = np.full((1, len(x_C)), choose_bets(np.array((0.25 + cases * variance) / (1 + cases)), cases, alpha))
    return float(bound_by_bets(x_C[None], c_C[None], bets, alpha, times=cases / len(x_C))[0])


def _read_spreads(x_C: Floats, c_C: Floats) -> list[Floats]:
    (xx, xc), (_, cc) = np.cov(x_C, c_C)
    return [np.array([part]) for part in (xx, xc, cc)]


def _make_sample(mean: float, spread: float) -> ClusterSample:
    """Return values of this mean and spread, some of them 1 and the others alike, in an even order."""
    rest = spread**2 / (1 - mean) if mean < 1 else 0.0  # how far the others lie below the mean
    ones = spread**2 / (spread**2 + (1 - mean) ** 2) if spread > 0 else 0.0
    number = np.arange(SETTINGS.replayed)
    hits = np.floor((number + 1) * ones) > np.floor(number * ones)
    value = np.where(hits, 1.0, max(mean - rest, 0.0))
    return ClusterSample(value, np.ones_like(value), "")
