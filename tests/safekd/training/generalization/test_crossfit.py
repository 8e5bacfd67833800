"""Cross-fitting: what is read out of fold, what is made of it, where thresholds go, and how often that suffices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

import safekd as kd
from safekd.errors import InvalidInput
from safekd.safety import clopper_pearson_lower_bound, skew_adjusted_t_lower_bound
from safekd.teachers import StoredTeacher
from safekd.training import interpolate_threshold
from safekd.training.generalization._fold_assignment import assign_folds
from safekd.training.generalization._fold_search import Bracket, SearchSettings
from tests.support.problems import at_least, same, state, trainer_for


def noisy(seed: int = 0, size: int = 60, name: str = "train") -> tuple[kd.Split, list[StoredTeacher]]:
    """Few cases and many inputs, so that students overfit; teachers say their stored rows."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (size,), generator=draw)
    inputs = torch.randn(size, 8, generator=draw, dtype=torch.float64)
    inputs[:, 0] += 1.5 * (1 - 2 * labels)
    truth = torch.nn.functional.one_hot(labels, 2).double()
    return kd.Split(name, inputs, labels), [StoredTeacher("s", 0.25 + 0.5 * truth)]


def fresh(teachers: list[StoredTeacher], s: float, **more) -> kd.ConstrainedTrainer:
    torch.manual_seed(1)
    student = torch.nn.Linear(8, 2).double()
    return trainer_for(at_least(s, **more), student=student, teachers=teachers, lr=0.3)


SHORT = {"epochs": 70, "trace_every": 35}


def truth_of(student: torch.nn.Module, split: kd.Split) -> torch.Tensor:
    p = torch.softmax(student(split.inputs), -1)[:, 0]
    return p[split.labels == 0].detach()


def fold_students(train, teachers, posed: float, count: int):
    """Every fold again, by a trainer of its own, on what is left without it."""
    fold_N = assign_folds(train, count, 0)
    for k in range(count):
        alone = fresh(teachers, posed).fit(train.part(torch.arange(len(train))[fold_N != k]), **SHORT)
        yield alone.student, train.part(torch.arange(len(train))[fold_N == k])


def test_out_of_fold_is_what_students_show_that_never_saw_the_fold():
    train, teachers = noisy()
    rule = kd.CrossFit(folds=3, rounds=1, confidence=0.9)
    result = fresh(teachers, 0.8).fit(train, tighten=rule, **SHORT)
    values = torch.cat([truth_of(student, out) for student, out in fold_students(train, teachers, 0.8, 3)])
    row, final = result.tightening.rounds.to_dict("records")
    assert row["judged"] == pytest.approx(float(values.mean()), abs=1e-12)
    assert row["lower_bound"] == pytest.approx(skew_adjusted_t_lower_bound(values, 0.9), abs=1e-12)
    assert (row["cases"], row["level"]) == (int((train.labels == 0).sum()), 0.9)
    assert row["judged"] < 0.79 < row["measured"]  # overfitted: this is the gap that a constraint does not see
    assert (row["kept"], final["kept"]) == (False, True)
    assert math.isnan(final["judged"])  # nothing is left to judge what was trained on everything


def test_further_splits_count_each_example_once_read_by_all_students():
    train, teachers = noisy()
    judge, _ = noisy(seed=5, size=90, name="judge")
    rule = kd.CrossFit(folds=3, rounds=1, confidence=0.9, also=["judge"])
    result = fresh(teachers, 0.8).fit(train, splits={"judge": judge}, tighten=rule, **SHORT)
    students = list(fold_students(train, teachers, 0.8, 3))
    out = torch.cat([truth_of(student, part) for student, part in students])
    more = torch.stack([truth_of(student, judge) for student, _ in students]).mean(0)
    row = result.tightening.rounds.iloc[0]
    assert row["cases"] == len(out) + len(more)
    assert row["judged"] == pytest.approx(float(torch.cat([out, more]).mean()), abs=1e-12)
    assert row["lower_bound"] == pytest.approx(skew_adjusted_t_lower_bound(torch.cat([out, more]), 0.9), abs=1e-12)
    assert result.tightening.looks == 1
    assert str(result.uses[1]) == "judge (90 examples): 1 look to raise thresholds"
    with pytest.raises(InvalidInput, match="'judge' for 1 look to raise thresholds"):
        kd.certify(result, at_least(0.8), judge)


