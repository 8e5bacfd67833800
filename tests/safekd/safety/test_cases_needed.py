"""How many cases would be needed, before there are data and after."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import safekd as kd
from safekd.errors import InvalidInput
from safekd.safety import (
    Recall,
    SafetyConstraint,
    TruthProbability,
    betting_lower_bound,
    cases_needed,
    certify,
    clopper_pearson_lower_bound,
    empirical_bernstein_lower_bound,
    hoeffding_lower_bound,
)

from .said_student import Said, rows


def right(s: int, n: int, **more) -> kd.Split:
    return rows(np.where(np.arange(n) < s, 0.9, 0.1), **more)


@pytest.mark.parametrize(
    ("threshold", "expected", "confidence"), [(0.95, 1.0, 0.95), (0.9, 0.95, 0.95), (0.85, 0.9, 0.99), (0.5, 0.55, 0.8)]
)
def test_it_is_the_least_number_of_binary_cases_that_shows_it(threshold, expected, confidence):
    shows = lambda n: clopper_pearson_lower_bound(int(expected * n + 1e-9), n, confidence) >= threshold  # noqa: E731
    assert cases_needed(threshold, expected, confidence) == next(n for n in range(1, 5000) if shows(n))


def test_a_student_without_a_fault_by_hand():
    """N cases of n show alpha^(1/n): 0.95 from log(0.05) / log(0.95) = 58.4 cases on."""
    assert cases_needed(0.95, 1.0) == 59
    assert cases_needed(0.999, 1) == 2995


@pytest.mark.parametrize(("threshold", "expected", "spread"), [(0.9, 0.95, 0.1), (0.9, 0.92, 0.05), (0.5, 0.7, None)])
def test_so_many_cases_of_a_probability_show_it_about_every_other_time(threshold, expected, spread):
    """Values drawn with that mean and spread: with 2.5 times the cases most samples show it, with 0.4 few do."""
    needed = cases_needed(threshold, expected, binary=False, spread=spread)
    spread = (expected * (1 - expected)) ** 0.5 if spread is None else spread
    total = expected * (1 - expected) / spread**2 - 1
    rng = np.random.default_rng(0)

    def draw(n):
        return rng.random(n) < expected if total < 1e-9 else rng.beta(expected * total, (1 - expected) * total, n)

    shown = {
        factor: np.mean([betting_lower_bound(draw(int(factor * needed))) >= threshold for _ in range(60)])
        for factor in (0.4, 2.5)
    }
    assert shown[0.4] < 0.4
    assert shown[2.5] > 0.8


PLANS = {
    "nothing above it": ((0.9, 0.9), {}, "`expected` is 0.9 and `threshold` 0.9: what is not above a threshold"),
    "threshold": ((1.5, 2), {}, r"`threshold` is 1\.5; wanted a number above 0 and at most 1"),
    "nan": ((0.5, float("nan")), {}, "`expected` is nan"),
    "binary": ((0.5, 0.9), {"binary": 1}, "`binary` is 1; wanted True for values of 0 and 1, False for others"),
    "confidence": ((0.5, 0.6, 95), {}, "`confidence` is 95"),
    "spread": ((0.5, 0.9), {"spread": 0.5}, r"`spread` is 0\.5; values in \[0, 1\] with average 0\.9 have"),
    "too little": ((0.5, 0.500001), {}, "takes more than 1,000,000,000 cases"),
}


@pytest.mark.parametrize("case", PLANS)
def test_plans_that_are_refused(case):
    numbers, more, message = PLANS[case]
    with pytest.raises(InvalidInput, match=message):
        cases_needed(*numbers, **more)


# ---- in a certificate ------------------------------------------------------------------------------------------


def test_a_certificate_says_how_many_more_cases_would_show_it():
    constraint = SafetyConstraint("recall", Recall([0]), 0.85)
    found = certify(Said(), constraint, right(108, 120))
    assert found.decision == "not_shown"
    assert found.cases_needed == cases_needed(0.85, 0.9)
    assert found.more_cases_needed == found.cases_needed - 120
    assert str(found).endswith(
        f"At this average about {found.cases_needed} cases would be needed, {found.more_cases_needed} more"
    )
    again = found.cases_needed
    assert certify(Said(), constraint, right(int(0.9 * again + 1e-9), again)).decision == "safe"


def test_an_average_below_the_threshold_needs_no_number():
    found = certify(Said(), SafetyConstraint("recall", Recall([0]), 0.95), right(108, 120))
    assert (found.cases_needed, found.more_cases_needed) == (None, None)
    assert "The average itself is not above what is required: more cases like these would not show it" in str(found)


def test_what_is_shown_needs_no_more():
    found = certify(Said(), SafetyConstraint("recall", Recall([0]), 0.5), right(108, 120))
    assert (found.decision, found.cases_needed, found.more_cases_needed) == ("safe", 120, 0)
    assert "needed" not in str(found)


BOUNDS = {
    "hoeffding": hoeffding_lower_bound,
    "empirical_bernstein": empirical_bernstein_lower_bound,
    "betting": betting_lower_bound,
}


@pytest.mark.parametrize("method", BOUNDS)
@pytest.mark.parametrize("threshold", [0.85, 0.87, 0.895])
def test_the_same_cases_over_again_show_it_where_it_says(method, threshold):
    values = np.random.default_rng(0).permutation(np.linspace(0.8, 1, 60))
    constraint = SafetyConstraint("truth", TruthProbability([0]), threshold)
    found = certify(Said(), constraint, rows(values), method=method)
    many, few = (np.resize(values, int(factor * found.cases_needed)) for factor in (1.1, 0.9))
    assert BOUNDS[method](many) >= threshold
    assert len(few) <= 60 or BOUNDS[method](few) < threshold


def test_clusters_are_what_is_counted():
    p_N = torch.tensor(np.random.default_rng(0).beta(30, 1, 30)).repeat_interleave(10)
    found = certify(
        Said(), SafetyConstraint("truth", TruthProbability([0]), 0.93), rows(p_N, cluster=torch.arange(300) // 10)
    )
    assert found.decision == "not_shown"
    assert 30 < found.cases_needed < 300
    assert f"about {found.cases_needed} clusters would be needed" in str(found)


def test_a_mix_needs_cases_of_each_group_in_proportion():
    constraint = SafetyConstraint("mix", Recall(), 0.9, mix={0: 0.5, 1: 0.5})
    half = np.where(np.arange(100) < 95, 0.9, 0.1)
    found = certify(Said(), constraint, rows(np.r_[half, half], context=torch.arange(200) // 100))
    needed = found.cases_needed // 2
    assert found.cases_needed > 200
    enough, few = (needed // 20 + 1) * 20, needed // 20 * 20
    assert clopper_pearson_lower_bound(enough * 19 // 20, enough, 0.975) >= 0.9
    assert clopper_pearson_lower_bound(few * 19 // 20, few, 0.975) < 0.9
