"""The fixed-sequence search by itself: where it goes, what it keeps, and how often it is wrong."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from safekd.safety import Recall, TruthProbability, bound_expectation
from safekd.training.generalization._fixed_sequence import descend_shares, run_fixed_sequence


def test_the_last_before_the_first_failure_is_kept():
    tried = []

    def attempt(shares) -> bool:
        tried.append(shares[0])
        return shares[0] != 0.4

    assert run_fixed_sequence([{0: 0.8}, {0: 0.6}, {0: 0.4}, {0: 0.2}], attempt) == 1
    assert tried == [0.8, 0.6, 0.4]  # what would clear after a failure is never tried


def test_nothing_is_kept_where_the_first_fails_and_the_last_where_none_does():
    assert run_fixed_sequence([{0: 1.0}, {0: 0.0}], lambda shares: False) is None
    assert run_fixed_sequence([{0: 1.0}, {0: 0.0}], lambda shares: True) == 1


def test_candidates_fall_in_proportion_to_what_each_constraint_needs():
    chosen = descend_shares({0: 0.1, 1: 0.2, 2: 0.0}, 4, start=4.0, ratio=0.5)
    assert chosen == [{0: 0.4, 1: 0.8, 2: 0.0}, {0: 0.2, 1: 0.4, 2: 0.0}, {0: 0.1, 1: 0.2, 2: 0.0}, {0: 0, 1: 0, 2: 0}]


def test_equal_neighbors_are_one():
    assert descend_shares({0: 0.0}, 12) == [{0: 0.0}]  # nothing to raise: one test of what was asked for
    assert [here[0] for here in descend_shares({0: 1.0}, 4, start=4.0, ratio=0.5)] == [1.0, 0.0]


@given(st.dictionaries(st.integers(0, 3), st.floats(0, 1), min_size=1), st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_candidates_fall_and_stay_in_range(base, attempts):
    chosen = descend_shares(base, attempts)
    assert 1 <= len(chosen) <= attempts
    for before, after in pairwise(chosen):
        assert all(0 <= after[m] <= before[m] <= 1 for m in base)
    assert attempts == 1 or not any(chosen[-1].values())


# ---- how often a student that falls short is said to clear ----

S, ALPHA, CASES = 0.9, 0.1, 150
SHARES = [here[0] for here in descend_shares({0: 0.25}, 12)]


def false_claims(truth, level: float, runs: int, *, one_sample: bool) -> float:
    """Return how often the search keeps a student whose true safety is below S.

    truth: share -> true safety.  one_sample: each student reads the same cases, as in life; else every attempt draws
    new ones.
    """
    wrong = 0
    rng = np.random.default_rng(5)
    for _ in range(runs):
        luck = rng.random(CASES)

        def attempt(shares, luck=luck) -> bool:
            drawn = luck if one_sample else rng.random(CASES)
            return bound(int((drawn < truth(shares[0])).sum()), level) >= S

        kept = run_fixed_sequence([{0: share} for share in SHARES], attempt)
        wrong += kept is not None and truth(SHARES[kept]) < S
    return wrong / runs


def bound(right: int, level: float) -> float:
    key = (right, level)
    if key not in _KNOWN:
        values = (torch.arange(CASES) < right).double()
        _KNOWN[key] = bound_expectation(values, Recall([0]), level)[1]
    return _KNOWN[key]


_KNOWN: dict[tuple[int, float], float] = {}
HARD = {
    "always a hair short": lambda share: S - 1e-9,
    "short but at the safest": lambda share: S - 1e-9 if share < 1 else 0.999,
    "short from the middle on": lambda share: 0.99 if share >= 0.4 else S - 1e-9,
    "falling": lambda share: S - 0.02 + 0.06 * share,
    "not monotone": lambda share: 0.99 if 0.2 < share < 0.5 else S - 1e-9,
}


@pytest.mark.parametrize("one_sample", [True, False], ids=["one sample", "new samples"])
@pytest.mark.parametrize("case", HARD)
def test_false_claims_stay_below_one_minus_confidence(case, one_sample):
    """At the full level each, and up to twelve of them."""
    runs = 3000
    rate = false_claims(HARD[case], 1 - ALPHA, runs, one_sample=one_sample)
    assert rate <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / runs) ** 0.5


def test_going_on_after_a_failure_would_break_the_promise():
    wrong, runs = 0, 1000
    rng = np.random.default_rng(5)
    for _ in range(runs):
        wrong += any(bound(int((rng.random(CASES) < S - 1e-9).sum()), 1 - ALPHA) >= S for _ in SHARES)
    assert wrong / runs > 2 * ALPHA


def test_it_keeps_what_is_clearly_safe():
    """Power: a student a good way above is kept nearly always, and one that is far too safe is not."""
    truth = lambda share: 0.9 + 0.09 * share  # noqa: E731
    kept = []
    rng = np.random.default_rng(1)
    for _ in range(200):
        luck = rng.random(1500)
        values = lambda shares, luck=luck: torch.from_numpy(luck < truth(shares[0])).double()  # noqa: E731
        clears = lambda shares, values=values: bound_expectation(values(shares), Recall([0]), 0.9)[1] >= S  # noqa: E731
        chosen = run_fixed_sequence([{0: share} for share in SHARES], clears)
        kept.append(None if chosen is None else SHARES[chosen])
    assert kept.count(None) == 0
    assert np.mean(kept) < 0.3


def test_the_promise_holds_for_values_between_zero_and_one():
    """Beta values with mean 0.9, a hair short; the betting bound."""
    rng, runs, wrong = np.random.default_rng(3), 300, 0
    for _ in range(runs):
        values = torch.from_numpy(beta.rvs(9, 1, size=CASES, random_state=rng))
        attempt = lambda shares, v=values: bound_expectation(v, TruthProbability([0]), 1 - ALPHA)[1] >= S  # noqa: E731
        wrong += run_fixed_sequence([{0: share} for share in SHARES], attempt) is not None
    assert wrong / runs <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / runs) ** 0.5