def test_a_further_split_with_training_examples_is_refused():
    train, teachers = noisy()
    judge = kd.Split("judge", train.inputs[:7], train.labels[:7])
    with pytest.raises(InvalidInput, match="'judge' shares 7 of its 7 examples with 'train'"):
        fresh(teachers, 0.8).fit(train, splits={"judge": judge}, tighten=kd.CrossFit(folds=2, also=["judge"]), **SHORT)


def test_splits_are_told_apart_by_what_they_are_not_by_name():
    train, teachers = noisy()
    judge, _ = noisy(seed=5)  # calls itself "train" too
    rule = kd.CrossFit(folds=2, rounds=1, also=["judge"])
    result = fresh(teachers, 0.8).fit(train, splits={"judge": judge}, tighten=rule, **SHORT)
    assert [use.split is split for use, split in zip(result.uses, (train, judge), strict=True)] == [True, True]
    assert [use.looks for use in result.uses] == [0, 1]


def test_measures_of_right_or_wrong_get_the_binomial_bound():
    train, teachers = noisy()
    rule = kd.SafetyConstraint("recall", measure=kd.safety.Recall(critical=[0]), at_least=0.7)
    made = fresh(teachers, 0.8).with_constraints([rule])
    row = made.fit(train, tighten=kd.CrossFit(folds=3, rounds=1), **SHORT).tightening.rounds.iloc[0]
    right = round(row["judged"] * row["cases"])
    assert row["lower_bound"] == pytest.approx(clopper_pearson_lower_bound(right, row["cases"], 0.975))


def test_the_threshold_is_where_the_bound_meets_what_was_asked_for():
    train, teachers = noisy(size=200)
    rows = []
    rule = kd.CrossFit(folds=3, rounds=6, confidence=0.9)
    result = fresh(teachers, 0.8).fit(train, tighten=rule, on_round=rows.append, **SHORT)
    raised = result.tightening
    (kept,) = raised.rounds[raised.rounds["kept"]].to_dict("records")
    assert (raised.status, raised.on, raised.looks) == ("cleared", "crossfit", 0)
    assert len(rows) == len(raised.rounds) <= 7
    assert kept["posed"] == raised.posed["first"] > 0.8
    again = torch.cat([truth_of(*one) for one in fold_students(train, teachers, kept["posed"], 3)])
    assert skew_adjusted_t_lower_bound(again, 0.9) == pytest.approx(0.8, abs=0.006)  # `excess` and an interpolation
    alone = fresh(teachers, kept["posed"]).fit(train, **SHORT)
    assert same(state(result.student), state(alone.student))  # begun afresh, not where a fold ended
    assert "An approximate bound, no certificate." in result.message
    assert f"cross-fitting, 3 folds x {len(rows) - 1} rounds" in str(result.uses[0])


def test_the_same_twice_and_more_confidence_asks_for_more():
    train, teachers = noisy(size=200)
    posed = [
        fresh(teachers, 0.8).fit(train, tighten=kd.CrossFit(folds=3, confidence=c), **SHORT).tightening.posed["first"]
        for c in (0.5, 0.9, 0.9, 0.99)
    ]
    assert posed[1] == posed[2]
    assert posed[0] < posed[1] < posed[3]


def test_at_one_half_the_average_itself_is_what_counts():
    train, teachers = noisy(size=200)
    row = fresh(teachers, 0.8).fit(train, tighten=kd.CrossFit(confidence=0.5), **SHORT).tightening.rounds.iloc[0]
    assert row["lower_bound"] == pytest.approx(row["judged"], abs=2e-3)


