"""Is one teacher safer than another?  The tests against scipy, against full enumeration, and against no difference."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, ttest_1samp

from safekd.errors import InvalidInput
from safekd.safety import PairedSums, adjust_p_values, adjust_pair_p_values
from safekd.safety._paired_comparison import BETS


def p_of(values, binary: bool):
    """Return the p-value that teacher 0 is safer than teacher 1, all examples in one group."""
    return PairedSums.from_values(values, np.zeros(len(values), dtype=int), binary=binary).p_values()[0, 0, 1]


def test_sums_by_hand():
    values = [[1, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0]]
    sums = PairedSums.from_values(values, [4, 4, 4, 7], binary=True)
    assert sums.groups == (4, 7)
    assert sums.count_G.tolist() == [3, 1]
    assert sums.means().tolist() == [pytest.approx([2 / 3] * 3), [1, 0, 0]]
    assert sums.wins_GKK[0].tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert sums.wins_GKK[1].tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert sums.log_capital_GKKb is None


@pytest.mark.parametrize(("n", "wins", "losses"), [(1, 1, 0), (6, 3, 1), (9, 6, 0), (9, 5, 3)])
def test_zero_one_readings_get_the_exact_test(n, wins, losses):
    """By enumeration: of all outcomes of n pairs, those that lead by as many standard errors, at the worst share."""
    values = [[1, 0]] * wins + [[0, 1]] * losses + [[1, 1]] * (n - wins - losses)
    lead, worst = (wins - losses) / (wins + losses) ** 0.5, 0.0
    for share in np.linspace(0.001, 1, 1000):
        chance = 0.0
        for w, d in product(range(n + 1), range(n + 1)):
            if w <= d and d and (2 * w - d) / d**0.5 >= lead - 1e-9:
                chance += binom.pmf(d, n, share) * binom.pmf(w, d, 0.5)
        worst = max(worst, chance)
    assert p_of(values, binary=True) == pytest.approx(worst, rel=1e-3)
    assert p_of(values, binary=True) >= worst * (1 - 1e-3)


@given(seed=st.integers(0, 10**6))
def test_the_exact_test_is_no_weaker_than_the_sign_test_where_it_matters(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2, size=(int(rng.integers(2, 40)), 4))
    p_KK = PairedSums.from_values(values, np.zeros(len(values)), binary=True).p_values()[0]
    for i, j in product(range(4), repeat=2):
        wins, losses = int((values[:, i] > values[:, j]).sum()), int((values[:, i] < values[:, j]).sum())
        if wins > losses:
            sign = binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue
            assert p_KK[i, j] <= 1.05 * sign or sign > 0.05
        else:
            assert p_KK[i, j] >= 0.5 or i == j


def test_many_zero_one_readings_get_the_sign_test():
    values = np.array([[1, 0]] * 30 + [[0, 1]] * 12 + [[1, 1]] * 5000)
    assert p_of(values, binary=True) == pytest.approx(binomtest(30, 42, 0.5, alternative="greater").pvalue)


@pytest.mark.parametrize("wins", range(1, 12))
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8, 1.0])
def test_the_exact_test_keeps_every_level(wins, share):
    """Where there is no difference, a p-value up to that of some outcome of 11 pairs is at most that likely."""
    level, likely = p_of([[1, 0]] * wins + [[1, 1]] * (11 - wins), binary=True), 0.0
    for w, d in product(range(12), range(12)):
        if w <= d:
            values = [[1, 0]] * w + [[0, 1]] * (d - w) + [[1, 1]] * (11 - d)
            if p_of(values, binary=True) <= level + 1e-12:
                likely += binom.pmf(d, 11, share) * binom.pmf(w, d, 0.5)
    assert likely <= level * (1 + 1e-3)


def test_the_capital_by_hand():
    """Differences .5 and -.2: each bet b makes (1 + .5 b)(1 - .2 b), and the p-value is one over their average."""
    values = [[0.9, 0.4], [0.3, 0.5]]
    capital = np.mean([(1 + 0.5 * b) * (1 - 0.2 * b) for b in BETS])
    assert p_of(values, binary=False) == pytest.approx(1 / capital)
    assert PairedSums.from_values(values, [0, 0], binary=False).p_values()[0, 1, 0] == 1


@pytest.mark.parametrize(("up", "down"), [(0.5, 0.5), (0.9, 0.1), (0.1, 0.9), (1.0, 0.25)])
def test_expected_capital_is_one_where_nobody_is_safer(up, down):
    """Differences of +up or -down that average 0: over all 2^6 outcomes the capital averages to exactly 1."""
    chance, n, expected = down / (up + down), 6, 0.0
    for outcome in product([True, False], repeat=n):
        d = np.where(outcome, up, -down)
        sums = PairedSums.from_values(
            np.stack([np.maximum(d, 0), np.maximum(-d, 0)], axis=1), np.zeros(n), binary=False
        )
        capital = np.exp(sums.log_capital_GKKb[0, 0, 1]).mean()
        expected += np.prod(np.where(outcome, chance, 1 - chance)) * capital
    assert expected == pytest.approx(1)


def test_few_skewed_examples_are_not_taken_for_a_difference():
    """Most examples favor teacher 0 by a little, rare ones teacher 1 by as much: a t test is fooled, we are not."""
    rng, level, runs, n = np.random.default_rng(0), 0.05, 2000, 12
    d = np.where(rng.random((runs, n)) < 0.95, 0.05, -0.95)  # mean 0
    noise = d + rng.normal(0, 1e-3, size=d.shape)
    t = noise.mean(1) / (noise.std(1, ddof=1) / n**0.5)
    assert (t > 1.796).mean() > 4 * level  # 95 % quantile of t with 11 degrees of freedom
    values = np.stack([np.maximum(d, 0), np.maximum(-d, 0)], axis=-1)
    p = [p_of(run, binary=False) for run in values]
    assert (np.array(p) <= level).mean() <= level


@pytest.mark.parametrize("binary", [True, False])
def test_false_alarms_are_as_rare_as_promised(binary):
    rng, level, runs = np.random.default_rng(1), 0.1, 1000
    values = rng.random((runs, 30, 2))
    p = [p_of((run < 0.6) * 1.0 if binary else run, binary) for run in values]
    assert (np.array(p) <= level).mean() <= level + 3 * (level * (1 - level) / runs) ** 0.5


@pytest.mark.parametrize("binary", [True, False])
def test_a_real_difference_is_found(binary):
    rng = np.random.default_rng(2)
    x = rng.random((200, 1))
    values = np.concatenate([x < 0.9, x < 0.7], axis=1) * 1.0 if binary else np.concatenate([x**0.5, x], axis=1)
    assert p_of(values, binary) < 1e-6
    assert p_of(values[:, ::-1], binary) > 0.99


def test_one_example_proves_nothing():
    assert p_of([[1.0, 0.0]], binary=True) == 0.5
    assert p_of([[1.0, 0.0]], binary=False) > 0.5


@given(seed=st.integers(0, 10**6))
def test_a_p_value_below_one_half_needs_the_higher_average(seed):
    """Which is why significant orderings cannot go round in a circle."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 3, size=(int(rng.integers(1, 30)), 4)) / 2
    sums = PairedSums.from_values(values, np.zeros(len(values)), binary=False)
    for i, j in np.argwhere(sums.p_values()[0] < 0.5):
        assert sums.means()[0, i] > sums.means()[0, j]


