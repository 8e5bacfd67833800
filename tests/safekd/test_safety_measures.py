"""Safety measures and constraints: Definition VIII.2 and VIII.3, the smooth reading of recall, the averages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import recall_score

from safekd.data import Split
from safekd.errors import InvalidInput
from safekd.safety import (
    Avoids,
    Calibration,
    Custom,
    Margin,
    OneMinusBrier,
    Recall,
    SafetyConstraint,
    SafetyMeasure,
    TopK,
    TruthProbability,
    UnsafeMass,
)

MEASURES = {"truth": TruthProbability, "recall": Recall}
each_measure = pytest.mark.parametrize("kind", MEASURES)


def drawn(seed: int, B: int = 40, V: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random log-probabilities (B, V), float64, and labels (B,)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, V, generator=generator, dtype=torch.float64) * 2
    return logits.log_softmax(-1), torch.randint(V, (B,), generator=generator)


def batch_of(labels: torch.Tensor, context: torch.Tensor | None = None):
    return Split("train", torch.zeros(len(labels), 1), labels, context=context).batch()


@each_measure
@given(seed=st.integers(0, 10**6))
def test_one_off_the_critical_set_and_bounded_on_it(kind, seed):
    log_p_BV, labels = drawn(seed)
    measure = MEASURES[kind](critical=[1, 3])
    for value_B in (measure.measured(log_p_BV, labels), measure.surrogate(log_p_BV, labels)):
        off_B = (labels == 0) | (labels == 2)
        assert (value_B[off_B] == 1).all()
        assert ((value_B >= 0) & (value_B <= 1)).all()
        assert not (value_B[~off_B] == 1).all()


def test_truth_probability_is_the_probability_of_the_truth():
    log_p_BV, labels = drawn(0)
    expected = [float(log_p_BV[i, y].exp()) for i, y in enumerate(labels)]
    assert TruthProbability().measured(log_p_BV, labels).tolist() == pytest.approx(expected)
    assert torch.equal(TruthProbability().surrogate(log_p_BV, labels), TruthProbability().measured(log_p_BV, labels))


def test_truth_probability_is_concave_as_marked():
    assert TruthProbability.concave
    assert not Recall.concave
    (a, labels), (b, _) = drawn(1), drawn(2)
    middle = ((a.exp() + b.exp()) / 2).log()
    measure = TruthProbability()
    mean = (measure.measured(a, labels) + measure.measured(b, labels)) / 2
    torch.testing.assert_close(measure.measured(middle, labels), mean)


@pytest.mark.parametrize("c", range(4))
def test_recall_is_the_recall_of_the_class(c):
    log_p_BV, labels = drawn(3, B=200)
    value_B = Recall(critical=[c]).measured(log_p_BV, labels)
    expected = recall_score(labels.numpy(), log_p_BV.argmax(-1).numpy(), labels=[c], average=None)[0]
    assert float(value_B[labels == c].mean()) == pytest.approx(expected)


def test_a_tie_goes_to_the_lowest_class():
    tied = torch.log(torch.tensor([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2]]))
    assert Recall().measured(tied, torch.tensor([0, 1])).tolist() == [1, 0]


@given(seed=st.integers(0, 10**6))
def test_smooth_recall_at_sharpness_one_is_the_truth_probability(seed):
    log_p_BV, labels = drawn(seed)
    smooth = Recall(critical=[0, 2], sharpness=1.0).surrogate(log_p_BV, labels)
    torch.testing.assert_close(smooth, TruthProbability(critical=[0, 2]).surrogate(log_p_BV, labels))


def test_sharper_recall_tends_to_the_majority_which_is_recall_for_two_classes():
    log_p_BV, labels = drawn(4, B=300, V=2)
    gap = [
        float((Recall(sharpness=s).surrogate(log_p_BV, labels) - Recall().measured(log_p_BV, labels)).abs().mean())
        for s in (1, 4, 16, 64, 4096)
    ]
    assert gap == sorted(gap, reverse=True)
    assert gap[-1] < 1e-3
    three = torch.tensor([[0.4, 0.3, 0.3]]).log()  # most probable, yet no majority
    assert Recall(sharpness=4096).surrogate(three, torch.tensor([0])) < 1e-6
    assert Recall().measured(three, torch.tensor([0])) == 1


def test_smooth_recall_does_not_saturate_into_no_gradient():
    """At p(y) = 1e-9, log p(y) - log(1 - p(y)) still says which way is up."""
    logits = torch.tensor([[-20.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    Recall(sharpness=1.0).surrogate(logits.log_softmax(-1), torch.tensor([0])).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 0] > 0


@each_measure
def test_gradcheck(kind):
    log_p_BV, labels = drawn(5, B=5)
    measure = MEASURES[kind](critical=[0, 1])
    read = lambda logits: measure.surrogate(logits.log_softmax(-1), labels)  # noqa: E731
    assert torch.autograd.gradcheck(read, (log_p_BV.clone().requires_grad_(),))


@each_measure
def test_positions(kind):
    log_p_BV, labels = drawn(6, B=12)
    measure = MEASURES[kind](critical=[0])
    folded = measure.measured(log_p_BV.reshape(3, 4, 4), labels.reshape(3, 4))
    assert torch.equal(folded.flatten(), measure.measured(log_p_BV, labels))


@each_measure
def test_every_class_is_critical_unless_some_are_named(kind):
    labels = torch.tensor([[0, 5], [2, 1]])
    assert MEASURES[kind]().is_critical(labels).all()
    assert MEASURES[kind]([5, 2]).is_critical(labels).tolist() == [[False, True], [True, False]]
    assert repr(MEASURES[kind]([5, 2])) == f"{MEASURES[kind].__name__}(critical=[2, 5])"


def test_numbers_from_numpy_are_numbers():
    assert TruthProbability(np.array([1, 2])).critical == frozenset({1, 2})


def test_a_measure_of_ones_own():
    class Certainty(SafetyMeasure):
        def _measured(self, log_p_V, labels):
            return log_p_V.amax(-1).exp()

    log_p_BV, labels = drawn(7)
    value_B = Certainty(critical=[2]).surrogate(log_p_BV, labels)
    assert torch.equal(value_B, torch.where(labels == 2, log_p_BV.amax(-1).exp(), torch.ones(40, dtype=torch.float64)))


REFUSED = {
    "empty": ([], "`critical` is empty, so nothing would be measured; name at least one class, or leave it out"),
    "negative": ([-1], r"`critical` is \[-1\]; wanted class numbers, integers from 0"),
    "real": ([0.0], r"`critical` is \[0.0\]"),
    "bool": ([True], r"`critical` is \[True\]"),
    "text": ("0", r"`critical` is \['0'\]"),
    "one number": (0, r"`critical` is 0; wanted a list of class numbers, such as \[0\]"),
}


@pytest.mark.parametrize("case", REFUSED)
@each_measure
def test_critical_classes_that_are_none(case, kind):
    critical, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        MEASURES[kind](critical)


@pytest.mark.parametrize("sharpness", [0.0, -1.0, float("inf"), float("nan")])
def test_a_sharpness_that_is_none(sharpness):
    with pytest.raises(InvalidInput, match=r"`sharpness` is .*; it must be above 0 and finite"):
        Recall(sharpness=sharpness)


@each_measure
def test_labels_that_do_not_fit(kind):
    with pytest.raises(InvalidInput, match=r"Labels of shape \(2,\) do not fit distributions of shape \(3, 4\)"):
        MEASURES[kind]().measured(torch.zeros(3, 4), torch.zeros(2, dtype=torch.long))


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(sorted(MEASURES)))
def test_the_two_averages_are_related_as_said(seed, kind):
    """safety_all = 1 - share_of_critical (1 - safety_critical)."""
    log_p_BV, labels = drawn(seed)
    batch = batch_of(labels)
    on_critical = SafetyConstraint("s", MEASURES[kind]([0, 1]), 0.9)
    on_all = SafetyConstraint("s", MEASURES[kind]([0, 1]), 0.9, average="all")
    for reading in (0, 1):
        some, every = on_critical.sums(log_p_BV, batch), on_all.sums(log_p_BV, batch)
        assert int(every[2]) == 40
        share = int(some[2]) / int(every[2])
        safety = float(some[reading] / some[2])
        assert float(every[reading] / every[2]) == pytest.approx(1 - share * (1 - safety), abs=1e-12)


def test_sums_by_hand():
    p_BV = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], dtype=torch.float64)
    batch = batch_of(torch.tensor([0, 0, 1, 0]), context=torch.tensor([0, 1, 0, 2]))
    smooth, exact, count = SafetyConstraint("s", Recall([0], sharpness=1.0), 0.9).sums(p_BV.log(), batch)
    assert (float(smooth), float(exact), int(count)) == (pytest.approx(0.9 + 0.2 + 0.3), 1, 3)
    some = SafetyConstraint("s", Recall([0], sharpness=1.0), 0.9, contexts=[0, 2])
    assert some.covers(batch).tolist() == [True, False, False, True]
    smooth, exact, count = some.sums(p_BV.log(), batch)
    assert (float(smooth), float(exact), int(count)) == (pytest.approx(0.9 + 0.3), 1, 2)
    every = SafetyConstraint("s", Recall([0]), 0.9, contexts=[0], average="all")
    assert every.covers(batch).tolist() == [True, False, True, False]
    assert float(every.sums(p_BV.log(), batch)[1]) == 2  # one recalled, one not critical


def test_sums_add_up_over_batches():
    log_p_BV, labels = drawn(8)
    rule = SafetyConstraint("s", TruthProbability([0]), 0.9)
    whole = torch.stack([x.double() for x in rule.sums(log_p_BV, batch_of(labels))])
    halves = [rule.sums(log_p_BV[part], batch_of(labels[part])) for part in (slice(0, 17), slice(17, 40))]
    parts = sum(torch.stack([x.double() for x in half]) for half in halves)
    torch.testing.assert_close(whole, parts)


def test_only_the_surrogate_has_a_gradient_and_only_where_covered():
    log_p_BV, labels = drawn(9)
    logits = log_p_BV.clone().requires_grad_()
    batch = batch_of(labels, context=torch.arange(40) % 2)
    rule = SafetyConstraint("s", Recall([0]), 0.9, contexts=[1])
    smooth, exact, _ = rule.sums(logits.log_softmax(-1), batch)
    assert not exact.requires_grad
    smooth.backward()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, rule.covers(batch))


def test_contexts_cover_all_positions_of_their_sequences():
    labels = torch.tensor([[0, 1, 0], [0, 0, 1]])
    batch = Split("train", torch.zeros(2, 1), labels, context=torch.tensor([1, 0])).batch()
    rule = SafetyConstraint("s", TruthProbability([0]), 0.9, contexts=[1])
    assert rule.covers(batch).tolist() == [[True, False, True], [False, False, False]]


def test_nobody_covered_sums_to_zero():
    log_p_BV, _ = drawn(10)
    sums = SafetyConstraint("s", TruthProbability([3]), 0.9).sums(log_p_BV, batch_of(torch.zeros(40, dtype=torch.long)))
    assert [float(x) for x in sums] == [0, 0, 0]


def test_another_threshold():
    rule = SafetyConstraint("s", TruthProbability([0]), 0.9, contexts=[1], split="audit", average="all")
    changed = rule.at(0.5)
    assert changed.at_least == 0.5
    assert changed.at(0.9) == rule
    with pytest.raises(InvalidInput, match=r"at_least is 1.5"):
        rule.at(1.5)


BAD_CONSTRAINTS = {
    **{
        f"at_least {value}": (
            {"at_least": value},
            f"Safety constraint 'malignant': at_least is {value!r}; safety is a number between 0 and 1",
        )
        for value in (-0.1, 0, 0.0, 1.0001, 95, float("nan"), float("inf"), "0.9", None)
    },
    "name": ({"name": ""}, "needs a name: tables and CSV columns are called after it"),
    "measure": ({"measure": Recall}, r"measure is a \w+; wanted a safety measure such as kd.safety.TruthProbability"),
    "average": ({"average": "mean"}, "average is 'mean'; wanted 'critical' or 'all'"),
    "contexts": ({"contexts": []}, "contexts is empty, so nobody is covered; name at least one context, or leave"),
}


@pytest.mark.parametrize("case", BAD_CONSTRAINTS)
def test_constraints_that_are_refused(case):
    settings, message = BAD_CONSTRAINTS[case]
    with pytest.raises(InvalidInput, match=message):
        SafetyConstraint(**{"name": "malignant", "measure": Recall([0]), "at_least": 0.9, **settings})


def test_a_threshold_of_one_is_allowed():
    assert SafetyConstraint("s", Recall([0]), 1).at_least == 1