def test_cross_fitting_that_cannot_clear_says_so():
    train, teachers = noisy()
    result = fresh(teachers, 0.8).fit(
        train, epochs=40, trace_every=20, tighten=kd.CrossFit(folds=2, rounds=4, highest=0.801)
    )
    assert result.status == "not_cleared"
    assert result.tightening.rounds["posed"].tolist() == pytest.approx([0.8, 0.801, 0.801])  # no higher is allowed
    assert result.next_move == (
        "Raise `highest`, now 0.801, lower `confidence`, now 0.975, name a further split in `also`, "
        "give more training examples, or ask for less."
    )


def test_advice_names_what_was_not_done_already():
    train, teachers = noisy()
    once = kd.CrossFit(folds=2, rounds=1, confidence=0.9)
    result = fresh(teachers, 0.8).fit(train, epochs=40, trace_every=20, tighten=once)
    assert result.status == "not_cleared", result.message
    assert result.next_move.startswith("Give more `rounds` than 1, lower `confidence`, now 0.9, name a further split")


def test_each_threshold_is_raised_by_itself():
    """The easy class clears as asked, and stays there while the other one rises."""
    train, teachers = noisy(size=200)
    truth = [kd.safety.TruthProbability(critical=[c]) for c in (0, 1)]
    rules = [
        kd.SafetyConstraint("easy", measure=truth[0], at_least=0.55),
        kd.SafetyConstraint("hard", measure=truth[1], at_least=0.8),
    ]
    made = fresh(teachers, 0.8).with_constraints(rules)
    raised = made.fit(train, tighten=kd.CrossFit(folds=3), **SHORT).tightening
    assert raised.posed["easy"] == 0.55
    assert raised.posed["hard"] > 0.8
    assert raised.rounds.groupby("constraint")["posed"].nunique()["hard"] > 1
    assert raised.status == "cleared"


def test_fewer_than_two_cases_cannot_show_their_spread():
    train, teachers = noisy()
    one = kd.Split("train", train.inputs, torch.ones(60, dtype=torch.long).index_fill(0, torch.tensor([4]), 0))
    with pytest.raises(InvalidInput, match=r"Without fold \d of 2, .* constraint 'first' covers no example"):
        fresh(teachers, 0.8).fit(one, tighten=kd.CrossFit(folds=2), **SHORT)