@given(seed=st.integers(0, 10**6))
def test_the_order_of_examples_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    values = rng.random((25, 3))
    p, shuffled = (
        PairedSums.from_values(x, np.zeros(25), binary=False).p_values() for x in (values, rng.permutation(values))
    )
    np.testing.assert_allclose(p, shuffled, rtol=1e-9)


# from 40 examples on --------------------------------------------------------------------------------------------------


def many(d_N):
    """Return the p-value for differences, as readings of two teachers."""
    d_N = np.asarray(d_N)
    return p_of(np.stack([np.maximum(d_N, 0), np.maximum(-d_N, 0)], axis=1), binary=False)


@pytest.mark.parametrize("shift", [0.2, 0.3, -0.1])
def test_of_differences_without_a_tail_it_is_nearly_the_t_test(shift):
    d_N = shift + np.linspace(-0.7, 0.7, 110)
    plain = ttest_1samp(d_N, 0, alternative="greater").pvalue
    assert min(1.0, 1.2 * plain * (1 - 1e-9)) <= many(d_N) <= 1.5 * plain + 1e-12


def test_a_tail_to_the_left_makes_it_cautious_and_one_to_the_right_changes_nothing():
    rare = np.where(np.arange(100) < 4, -0.9, 0.08)
    plain = ttest_1samp(rare, 0, alternative="greater").pvalue
    assert plain < 0.02
    assert many(rare) > 4 * plain
    assert many(-rare) >= 1 - plain - 1e-9  # as of the plain test


def test_a_small_difference_that_is_always_the_same_proves_little():
    """Two of a hundred cases at -1 would balance it, and stay unseen with probability .13."""
    assert many(np.full(100, 0.02)) > 0.1
    assert many(np.full(100, 0.1)) < 1e-3
    assert many(np.full(1000, 0.02)) < 1e-6


