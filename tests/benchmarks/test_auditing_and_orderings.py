"""The benchmarks of an audit's time and of orderings: reports by hand, and short runs of all tables."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import auditing, orderings


@pytest.mark.parametrize("population", orderings.EQUAL, ids=lambda population: population.name)
def test_equal_teachers_are_equally_safe_on_average(population):
    """The error table is about no difference at all, also where teachers are nothing alike."""
    x_RNK = population.draw(np.random.default_rng(0), 400, 200)
    assert 0 <= x_RNK.min() <= x_RNK.max() <= 1
    mean_K, error_K = x_RNK.mean((0, 1)), x_RNK.std((0, 1)) / (400 * 200) ** 0.5
    assert np.abs(mean_K - mean_K.mean()).max() <= 5 * error_K.max() + 1e-9


def test_the_report_says_whether_the_goals_are_met():
    good, bad = orderings.OrderingScore("a", 2, 0.04, 0.3, 0.0), orderings.OrderingScore("b", 2, 0.06, 0.05, None)
    strong, weak = (
        orderings.OrderingScore("c", 5, 9.5, 10.0, 3.0),
        orderings.OrderingScore("d", 5, 8.0, 10.0, None, 8.5),
    )
    text = orderings.write_report([good], [strong], 2000, 10)
    assert "| a | 2 | 0.0400 | 0.3000 | 0.0000 |" in text
    assert "Worst: 0.0400 (a), met." in text
    assert "| c | 10.00 | 9.50 | 95% | 30% |" in text
    assert "All together: 95%. Below: none." in text
    assert orderings.allow_error(2000) == pytest.approx(0.0597, abs=1e-4)
    text = orderings.write_report([good, bad], [strong, weak], 2000, 10)
    assert "Worst: 0.0600 (b), missed." in text
    assert "All together: 88%. Below: d (80%; no valid procedure finds more than 85%)." in text


def test_a_short_run_finds_most_of_what_the_t_test_finds_and_nothing_where_nothing_is():
    near = next(population for population in orderings.DIFFERENT if population.name == "skewed")
    ours, by_t, bet = orderings.count_orderings(near, 20, 0, 110)
    assert ours.mean() >= 0.9 * by_t.mean()
    assert bet is not None
    assert bet.mean() < 0.7 * by_t.mean()
    hard = next(population for population in orderings.EQUAL if "2.5%" in population.name)
    ours, _, _ = orderings.count_orderings(hard, 200, 0, 110)
    assert (ours > 0).mean() <= 0.05


def test_the_bound_of_power_is_kept_by_what_is_valid_and_broken_by_the_t_test():
    """One teacher is .02 safer; were it to fail in one case of 51 they were equally safe, which 110 may not show."""
    alike = orderings._alike([0.5, 0.5], 4, 0.0)

    def draw(rng, runs, cases, rare=0.0):
        noise = 0.05 * (alike(rng, runs, cases)[..., 0] - 0.5)
        fails = rng.random((runs, cases)) < rare
        pair = np.stack([0.6 + noise, np.full((runs, cases), 0.58)], axis=-1)
        return np.where(fails[..., None], [0.0, 1.0], pair)

    near = orderings.Population("near", draw)
    most = orderings.bound_power(near, 110)
    assert most == pytest.approx(0.05 * 1.02**110, rel=0.02)  # .44
    ours, by_t, _ = orderings.count_orderings(near, 300, 0, 110)
    assert by_t.mean() > 0.99 > most > ours.mean()
    equal = orderings.Population("equal", lambda *given: draw(*given, rare=0.02 / 1.02))
    ours, by_t, _ = orderings.count_orderings(equal, 300, 0, 110)
    assert (by_t > 0).mean() > 0.1
    assert (ours > 0).mean() <= 0.05


def test_the_report_says_whether_a_goal_is_met():
    good, bad = auditing.AuditCost(10, 5, "three", 200, 0.2, 0.1), auditing.AuditCost(1302, 5, "all", 900, 6.0, 1.0)
    free = auditing.AuditCost(7, 5, "three", 200, 9.0, 0.1)
    text = auditing.write_report([good, bad, free], 10)
    assert "| 10 | 5 | three | 200 | 0.20 | 1: met | 0.10 |" in text
    assert "| 1302 | 5 | all | 900 | 6.00 | 5: missed | 1.00 |" in text
    assert "| 7 | 5 | three | 200 | 9.00 |  | 0.10 |" in text


@pytest.mark.parametrize("which", auditing.SIGNALS)
def test_a_short_run_counts_calls(which):
    cost = auditing.measure_audit(6, 3, 4, which)
    assert 0 < cost.calls < 500
    assert cost.seconds > 0
