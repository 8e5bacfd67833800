"""Which bound a certificate takes, what it refuses, and importance weights, several constraints and worst mixes."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import binom

import safekd as kd
from safekd.data import SplitUse
from safekd.errors import InvalidInput
from safekd.safety import (
    KLBall,
    Recall,
    SafetyConstraint,
    TruthProbability,
    betting_lower_bound,
    bound_rows,
    certify,
    clopper_pearson_lower_bound,
    empirical_bernstein_lower_bound,
    hoeffding_lower_bound,
    skew_adjusted_t_lower_bound,
)
from safekd.safety.certificates import decide_together

from .said_student import Said, rows

RECALL = SafetyConstraint("recall", Recall([0]), 0.9)
TRUTH = SafetyConstraint("truth", TruthProbability([0]), 0.9)
VALUES = np.random.default_rng(0).beta(9, 1, 200)


# ---- bounds by hand ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_hoeffding_and_empirical_bernstein_are_their_formulas(confidence):
    n, alpha, mean = len(VALUES), 1 - confidence, VALUES.mean()
    by_hand = mean - np.sqrt(np.log(1 / alpha) / (2 * n))
    assert hoeffding_lower_bound(VALUES, confidence) == pytest.approx(by_hand)
    spread = np.sqrt(2 * VALUES.var(ddof=1) * np.log(2 / alpha) / n)
    by_hand = mean - spread - 7 * np.log(2 / alpha) / (3 * (n - 1))
    assert empirical_bernstein_lower_bound(VALUES, confidence) == pytest.approx(by_hand)


@pytest.mark.parametrize("method", ["hoeffding", "empirical_bernstein", "betting"])
def test_a_ratio_is_bounded_where_its_terms_are_no_longer_refuted(method):
    """At the bound m, x - m c moved into [0, 1] by (x - m c + m) has a mean that the method does not place above m."""
    rng = np.random.default_rng(1)
    size = rng.random(150)
    x = size * (rng.random(150) < 0.95)
    plain = {"hoeffding": hoeffding_lower_bound, "empirical_bernstein": empirical_bernstein_lower_bound}
    ratio = (plain | {"betting": betting_lower_bound})[method](x, 0.95, size)
    assert 0.3 < ratio < x.sum() / size.sum()
    if method in plain:
        assert plain[method](x - ratio * size + ratio, 0.95) == pytest.approx(ratio, abs=1e-9)


@pytest.mark.parametrize("method", ["clopper_pearson", "hoeffding", "empirical_bernstein", "betting"])
def test_many_samples_at_once_are_the_same_as_each_by_itself(method):
    one = {
        "clopper_pearson": lambda x: clopper_pearson_lower_bound(int(x.sum()), len(x)),
        "hoeffding": hoeffding_lower_bound,
        "empirical_bernstein": empirical_bernstein_lower_bound,
        "betting": betting_lower_bound,
    }[method]
    samples = (np.random.default_rng(2).random((6, 40)) < 0.8).astype(float)
    assert bound_rows(method, samples) == pytest.approx([one(row) for row in samples], abs=1e-12)


SAMPLES = {
    "one value": (lambda: skew_adjusted_t_lower_bound([0.5]), "1 values cannot show their spread; wanted at least two"),
    "text": (lambda: hoeffding_lower_bound("many"), "`values` is a str; wanted numbers"),
    "no method": (lambda: bound_rows("t", [[0.5]]), r"`method` is 't'; wanted 'clopper_pearson' or one of \['betting'"),
    "a cube": (lambda: bound_rows("betting", np.ones((2, 2, 2))), r"`value_TN` has shape \(2, 2, 2\); wanted a row of"),
    "shares": (
        lambda: bound_rows("clopper_pearson", [[0.5]]),
        "'clopper_pearson' is for values of 0 and 1 .*'betting'",
    ),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_samples_that_a_bound_cannot_take_are_refused(case):
    bound, message = SAMPLES[case]
    with pytest.raises(InvalidInput, match=message):
        bound()


@pytest.mark.parametrize("bound", [hoeffding_lower_bound, empirical_bernstein_lower_bound])
def test_what_shows_nothing_gives_zero(bound):
    assert bound(np.zeros(50)) == 0
    assert empirical_bernstein_lower_bound([1.0]) == 0
    with pytest.raises(InvalidInput, match=r"values between 0\.5 and 1\.5"):
        bound([0.5, 1.5])
    with pytest.raises(InvalidInput, match="`confidence` is 95"):
        bound([0.5], 95)


# ---- which method ----------------------------------------------------------------------------------------------


def test_the_kind_of_the_data_chooses_and_not_which_bound_is_highest():
    """Whatever other bounds would say of values of 0 and 1, Clopper and Pearson's is taken."""
    data = rows(np.where(np.arange(200) < 196, 0.9, 0.1))
    found = {m: certify(Said(), RECALL, data, method=m) for m in ("auto", "clopper_pearson", "hoeffding", "betting")}
    assert found["auto"] == found["clopper_pearson"]
    assert found["hoeffding"].method == "hoeffding"
    assert found["hoeffding"].lower_bound == pytest.approx(hoeffding_lower_bound(np.arange(200) < 196))
    assert certify(Said(), TRUTH, data).method == "betting"
    bernstein = certify(Said(), TRUTH, data, method="empirical_bernstein")
    assert bernstein.lower_bound == pytest.approx(empirical_bernstein_lower_bound(data.inputs.numpy()))