def hard(rng, q, size, noise, n=110, runs=2000):
    """Return differences that average to nothing: a little above 0, rarely far below."""
    d_RN = np.where(rng.random((runs, n)) < q, size, -size * q / (1 - q))
    return np.clip(d_RN + noise * rng.standard_normal((runs, n)), -1, 1)


HARD = {
    "rare": (0.025, -1.0, 0.0),
    "less rare": (0.05, -0.95, 0.02),
    "often": (0.2, -0.6, 0.1),
    "small": (0.05, -0.1, 0.0),
    "symmetric": (0.5, -0.3, 0.1),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case not in ("rare", "symmetric"))) for case in HARD]
)
def test_nothing_is_found_where_nothing_is_in_the_hardest_cases(case):
    """Two thousand runs at the level of one comparison of two, both directions; three standard errors are allowed."""
    d_RN = hard(np.random.default_rng(1), *HARD[case])
    values = np.stack([np.maximum(d_RN, 0), np.maximum(-d_RN, 0)], axis=-1)
    group_R = np.repeat(np.arange(len(d_RN)), d_RN.shape[1])
    p_RKK = PairedSums.from_values(values.reshape(-1, 2), group_R, binary=False).p_values()
    assert (2 * p_RKK.min((1, 2)) <= 0.05).mean() <= 0.05 + 3 * (0.05 * 0.95 / len(d_RN)) ** 0.5
    if case == "rare":  # to which the t test falls victim
        noisy_RN = d_RN[:400] + 1e-6 * np.random.default_rng(2).standard_normal((400, d_RN.shape[1]))
        assert np.mean(ttest_1samp(noisy_RN, 0, axis=1, alternative="greater").pvalue <= 0.025) > 0.04


def test_it_takes_over_from_the_gambler_at_forty_examples():
    d_N = 0.3 + np.linspace(-0.6, 0.6, 40)
    assert many(d_N) < many(d_N[:-1]) / 20


def test_huge_capitals_do_not_overflow():
    assert p_of(np.tile([1.0, 0.0], (10_000, 1)), binary=False) == 0
    assert p_of(np.tile([0.0, 1.0], (10_000, 1)), binary=False) == 1


def test_no_examples_at_all():
    assert PairedSums.from_values(np.empty((0, 3)), np.empty(0, dtype=int), binary=True).p_values().shape == (0, 3, 3)


HOLM = {
    "one": ([0.03], [0.03]),
    "three": ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
    "capped": ([0.6, 0.7], [1.0, 1.0]),
    "a later one never below an earlier": ([0.01, 0.011, 0.9], [0.03, 0.03, 0.9]),
    "none": ([], []),
}


@pytest.mark.parametrize("case", HOLM)
def test_holm_by_hand(case):
    given_, expected = HOLM[case]
    assert adjust_p_values(given_).tolist() == pytest.approx(expected)


BAD = {
    "range": ([[0.5, 1.5]], [0], False, r"Values lie between 0.5 and 1.5; .* by values in \[0, 1\]"),
    "nan": ([[0.5, float("nan")]], [0], False, "Values lie between nan"),
    "binary": ([[0.5, 1.0]], [0], True, "other values than 0 and 1, but are called binary; pass binary=False"),
    "shape": ([0.5, 1.0], [0], False, r"Values have shape \(2,\), groups \(1,\); wanted \(examples, teachers\)"),
    "lengths": ([[0.5, 1.0]], [0, 1], False, r"Values have shape \(1, 2\), groups \(2,\)"),
    "clusters": ([[0.5, 1.0]], [0], False, r"groups \(1,\), clusters \(2,\); wanted"),
}


@pytest.mark.parametrize("case", BAD)
def test_readings_that_are_refused(case):
    values, groups, binary, message = BAD[case]
    more = {"cluster_N": [0, 0]} if case == "clusters" else {}
    with pytest.raises(InvalidInput, match=message):
        PairedSums.from_values(values, groups, binary=binary, **more)


def test_shaffer_by_hand():
    """Of 4 teachers the first is different: then 3 pairs can be equal, of 5 that are left."""
    p = np.full((4, 4), 0.9)
    p[0, 1], p[0, 2], p[0, 3], p[1, 2] = 0.001, 0.005, 0.01, 0.02
    adjusted = adjust_pair_p_values(p)
    assert adjusted[0, 1:].tolist() == pytest.approx([2 * 6 * 0.001, 2 * 3 * 0.005, 2 * 3 * 0.01])
    assert adjusted[1, 2] == pytest.approx(2 * 3 * 0.02)
    assert (adjusted[np.tril_indices(4)] == 1).all()


