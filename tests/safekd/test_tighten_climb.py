"""The search by itself: where it goes, what it keeps, and how often it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from safekd.safety import Recall, TruthProbability, lower_bound
from safekd.trainer._climb import Rung, between, climb, logit


class Hill:
    """Clears at or above a place, and remembers where it was asked."""

    def __init__(self, clears_from: float, reached: float = 0.0, stuck_from: float = 9.0) -> None:
        self.clears_from, self.reached, self.stuck_from, self.asked = clears_from, reached, stuck_from, []

    def __call__(self, place: float) -> Rung:
        self.asked.append(place)
        return Rung(place >= self.clears_from, max(self.reached, place), place >= self.stuck_from)


def test_up_and_one_step_back():
    hill = Hill(0.6)
    assert climb(5, 1, hill) == 4
    assert hill.asked == [0, 0.25, 0.5, 0.75, 0.625]  # the last cleared as well, and is kept


def test_the_way_back_ends_at_the_first_failure():
    hill = Hill(0.7)
    assert climb(5, 3, hill) == 3
    assert hill.asked == pytest.approx([0, 0.25, 0.5, 0.75, 0.6875])


def test_what_clears_at_once_is_kept_at_once():
    hill = Hill(0.0)
    assert climb(5, 3, hill) == 0
    assert hill.asked == [0]


def test_rungs_start_where_training_stands_by_itself():
    hill = Hill(0.9, reached=0.5)
    assert climb(5, 0, hill) == 4
    assert hill.asked == pytest.approx([0, 0.625, 0.75, 0.875, 1.0])
    near = Hill(0.55, reached=0.5)
    assert climb(5, 1, near) == 2
    assert near.asked == pytest.approx([0, 0.625, 0.5625])  # never below 0.5, which training exceeds anyway


@pytest.mark.parametrize(("hill", "asked"), [(Hill(9, stuck_from=0.5), [0, 0.25, 0.5]), (Hill(9, reached=1), [0])])
def test_it_ends_where_no_higher_threshold_can_be_trained(hill, asked):
    assert climb(5, 1, hill) is None
    assert hill.asked == asked


@given(st.floats(0, 1.2), st.integers(1, 9), st.integers(0, 4), st.floats(0, 1.2))
@settings(max_examples=200, deadline=None)
def test_what_is_kept_cleared_and_looks_are_bounded(clears_from, looks, back, reached):
    hill = Hill(clears_from, reached)
    kept = climb(looks, back, hill)
    assert len(hill.asked) <= looks + back
    assert all(0 <= place <= 1 for place in hill.asked)
    if kept is not None:
        assert hill.asked[kept] >= clears_from
        assert hill.asked[kept] == min(place for place in hill.asked if place >= clears_from)


def test_places_are_thresholds_in_even_log_odds():
    steps = [logit(between(0.9, 0.99, place)) for place in np.linspace(0, 1, 5)]
    assert np.diff(steps) == pytest.approx((logit(0.99) - logit(0.9)) / 4)
    assert between(0.9, 0.99, 0.0) == 0.9
    assert between(0.9, 0.99, 1.0) == pytest.approx(0.99, abs=1e-15)


# ---- how often a student that falls short is said to clear ----

S, LOOKS, ALPHA, CASES = 0.9, 6, 0.1, 150


def false_claims(truth, level: float, runs: int, *, one_sample: bool, back: int = 2) -> float:
    """Return how often the search keeps a student whose true safety is below S.

    truth: place -> true safety.  one_sample: each student reads the same cases, as in life; else every look draws new
    ones, where errors add up fastest.
    """
    wrong = 0
    rng = np.random.default_rng(5)
    for _ in range(runs):
        luck = rng.random(CASES)
        places: list[float] = []

        def attempt(place: float, luck=luck, places=places) -> Rung:
            places.append(place)
            drawn = luck if one_sample else rng.random(CASES)
            return Rung(bound(int((drawn < truth(place)).sum()), level) >= S)

        kept = climb(LOOKS, back, attempt)
        wrong += kept is not None and truth(places[kept]) < S
    return wrong / runs


def bound(right: int, level: float) -> float:
    key = (right, level)
    if key not in _KNOWN:
        values = (torch.arange(CASES) < right).double()
        _KNOWN[key] = lower_bound(values, Recall([0]), level)[1]
    return _KNOWN[key]


_KNOWN: dict[tuple[int, float], float] = {}
HARD = {
    "always a hair short": lambda place: S - 1e-9,
    "short until the last": lambda place: S - 1e-9 if place < 1 else 0.999,
    "the way back is short": lambda place: S + 0.06 if place >= 0.4 else S - 1e-9,
    "rising": lambda place: S - 0.02 + 0.06 * place,
}


@pytest.mark.parametrize("one_sample", [True, False], ids=["one sample", "new samples"])
@pytest.mark.parametrize("case", HARD)
def test_false_claims_stay_below_one_minus_confidence(case, one_sample):
    runs = 3000
    rate = false_claims(HARD[case], 1 - ALPHA / LOOKS, runs, one_sample=one_sample)
    assert rate <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / runs) ** 0.5


def test_looks_that_are_not_counted_would_break_the_promise():
    rate = false_claims(HARD["always a hair short"], 1 - ALPHA, 1000, one_sample=False)
    assert rate > 2 * ALPHA


def test_the_promise_holds_for_values_between_zero_and_one():
    """Beta values with mean 0.9, a hair short; the betting bound."""
    rng, runs, wrong = np.random.default_rng(3), 300, 0
    for _ in range(runs):
        attempt = lambda place: Rung(  # noqa: E731
            lower_bound(
                torch.from_numpy(beta.rvs(9, 1, size=CASES, random_state=rng)), TruthProbability([0]), 1 - ALPHA / LOOKS
            )[1]
            >= S
        )
        wrong += climb(LOOKS, 1, attempt) is not None
    assert wrong / runs <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / runs) ** 0.5
