"""Lower confidence bounds: exact against scipy, and coverage by simulation for the betting bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from safekd.errors import InvalidInput
from safekd.safety import betting_lower_bound, clopper_pearson_lower_bound

BOUNDS = {
    "betting": betting_lower_bound,
    "Clopper-Pearson": lambda x, confidence=0.95: clopper_pearson_lower_bound(int(np.sum(x)), len(x), confidence),
}


@given(trials=st.integers(1, 500), share=st.floats(0, 1), confidence=st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_clopper_pearson_is_scipys_exact_interval(trials, share, confidence):
    successes = round(share * trials)
    exact = binomtest(successes, trials, alternative="greater").proportion_ci(confidence, method="exact")
    assert clopper_pearson_lower_bound(successes, trials, confidence) == pytest.approx(exact.low, abs=1e-12)


def test_clopper_pearson_by_hand():
    """All of n succeed: p^n = alpha, so p = alpha^(1/n).  None succeed: nothing is shown."""
    assert clopper_pearson_lower_bound(50, 50) == pytest.approx(0.05 ** (1 / 50))
    assert clopper_pearson_lower_bound(1, 1) == pytest.approx(0.05)
    assert clopper_pearson_lower_bound(0, 50) == 0


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("trials", [1, 7, 40])
def test_clopper_pearson_is_never_wrong_too_often(trials, confidence):
    """No simulation: the chance of a bound above the truth, summed over all outcomes, at every truth on a grid."""
    bound_S = np.array([clopper_pearson_lower_bound(s, trials, confidence) for s in range(trials + 1)])
    for truth in np.linspace(0.01, 0.99, 99):
        wrong = binom.pmf(np.arange(trials + 1), trials, truth)[bound_S > truth].sum()
        assert wrong <= 1 - confidence + 1e-12


DISTRIBUTIONS = {
    "fair coin": (lambda rng, n: rng.binomial(1, 0.5, n).astype(float), 0.5),
    "rare failure": (lambda rng, n: rng.binomial(1, 0.98, n).astype(float), 0.98),
    "rare success": (lambda rng, n: rng.binomial(1, 0.02, n).astype(float), 0.02),
    "beta(2, 5)": (lambda rng, n: rng.beta(2, 5, n), 2 / 7),
    "beta(20, 1)": (lambda rng, n: rng.beta(20, 1, n), 20 / 21),
    "two humps": (lambda rng, n: rng.beta(0.1, 0.1, n), 0.5),
    "constant": (lambda rng, n: np.full(n, 0.7), 0.7),
}


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_the_betting_bound_is_wrong_no_more_often_than_stated(kind, confidence):
    draw, truth = DISTRIBUTIONS[kind]
    rng, runs = np.random.default_rng(0), 400
    wrong = sum(betting_lower_bound(draw(rng, int(rng.integers(2, 120))), confidence) > truth for _ in range(runs))
    alpha = 1 - confidence
    assert wrong / runs <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)


def test_the_simulation_can_say_no():
    """The plain mean, taken for a bound, is wrong about half of the time and would be found out."""
    rng = np.random.default_rng(0)
    wrong = np.mean([rng.beta(2, 5, 60).mean() > 2 / 7 for _ in range(400)])
    assert wrong > 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def betting_by_hand(values, confidence):
    """Play the game value by value, as the paper tells it: a bet is placed before its value is seen."""
    n, limit = len(values), np.log(1 / (1 - confidence))
    bets, past, gaps = [], [], []
    for x in values:
        variance = (0.25 + sum(gaps)) / (len(past) + 1)
        bets.append(min(np.sqrt(2 * limit / (n * variance)), 0.95))
        past.append(x)
        gaps.append((x - (0.5 + sum(past)) / (len(past) + 1)) ** 2)

    def refuted(m):
        return sum(np.log1p(bet * (x - m)) for bet, x in zip(bets, values, strict=True)) > limit

    low, high = 0.0, 1.0
    for _ in range(50):
        low, high = ((low + high) / 2, high) if refuted((low + high) / 2) else (low, (low + high) / 2)
    return low


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=40), confidence=st.sampled_from([0.5, 0.95]))
def test_the_betting_bound_is_the_game_played_by_hand(values, confidence):
    assert betting_lower_bound(values, confidence) == pytest.approx(betting_by_hand(values, confidence), abs=1e-9)


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_the_betting_bound_is_not_idle(kind):
    """With 3000 values it comes within 0.05 of the truth, from below."""
    draw, truth = DISTRIBUTIONS[kind]
    bound = betting_lower_bound(draw(np.random.default_rng(1), 3000))
    assert truth - 0.05 < bound < truth + 0.01


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_betting_bound_keeps_to_what_was_seen(values, confidence):
    bound = betting_lower_bound(values, confidence)
    assert 0 <= bound <= max(values) + 1e-9
    assert betting_lower_bound(values, 0.999) <= bound + 1e-9


def test_the_betting_bound_never_passes_the_mean_of_a_shuffled_sample_by_much():
    rng = np.random.default_rng(2)
    for _ in range(100):
        x = rng.beta(3, 2, 80)
        assert betting_lower_bound(x) < x.mean()


@given(seed=st.integers(0, 10**6), gain=st.floats(0, 1))
def test_better_constants_give_better_bounds(seed, gain):
    """On a constant sample the bound grows with the constant."""
    low = np.random.default_rng(seed).random()
    high = low + gain * (1 - low)
    assert betting_lower_bound(np.full(30, low)) <= betting_lower_bound(np.full(30, high)) + 1e-9


@pytest.mark.parametrize("kind", BOUNDS)
def test_more_evidence_of_one_kind_proves_more(kind):
    bound = [BOUNDS[kind](np.ones(n)) for n in (1, 10, 100, 1000)]
    assert bound == sorted(bound)
    assert 0.99 < bound[-1] < 1


@pytest.mark.parametrize("kind", BOUNDS)
def test_nothing_but_zeros_proves_nothing(kind):
    assert BOUNDS[kind](np.zeros(100)) == 0


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, -0.1, float("nan")])
@pytest.mark.parametrize("kind", BOUNDS)
def test_a_confidence_that_is_none(kind, confidence):
    with pytest.raises(InvalidInput, match=r"`confidence` is .*; wanted a number between 0 and 1"):
        BOUNDS[kind](np.ones(5), confidence=confidence)


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2), (0, 0), (1, -1)])
def test_counts_that_are_none(successes, trials):
    with pytest.raises(InvalidInput, match=f"{successes} successes in {trials} trials is no sample"):
        clopper_pearson_lower_bound(successes, trials)


VALUES = {
    "above": ([0.5, 1.5], r"values between 0.5 and 1.5; wanted at least one, all in \[0, 1\]"),
    "below": ([-0.1, 0.2], "values between -0.1 and 0.2"),
    "nan": ([0.5, float("nan")], "values between nan and nan"),
    "none": ([], "no values; wanted at least one"),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_that_are_refused(case):
    values, message = VALUES[case]
    with pytest.raises(InvalidInput, match=message):
        betting_lower_bound(values)