def test_folds_are_even_in_every_class_and_each_example_is_in_one():
    labels = torch.tensor([0] * 20 + [1] * 7 + [2] * 3)
    train = kd.Split("train", torch.zeros(30, 1), labels)
    fold_N = assign_folds(train, 3, 0)
    assert torch.bincount(fold_N).tolist() == [10, 10, 10]
    for c in range(3):
        counts = torch.bincount(fold_N[labels == c], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert not torch.equal(fold_N, assign_folds(train, 3, 1))
    sequences = kd.Split("t", torch.zeros(8, 5), torch.zeros(8, 5).long())
    assert torch.bincount(assign_folds(sequences, 4, 0)).tolist() == [2] * 4


def test_what_a_constraint_covers_is_spread_over_the_folds():
    """Two cases by night are in two folds, whatever the seed, so that every fold's student has one to be trained on."""
    context = torch.zeros(40, dtype=torch.long).index_fill(0, torch.tensor([3, 29]), 1)
    train = kd.Split("train", torch.randn(40, 1), torch.arange(40) % 4, context=context)
    rules = [kd.SafetyConstraint("night", kd.safety.TruthProbability(), 0.6, contexts=[1])]
    tags = kd.Split("train", torch.randn(40, 6), (torch.arange(40) == 7).long().reshape(40, 1).repeat(1, 6).flip(1))
    tags.labels[11, 2] = 1
    tagged = [kd.SafetyConstraint("tag", kd.safety.TruthProbability([1]), 0.6)]
    for seed in range(30):
        assert len(set(assign_folds(train, 4, seed, rules)[context == 1].tolist())) == 2
        assert len(set(assign_folds(tags, 4, seed, tagged)[torch.tensor([7, 11])].tolist())) == 2


def test_many_constraints_are_spread_each():
    context = torch.arange(60) % 10
    train = kd.Split("train", torch.randn(60, 1), torch.arange(60) // 30, context=context)
    rules = kd.safety.constrain_each_context("c", kd.safety.TruthProbability([0]), 0.6, contexts=range(10))
    for seed in range(10):
        fold_N = assign_folds(train, 3, seed, rules)
        assert torch.bincount(fold_N).tolist() == [20, 20, 20]
        for c in range(10):
            counts = torch.bincount(fold_N[(context == c) & (train.labels == 0)], minlength=3)
            assert counts.max() < 3  # of three, not all in one fold


def test_a_cluster_is_in_one_fold():
    cluster = torch.arange(60) // 4
    train = kd.Split("train", torch.randn(60, 1), torch.arange(60) % 2, cluster=cluster)
    fold_N = assign_folds(train, 5, 0)
    assert all(len(set(fold_N[cluster == c].tolist())) == 1 for c in range(15))
    assert torch.bincount(fold_N).tolist() == [12] * 5
    with pytest.raises(InvalidInput, match="2 clusters of examples cannot make 3 folds"):
        assign_folds(kd.Split("t", torch.zeros(6, 1), torch.zeros(6).long(), cluster=torch.arange(6) // 3), 3, 0)
    alone = kd.Split("t", torch.zeros(6, 1), torch.tensor([0, 0, 1, 1, 1, 1]), cluster=torch.arange(6) // 2)
    rule = kd.SafetyConstraint("c", kd.safety.TruthProbability([0]), 0.6)
    with pytest.raises(InvalidInput, match="holds the only cluster that it covers, constraint 'c' covers no example"):
        assign_folds(alone, 3, 0, [rule])


def test_a_fold_that_diverges_ends_the_search_with_what_was_found_before():
    train, teachers = noisy()
    made = fresh(teachers, 0.8)
    before = made.problem.optimizer.step
    steps = [0]

    def step(*args, **kwargs):
        before(*args, **kwargs)
        steps[0] += 1
        if steps[0] == 20:  # in the second round
            with torch.no_grad():
                made.student.bias.fill_(float("nan"))

    made.problem.optimizer.step = step
    result = made.fit(train, epochs=8, trace_every=8, tighten=kd.CrossFit(folds=2, rounds=3))
    rounds = result.tightening.rounds
    assert "diverged" in rounds["status"].iloc[1]
    assert rounds["kept"].tolist() == [False, False, True]
    assert rounds["posed"].iloc[2] == rounds["posed"].iloc[0]
    assert result.status == "not_cleared"
    assert torch.isfinite(result.student.bias).all()  # the one handed back was trained afresh


# ---- the search alone ----


@given(st.floats(0.2, 1.0), st.floats(0.01, 0.6), st.floats(-0.3, 0.3))
@settings(max_examples=200, deadline=None)
def test_a_smooth_shortfall_is_found_in_few_rounds(slope, root, bend):
    """Shortfalls that fall with the share, bent up or down."""
    bracket, share = Bracket(SearchSettings()), 0.0
    shortfall = lambda x: slope * (root - x) * (1 + bend * (x - root))  # noqa: E731
    for _ in range(8):
        bracket.add(share, shortfall(share))
        if abs(shortfall(share)) < 1e-3:
            break
        share = bracket.next_share()
    share, cleared = bracket.interpolate(1e-3)
    assert cleared
    assert share == pytest.approx(root, abs=0.02)


def test_what_contradicts_is_forgotten():
    bracket = Bracket(SearchSettings())
    bracket.add(0.3, -0.1)
    bracket.add(0.4, 0.05)  # fails where less had cleared: another constraint has moved
    assert bracket.cleared is None
    assert bracket.next_share() > 0.4
    bracket.add(0.2, -0.01)
    assert bracket.failed is None


# ---- how often what is asked for is met ----


def miss_rate(confidence: float, runs: int, bound=skew_adjusted_t_lower_bound) -> float:
    """Return how often the search ends at a share whose true value is below what was asked for.

    Values at a share are Beta with a mean that rises with the share, the same quantiles of luck at every share.
    """
    asked, wrong = 0.8, 0
    rng, grid = np.random.default_rng(4), np.linspace(0, 1, 41)
    tables = [_beta_table(0.72 + 0.2 * share) for share in grid]
    for _ in range(runs):
        luck = rng.integers(0, 1000, size=100)
        shares = iter(zip(grid, tables, strict=True))
        share = next((p for p, table in shares if bound(table[luck], confidence) >= asked), 1.0)
        wrong += 0.72 + 0.2 * share < asked - 0.005 / 2  # half a step of the grid
    return wrong / runs


def _beta_table(mean: float) -> np.ndarray:
    from scipy.stats import beta

    return np.asarray(beta.ppf((np.arange(1000) + 0.5) / 1000, 4 * mean, 4 * (1 - mean)))


def plain_t(values: np.ndarray, confidence: float) -> float:
    n = len(values)
    return float(values.mean() - t.ppf(confidence, n - 1) * values.std(ddof=1) / n**0.5)


def test_it_falls_short_about_as_often_as_its_confidence_says():
    runs = 600
    for confidence in (0.9, 0.975):
        alpha = 1 - confidence
        rate = miss_rate(confidence, runs)
        assert rate <= alpha + 3 * (alpha * confidence / runs) ** 0.5
    assert miss_rate(0.5, runs) > 0.35  # the average alone misses in nearly half of all runs: the judge can say no


def test_the_bound_that_is_corrected_for_skewness_is_the_lower_one():
    values = _beta_table(0.93)[np.random.default_rng(0).integers(0, 1000, size=60)]
    assert skew_adjusted_t_lower_bound(values, 0.95) < plain_t(values, 0.95)
    assert skew_adjusted_t_lower_bound(1 - values, 0.95) == pytest.approx(plain_t(1 - values, 0.95))  # to the right
    assert skew_adjusted_t_lower_bound([0.5, 0.5], 0.95) == 0.5


@pytest.mark.parametrize(
    ("values", "confidence", "message"),
    [
        ([0.5], 0.9, "1 values cannot show their spread"),
        ([0.1, float("nan")], 0.9, "all finite"),
        ([0, 1], 1.0, "is 1.0"),
    ],
)
def test_a_bound_of_too_little_is_refused(values, confidence, message):
    with pytest.raises(InvalidInput, match=message):
        skew_adjusted_t_lower_bound(values, confidence)


def test_shares_are_thresholds_in_even_log_odds():
    odds = [math.log(p / (1 - p)) for p in (interpolate_threshold(0.9, 0.99, share) for share in np.linspace(0, 1, 5))]
    assert np.diff(odds) == pytest.approx((odds[-1] - odds[0]) / 4)
    assert interpolate_threshold(0.9, 0.99, 0.0) == 0.9
    assert interpolate_threshold(0.9, 0.99, 1.0) == pytest.approx(0.99, abs=1e-15)


def test_a_margin_asks_the_judging_data_for_that_much_more():
    """Cross-fitting for .7 with a margin of .05 is cross-fitting for .75, and the run is judged by .7."""
    train, teachers = noisy()
    with_margin = fresh(teachers, 0.7).fit(
        train, tighten=kd.CrossFit(folds=3, rounds=2, margin=0.05, highest=0.97), **SHORT
    )
    for_more = fresh(teachers, 0.75).fit(train, tighten=kd.CrossFit(folds=3, rounds=2, highest=0.97), **SHORT)
    rounds, others = with_margin.tightening.rounds, for_more.tightening.rounds
    assert rounds["asked"].tolist() == pytest.approx([0.75] * len(rounds))
    found, wanted = (table[["posed", "judged"]].to_numpy() for table in (rounds, others))
    assert found == pytest.approx(wanted, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("method", [kd.CrossFit, kd.Tighten])
def test_a_margin_that_is_none_is_refused(method):
    for margin in (-0.1, 1.0, math.nan):
        with pytest.raises(InvalidInput, match="`margin` is"):
            method(margin=margin)


def test_a_margin_beyond_what_can_be_is_refused():
    train, teachers = noisy()
    with pytest.raises(InvalidInput, match=r"asks for 0\.8, and `margin` is 0\.2; wanted a sum below 1"):
        fresh(teachers, 0.8).fit(train, tighten=kd.CrossFit(folds=3, rounds=1, margin=0.2), **SHORT)