@given(seed=st.integers(0, 10**6))
def test_shaffer_rejects_all_that_holm_does(seed):
    rng = np.random.default_rng(seed)
    K = int(rng.integers(2, 8))
    p = rng.random((K, K)) ** 6
    upper, lower = np.triu_indices(K, 1), np.tril_indices(K)
    p[lower] = 1.0
    assert (adjust_pair_p_values(p)[upper] <= adjust_p_values(np.minimum(2 * p[upper], 1)) + 1e-12).all()
    assert (adjust_pair_p_values(p)[upper] >= np.minimum(2 * p[upper], 1) - 1e-12).all()


# cases of several values ----------------------------------------------------------------------------------------------


def test_cases_are_added_up_by_hand():
    """Cases of 2, 1 and 2 values: one of the largest says how large they can be, and is left out."""
    values = [[1.0, 0.0], [0.5, 0.5], [1.0, 0.5], [0.0, 0.5], [0.5, 0.0]]
    sums = PairedSums.from_values(values, [0] * 5, binary=False, cluster_N=[7, 7, 3, 9, 9])
    assert sums.count_G.tolist() == [2]
    assert sums.sum_GK[0].tolist() == [(1.0 + 0.5) / 2, (0.5 + 0.5) / 2]  # cases 3 and 9; 7 is the first of the largest
    assert sums.means()[0].tolist() == [0.6, 0.3]  # of all values
    alike = PairedSums.from_values(values[:4], [0] * 4, binary=False, cluster_N=[7, 7, 9, 9])
    assert alike.count_G.tolist() == [2]
    assert alike.sum_GK[0].tolist() == [1.25, 0.75]


def test_a_case_each_is_as_without_cases():
    rng = np.random.default_rng(3)
    values, groups = rng.integers(0, 2, size=(60, 3)) * 1.0, rng.integers(0, 2, size=60)
    cases = rng.permutation(60)
    plain, each = (PairedSums.from_values(values, groups, binary=True, cluster_N=c) for c in (None, cases))
    assert each.log_capital_GKKb is None  # the exact test
    np.testing.assert_array_equal(plain.p_values(), each.p_values())
    twice = PairedSums.from_values(values, groups, binary=True, cluster_N=cases // 2)
    assert twice.log_capital_GKKb is not None  # a sum of two is neither 0 nor 1


def draw_cases(rng, runs, cases, how):
    """Return values (N, 2), runs and cases: teachers are equally safe per value, and values of a case go together."""
    size_RC = rng.integers(1, 9, size=(runs, cases)) if how == "any size" else np.full((runs, cases), 6)
    lead_RC = 0.4 * rng.choice([-1.0, 1.0], size=(runs, cases))
    if how == "large ones differ":  # an average over cases would find teacher 0 safer
        small_RC = rng.random((runs, cases)) < 0.5
        size_RC, lead_RC = np.where(small_RC, 2, 8), np.where(small_RC, 0.4, -0.1)
    case_N = np.repeat(np.arange(runs * cases), size_RC.ravel())
    lead_N = lead_RC.ravel()[case_N] + 0.1 * rng.standard_normal(len(case_N))
    values = np.clip(0.5 + np.stack([lead_N, -lead_N], axis=1) / 2, 0, 1)
    if how == "0 and 1":
        values = (rng.random((len(case_N), 1)) < values) * 1.0
    return values, case_N // cases, case_N


@pytest.mark.parametrize("cases", [20, 60])
@pytest.mark.parametrize("how", ["one size", "any size", "large ones differ", "0 and 1"])
def test_nothing_is_found_where_values_of_a_case_go_together(how, cases):
    values, group_N, case_N = draw_cases(np.random.default_rng(5), 300, cases, how)
    binary = how == "0 and 1"
    p_RKK = PairedSums.from_values(values, group_N, binary=binary, cluster_N=case_N).p_values()
    assert (2 * p_RKK.min((1, 2)) <= 0.05).mean() <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    blind_RKK = PairedSums.from_values(values, group_N, binary=binary).p_values()
    assert (2 * blind_RKK.min((1, 2)) <= 0.05).mean() > 0.1  # which is what cases are for


def test_a_difference_is_found_in_cases_too():
    values, group_N, case_N = draw_cases(np.random.default_rng(6), 200, 60, "any size")
    values = np.clip(values - np.array([0.0, 0.4]), 0, 1)
    p_R = PairedSums.from_values(values, group_N, binary=False, cluster_N=case_N).p_values()[:, 0, 1]
    assert (2 * p_R <= 0.05).mean() > 0.9