MISFITS = {
    "probabilities": (TRUTH, {}, "'truth': `method` is 'clopper_pearson'.*TruthProbability.*other values than 0 and 1"),
    "clusters": (RECALL, {"cluster": torch.arange(60) // 3}, "these 60 values are of 20 clusters. Leave `method` out"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_method_that_does_not_fit_is_refused_with_what_does(case):
    constraint, more, message = MISFITS[case]
    with pytest.raises(InvalidInput, match=message):
        certify(Said(), constraint, rows(np.full(60, 0.9), **more), method="clopper_pearson")


def test_a_method_that_is_none():
    with pytest.raises(
        InvalidInput,
        match=r"`method` is 't'; wanted 'auto' or one of .*Approximate bounds, such as Student's t, certify nothing",
    ):
        certify(Said(), RECALL, rows([0.9]), method="t")
    with pytest.raises(InvalidInput, match="they have importance weights"):
        certify(Said(), RECALL, rows([0.9, 0.9]), method="clopper_pearson", weights=[1, 2], largest_weight=2)


@pytest.mark.parametrize("method", ["hoeffding", "empirical_bernstein", "betting"])
def test_methods_for_means_know_clusters(method):
    """40 clusters of 30 alike are 40 cases, whatever the method."""
    p_N = torch.tensor(np.random.default_rng(3).beta(9, 1, 40)).repeat_interleave(30)
    found = certify(Said(), TRUTH, rows(p_N, cluster=torch.arange(1200) // 30), method=method)
    alone = certify(Said(), TRUTH, rows(p_N[::30]), method=method)
    assert (found.clusters, found.count) == (40, 1200)
    assert found.lower_bound == pytest.approx(alone.lower_bound, abs=1e-9)


# ---- importance weights ------------------------------------------------------------------------------------------


def test_weights_that_are_all_alike_change_nothing():
    data = rows(VALUES)
    plain = certify(Said(), TRUTH, data, seed=5)
    for weight in (1.0, 0.25, 40.0):
        found = certify(Said(), TRUTH, data, seed=5, weights=np.full(200, weight), largest_weight=weight)
        assert found.lower_bound == pytest.approx(plain.lower_bound, abs=1e-9)
        assert found.estimate == pytest.approx(plain.estimate)
        assert found.weighted


def test_weights_are_known_up_to_a_factor():
    weight = np.random.default_rng(0).uniform(0.2, 2, 200)
    one, other = (
        certify(Said(), TRUTH, rows(VALUES), weights=c * weight, largest_weight=c * 2).lower_bound for c in (1, 7)
    )
    assert one == pytest.approx(other, abs=1e-9)


def test_a_weighted_average_is_bounded_by_the_game_on_w_times_f_minus_m():
    weight = np.random.default_rng(0).uniform(0.2, 2, 200)
    found = certify(Said(), TRUTH, rows(VALUES), weights=weight, largest_weight=2.5, seed=1)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1)).numpy()
    by_hand = betting_lower_bound((weight * VALUES)[order] / 2.5, 0.95, weight[order] / 2.5)
    assert found.lower_bound == pytest.approx(by_hand, abs=1e-9)
    assert found.estimate == pytest.approx(float(weight @ VALUES / weight.sum()))
    assert "weighted" in str(found)


def test_a_mix_by_weights_is_called_safe_no_more_often_than_stated():
    """Nights are a fifth of the data, half of the use, and worse: 0.95 in the data, 0.875 in use, 0.9 asked for."""
    rng, false, plain = np.random.default_rng(0), 0, 0
    for _ in range(100):
        night = rng.random(200) < 0.2
        data = rows(np.where(rng.random(200) < np.where(night, 0.78, 0.97), 0.99, 0.01))
        weights = np.where(night, 0.5 / 0.2, 0.5 / 0.8)
        false += certify(Said(), RECALL, data, weights=weights, largest_weight=2.5).decision == "safe"
        plain += certify(Said(), RECALL, data).decision == "safe"
    assert false <= 11  # 5 % of 100, and 3 sigma
    assert plain > 15  # what the weights are for


def test_largest_weights_that_nobody_knows_are_told():
    weight = np.r_[np.full(199, 1.0), 3.0]
    found = certify(Said(), TRUTH, rows(VALUES), weights=weight)
    assert found.note == "about weights of at most 3"
    assert found.largest_weight is None
    assert certify(Said(), TRUTH, rows(VALUES), weights=weight, largest_weight=3).note == ""


def test_examples_of_weight_zero_are_no_evidence():
    weight = np.r_[np.ones(150), np.zeros(50)]
    found = certify(Said(), TRUTH, rows(VALUES), weights=weight, largest_weight=1)
    assert found.count == 150
    assert found.lower_bound == pytest.approx(certify(Said(), TRUTH, rows(VALUES[:150])).lower_bound, abs=1e-9)


def test_weights_stay_with_their_examples_where_some_were_used_in_training():
    data, weight = rows(VALUES), np.linspace(0.5, 2, 200)
    used = SplitUse(kd.Split("train", data.inputs[:60], data.labels[:60]), ("gradient steps",))
    result = SimpleNamespace(student=Said(), uses=[used])
    found = certify(result, TRUTH, data, weights=weight, largest_weight=2)
    rest = certify(Said(), TRUTH, rows(VALUES[60:]), weights=weight[60:], largest_weight=2)
    assert (found.left_out, found.count) == (60, 140)
    assert (found.lower_bound, found.data_hash) == (rest.lower_bound, rest.data_hash)


BAD_WEIGHTS = {
    "negative": ({"weights": [1, -1, 1]}, "`weights` holds -1.0 for example 1; wanted finite numbers of at least 0"),
    "nan": ({"weights": [1, 1, float("nan")]}, "`weights` holds nan for example 2"),
    "infinite": ({"weights": [1, float("inf"), 1]}, "`weights` holds inf"),
    "too few": ({"weights": [1, 1]}, r"`weights` has shape \(2,\); wanted one number for each of the 3 examples"),
    "text": ({"weights": "abc"}, "`weights` is a str; wanted one number an example"),
    "above": ({"weights": [1, 2, 3], "largest_weight": 2}, "`largest_weight` is 2, but an example .* has weight 3"),
    "no largest": ({"weights": [1, 2, 3], "largest_weight": 0}, "`largest_weight` is 0; wanted a finite number above"),
    "alone": ({"largest_weight": 2}, "`largest_weight` is given, but no `weights`"),
    "nothing left": ({"weights": [0, 0, 0]}, "No example of 'certify' is covered by 'truth' with a weight above 0"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_that_are_refused(case):
    settings, message = BAD_WEIGHTS[case]
    with pytest.raises(InvalidInput, match=message):
        certify(Said(), TRUTH, rows([0.9, 0.9, 0.9]), **settings)


def test_a_group_that_never_comes_in_use_is_told():
    data = rows([0.9] * 4, context=torch.tensor([0, 0, 1, 1]))
    constraint = SafetyConstraint("s", TruthProbability(), 0.5, mix={0: 0.3, 1: 0.7})
    with pytest.raises(InvalidInput, match=r"'s': all examples of a group have weight 0 in 'certify'.* Give it weight"):
        certify(Said(), constraint, data, weights=[1, 1, 0, 0], largest_weight=1)


def test_weights_go_with_a_worst_mix_of_contexts():
    context, weight = torch.arange(200) % 2, np.random.default_rng(0).uniform(0.5, 1, 200)
    data = rows(VALUES, context=context)
    constraint = SafetyConstraint("s", TruthProbability(), 0.5, mix={0: 0.3, 1: 0.7}, worst=KLBall(0.1))
    found = certify(Said(), constraint, data, weights=weight, largest_weight=1)
    means = [np.average(VALUES[c::2], weights=weight[c::2]) for c in (0, 1)]
    q = KLBall(0.1).worst(means, [0.3, 0.7])
    assert found.estimate == pytest.approx(float(q @ means))
    assert found.lower_bound < found.estimate
    assert found.averages[0].mix == {"0": 0.3, "1": 0.7}
    assert found.averages[0].worst.startswith("KLBall(radius=0.1")


# ---- several constraints --------------------------------------------------------------------------------------


def each_context(thresholds):
    return [SafetyConstraint(f"c{i}", Recall(), t, contexts=[i]) for i, t in enumerate(thresholds)]


def counts(*pairs) -> kd.Split:
    """Return data in which context i has n cases, s of them right."""
    p = np.concatenate([np.where(np.arange(n) < s, 0.9, 0.1) for s, n in pairs])
    return rows(p, context=torch.tensor(np.repeat(np.arange(len(pairs)), [n for _, n in pairs])))


def test_holm_decides_by_the_p_values_of_the_binomial_tests():
    """Against scipy's p-values and Holm's rule for them, on random counts."""
    rng = np.random.default_rng(0)
    for _ in range(12):
        right = rng.integers(85, 101, 4)
        found = certify(Said(), each_context([0.9] * 4), counts(*((int(s), 100) for s in right)))
        adjusted = kd.safety.adjust_p_values(binom.sf(right - 1, 100, 0.9))
        assert [c.decision == "safe" for c in found] == (adjusted <= 0.05).tolist()


def test_what_is_stated_of_several_constraints():
    two, data = each_context([0.9, 0.9]), counts((100, 100), (95, 99))
    one_by_one = [certify(Said(), c, data) for c in two]
    assert [c.decision for c in one_by_one] == ["safe", "safe"]
    bonferroni = certify(Said(), two, data, correction="bonferroni")
    assert [c.decision for c in bonferroni] == ["safe", "not_shown"]
    assert [c.lower_bound for c in bonferroni] == pytest.approx(
        [clopper_pearson_lower_bound(s, n, 0.975) for s, n in ((100, 100), (95, 99))]
    )
    holm = certify(Said(), two, data)
    assert [c.decision for c in holm] == ["safe", "safe"]  # after the first, the second is tested at the whole level
    assert [c.level for c in holm] == pytest.approx([0.975, 0.95])
    assert {(c.family, c.correction, c.confidence) for c in holm} == {(2, "holm", 0.95)}
    assert holm[0].lower_bound == bonferroni[0].lower_bound
    assert holm[1].lower_bound == 0.9
    assert "Holm over 2 constraints" in str(holm[0])
    each = certify(Said(), two, data, correction=None)
    assert [c.lower_bound for c in each] == [c.lower_bound for c in one_by_one]
    assert {(c.family, c.correction) for c in each} == {(1, "none")}


def test_of_those_safe_while_others_are_not_no_more_is_stated_than_required():
    found = certify(Said(), each_context([0.9, 0.9]), counts((100, 100), (80, 100)))
    assert [c.decision for c in found] == ["safe", "not_shown"]
    assert found[0].lower_bound == 0.9
    assert found[1].lower_bound == pytest.approx(clopper_pearson_lower_bound(80, 100, 0.95))


def test_all_bounds_of_holm_hold_at_once():
    """Truths around the thresholds; that any bound of three is above its truth happens at most 5 % of the time."""
    rng, truth, wrong, runs = np.random.default_rng(0), np.array([0.88, 0.9, 0.97]), 0, 2000
    table = {d: bound_rows("clopper_pearson", np.tri(81, 80, -1), 1 - 0.05 / d) for d in (1, 2, 3)}
    for _ in range(runs):
        right = rng.binomial(80, truth)
        at = [lambda d, s=s: float(table[d][s]) for s in right]
        wrong += any(low > t for (_, low, _), t in zip(decide_together(at, [0.9] * 3, "holm"), truth, strict=True))
    assert wrong / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_holm_is_the_closed_test_where_bounds_do_not_fall_with_the_error():
    """By brute force: safe is what some bound rejects in every family that holds it, at the error of that family."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        low_id = rng.random((4, 4)).cumsum(1)[:, ::-1] / 4  # falls in d
        decided = decide_together([lambda d, row=row: float(row[d - 1]) for row in low_id], [0.5] * 4, "holm")
        families = [f for k in range(1, 5) for f in combinations(range(4), k)]
        rejected = {f: any(low_id[i, len(f) - 1] >= 0.5 for i in f) for f in families}
        assert [d.safe for d in decided] == [all(rejected[f] for f in families if i in f) for i in range(4)]
    jumpy = [lambda d: 0.4 if d == 1 else 0.9, lambda d: 0.1]
    assert [d.safe for d in decide_together(jumpy, [0.5, 0.5], "holm")] == [False, False]


REFUSED = {
    "nothing": ([], {}, "`constraint` is an empty list"),
    "no constraint": ("recall", {}, "`constraint` is a str; wanted a constraint such as"),
    "one is none": ([RECALL, 3], {}, "`constraint` is a list"),
    "an equality": ([RECALL, SafetyConstraint("e", Recall(), exactly=0.5)], {}, "'e' asks for exactly 0.5"),
    "a correction": ([RECALL, TRUTH], {"correction": "sidak"}, "`correction` is 'sidak'; wanted 'holm', 'bonferroni'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_families_that_are_refused(case):
    constraints, settings, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        certify(Said(), constraints, rows([0.9, 0.9]), **settings)
