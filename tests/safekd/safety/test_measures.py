"""Safety measures and constraints: Definition VIII.2 and VIII.3, the smooth reading of recall, the averages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import recall_score

from safekd.errors import InvalidInput
from safekd.safety import (
    Avoids,
    Calibration,
    Counted,
    Custom,
    LogTruthProbability,
    Margin,
    OneMinusBrier,
    Recall,
    SafetyMeasure,
    TopK,
    TruthProbability,
    UnsafeMass,
)


def squared(log_p_V, labels):
    return TruthProbability().measured(log_p_V, labels) ** 2


def lead_of_the_truth(log_p_V, labels):
    """Return the log-odds of the truth against class 1."""
    return log_p_V.gather(-1, labels[..., None])[..., 0] - log_p_V[..., 1]


MEASURES = {
    "truth": TruthProbability,
    "margin": Margin,
    "brier": OneMinusBrier,
    "unsafe mass": lambda critical=None: UnsafeMass([0, 2], critical),
    "calibration": lambda critical=None: Calibration(1, critical),
    "recall": Recall,
    "top 2": lambda critical=None: TopK(2, critical),
    "avoids": lambda critical=None: Avoids([0, 2], critical),
    "counted": lambda critical=None: Counted(lead_of_the_truth, critical=critical),
    "custom": lambda critical=None: Custom(squared, squared, critical=critical),
}
NAMES = {
    "truth": "TruthProbability(",
    "margin": "Margin(",
    "brier": "OneMinusBrier(",
    "unsafe mass": "UnsafeMass(unsafe=[0, 2], ",
    "calibration": "Calibration(of=1, ",
    "recall": "Recall(",
    "top 2": "TopK(k=2, ",
    "avoids": "Avoids(unsafe=[0, 2], ",
    "counted": "Counted(",
    "custom": "Custom(",
}
each_measure = pytest.mark.parametrize("kind", MEASURES)


def drawn(seed: int, B: int = 40, V: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random log-probabilities (B, V), float64, and labels (B,)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, V, generator=generator, dtype=torch.float64) * 2
    return logits.log_softmax(-1), torch.randint(V, (B,), generator=generator)


@each_measure
@given(seed=st.integers(0, 10**6))
def test_one_off_the_critical_set_and_bounded_on_it(kind, seed):
    log_p_BV, labels = drawn(seed)
    measure = MEASURES[kind](critical=[1, 3])
    for value_B in (measure.measured(log_p_BV, labels), measure.surrogate(log_p_BV, labels)):
        off_B = (labels == 0) | (labels == 2)
        assert (value_B[off_B] == 1).all()
        assert ((value_B >= 0) & (value_B <= 1)).all()
        assert (value_B[~off_B] < 1).any()


def test_truth_probability_is_the_probability_of_the_truth():
    log_p_BV, labels = drawn(0)
    expected = [float(log_p_BV[i, y].exp()) for i, y in enumerate(labels)]
    assert TruthProbability().measured(log_p_BV, labels).tolist() == pytest.approx(expected)
    assert torch.equal(TruthProbability().surrogate(log_p_BV, labels), TruthProbability().measured(log_p_BV, labels))


def jensen_gap(measure: SafetyMeasure, seed: int) -> float:
    """Return the largest excess of a chord over the measured value between its ends; above 0 only if not concave."""
    (a, labels), (b, _) = drawn(seed, B=200), drawn(seed + 1000, B=200)
    t = torch.rand(200, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    between = (t * a.exp() + (1 - t) * b.exp()).log()
    chord = t[:, 0] * measure.measured(a, labels) + (1 - t[:, 0]) * measure.measured(b, labels)
    return float((chord - measure.measured(between, labels)).max())


@each_measure
def test_concave_exactly_where_marked(kind):
    gap = max(jensen_gap(MEASURES[kind](), seed) for seed in range(5))
    assert MEASURES[kind]().concave == (gap <= 1e-12), gap


def test_a_wrong_flag_would_be_seen():
    lie = Custom(squared, squared, concave=True)
    assert lie.concave
    assert jensen_gap(lie, 0) > 0.01


def test_the_smooth_ones_by_hand():
    log_p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]], dtype=torch.float64).log()
    labels = torch.tensor([0, 1])
    close = lambda *wanted: pytest.approx(list(wanted))  # noqa: E731
    assert Margin().measured(log_p, labels).tolist() == close((1 + 0.5 - 0.3) / 2, (1 + 0.3 - 0.6) / 2)
    brier = [1 - (0.25 + 0.09 + 0.04) / 2, 1 - (0.01 + 0.49 + 0.36) / 2]
    assert OneMinusBrier().measured(log_p, labels).tolist() == close(*brier)
    assert UnsafeMass([0, 2]).measured(log_p, labels).tolist() == close(0.3, 0.3)
    assert Calibration(1).measured(log_p, labels).tolist() == close((1 + 0.3) / 2, (1 + 0.3 - 1) / 2)


def test_calibration_is_one_half_where_the_class_is_believed_as_often_as_it_happens():
    labels = torch.tensor([1, 0, 0, 0])
    log_p = torch.tensor([[0.75, 0.25]], dtype=torch.float64).expand(4, 2).log()
    assert float(Calibration(1).measured(log_p, labels).mean()) == pytest.approx(0.5)


@given(seed=st.integers(0, 10**6), k=st.integers(1, 4))
def test_top_k_is_a_place_in_the_order(seed, k):
    log_p_BV, labels = drawn(seed, V=5)
    log_p_BV = (log_p_BV * 2).round() / 2  # with ties
    order = torch.argsort(log_p_BV, dim=-1, descending=True, stable=True)
    expected = (order[:, :k] == labels.unsqueeze(-1)).any(-1).double()
    assert torch.equal(TopK(k).measured(log_p_BV, labels), expected)
    if k == 1:
        assert torch.equal(Recall().measured(log_p_BV, labels), expected)
        assert torch.equal(
            Recall().surrogate(log_p_BV.log_softmax(-1), labels), TopK(1).surrogate(log_p_BV.log_softmax(-1), labels)
        )


@given(seed=st.integers(0, 10**6))
def test_a_surrogate_above_one_half_keeps_what_is_counted(seed):
    log_p_BV, labels = drawn(seed, V=5)
    for rate in (Recall(), TopK(2), TopK(3), Avoids([1]), Avoids([0, 1, 4])):
        counted = rate.measured(log_p_BV, labels)
        assert (counted[rate.surrogate(log_p_BV, labels) > 0.5] == 1).all()


def test_avoids_counts_what_is_said():
    log_p_BV, labels = drawn(11, B=200)
    said = log_p_BV.argmax(-1)
    assert torch.equal(Avoids([0, 2]).measured(log_p_BV, labels), ((said == 1) | (said == 3)).double())


@pytest.mark.parametrize("measure", [UnsafeMass([0]), OneMinusBrier(), Margin(), Calibration(0)])
def test_what_rounding_moves_out_of_bounds_still_has_a_slope(measure):
    logits = torch.randn(500, 300, generator=torch.Generator().manual_seed(0)) * 4
    logits[:, 0] += 40  # all probability on class 0, to single precision
    logits.requires_grad_()
    value = measure.measured(logits.log_softmax(-1), torch.arange(500) % 2)
    assert ((value >= 0) & (value <= 1)).all()
    gradient = torch.autograd.grad(measure.surrogate(logits.log_softmax(-1), torch.arange(500) % 2).sum(), logits)[0]
    assert torch.isfinite(gradient).all()
    assert (gradient[1::2].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("c", range(4))
def test_recall_is_the_recall_of_the_class(c):
    log_p_BV, labels = drawn(3, B=200)
    value_B = Recall(critical=[c]).measured(log_p_BV, labels)
    expected = recall_score(labels.numpy(), log_p_BV.argmax(-1).numpy(), labels=[c], average=None)[0]
    assert float(value_B[labels == c].mean()) == pytest.approx(expected)


def test_a_tie_goes_to_the_lowest_class():
    tied = torch.log(torch.tensor([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2]]))
    assert Recall().measured(tied, torch.tensor([0, 1])).tolist() == [1, 0]


@given(seed=st.integers(0, 10**6), sharpness=st.floats(0.25, 8))
def test_smooth_recall_is_one_over_one_plus_the_bits_of_the_sharpened_truth(seed, sharpness):
    log_p_BV, labels = drawn(seed)
    surrogate_B = Recall(sharpness=sharpness).surrogate(log_p_BV, labels)
    q_BV = log_p_BV.exp() ** sharpness / (log_p_BV.exp() ** sharpness).sum(-1, keepdim=True)
    torch.testing.assert_close(surrogate_B, 1 / (1 - q_BV[torch.arange(len(labels)), labels].log2()))


@given(seed=st.integers(0, 10**6), sharpness=st.floats(0.25, 8))
def test_above_one_half_a_surrogate_says_that_the_event_is_counted(seed, sharpness):
    log_p_BV, labels = drawn(seed)
    for measure in (
        Recall(sharpness=sharpness),
        TopK(2, sharpness=sharpness),
        Avoids([1, 2], sharpness=sharpness),
        Counted(lambda log_p_V, y: log_p_V[..., 0] - log_p_V[..., 1], sharpness=sharpness),
    ):
        value_B, surrogate_B = measure.measured(log_p_BV, labels), measure.surrogate(log_p_BV, labels)
        assert ((surrogate_B >= 0) & (surrogate_B <= 1)).all()
        assert (value_B[surrogate_B > 0.5] == 1).all()


def test_sharper_recall_tends_to_recall():
    log_p_BV, labels = drawn(4, B=300)
    gap = [
        float((Recall(sharpness=s).surrogate(log_p_BV, labels) - Recall().measured(log_p_BV, labels)).abs().mean())
        for s in (1, 4, 16, 64, 4096)
    ]
    assert gap == sorted(gap, reverse=True)
    assert gap[-1] < 1e-2


@pytest.mark.parametrize("V", [2, 10, 22, 100, 1000])
@pytest.mark.parametrize("lead", [0.0, 10.0, 100.0])
def test_what_is_counted_shows_the_way_to_a_fresh_student_and_to_one_that_is_surely_wrong(V, lead):
    """The gradient by the logits is a share of the one at the boundary that falls with squares, not exponentially."""
    for measure in (Recall(), TopK(min(3, V - 1)), Avoids([1])):
        logits = torch.zeros(1, V, dtype=torch.float64)
        logits[0, 1] = lead
        logits.requires_grad_()
        (gradient,) = torch.autograd.grad(measure.surrogate(logits.log_softmax(-1), torch.tensor([0])).sum(), logits)
        odds = 4 * lead + np.log(V)
        assert gradient.norm() > 0.5 / (1 + odds) ** 2, measure
        assert gradient[0, 0] >= 0


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
    assert repr(MEASURES[kind]([5, 2])) == f"{NAMES[kind]}critical=[2, 5])"
    assert repr(MEASURES[kind]()) == NAMES[kind].removesuffix(", ") + ")"


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
    "text": ("0", r"`critical` is '0'; wanted a list of class names, such as \['0'\]"),
    "one number": (0, r"`critical` is 0; wanted a list of class numbers, such as \[0\]"),
}


@pytest.mark.parametrize("case", REFUSED)
@each_measure
def test_critical_classes_that_are_none(case, kind):
    critical, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        MEASURES[kind](critical)


SETTINGS = {
    "k": (lambda: TopK(0), "`k` is 0; wanted a whole number of at least 1"),
    "k real": (lambda: TopK(1.5), "`k` is 1.5"),
    "no unsafe": (lambda: UnsafeMass([]), "`unsafe` is empty, so nothing would be measured; name at least one class."),
    "unsafe number": (lambda: Avoids(3), r"`unsafe` is 3; wanted a list of class numbers, such as \[3\]"),
    "of": (lambda: Calibration(-1), r"`of` is \[-1\]; wanted class numbers"),
    "function": (lambda: Custom(0.5, squared), r"`measured` of Custom is a float; wanted a function of \(log_p_V, lab"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_are_refused(case):
    build, message = SETTINGS[case]
    with pytest.raises(InvalidInput, match=message):
        build()


READ = {
    "unsafe beyond": (UnsafeMass([9]), "`unsafe` names class 9, but the student knows only 4 classes"),
    "avoids beyond": (Avoids([9]), "`unsafe` names class 9, but the student knows only 4 classes"),
    "avoids all": (Avoids([0, 1, 2, 3]), "`unsafe` names every one of 4 classes; leave at least one out"),
    "calibration beyond": (Calibration(4), "`of` names class 4"),
    "k": (TopK(4), r"TopK\(k=4\) says nothing of a student with 4 classes; wanted more than 4"),
    "range": (
        Custom(lambda p, y: p.sum(-1), squared, name="Mine"),
        r"`measured` of Mine gives values from -\S+ to \S+; wanted \[0, 1\]",
    ),
    "binary": (
        Custom(squared, squared, binary=True),
        "Custom is called binary, but `measured` gives other values than 0 and 1",
    ),
    "shape": (
        Custom(lambda p, y: p, squared),
        r"`measured` of Custom gives shape \(40, 4\) for labels of shape \(40,\); wanted one value a position",
    ),
    "kind": (Custom(lambda p, y: 1.0, squared), "`measured` of Custom gives a float for labels"),
}


@pytest.mark.parametrize("case", READ)
def test_readings_that_are_refused(case):
    measure, message = READ[case]
    with pytest.raises(InvalidInput, match=message):
        measure.measured(*drawn(0))


def test_the_two_functions_of_a_custom_measure_are_both_used():
    log_p_BV, labels = drawn(7)
    measure = Custom(lambda p, y: p.argmax(-1) == y, squared, binary=True, critical=[0, 1], name="Hit")
    assert torch.equal(measure.measured(log_p_BV, labels), Recall([0, 1]).measured(log_p_BV, labels))
    critical = labels < 2
    assert torch.equal(measure.surrogate(log_p_BV, labels)[critical], squared(log_p_BV, labels)[critical])
    assert repr(measure) == "Hit(critical=[0, 1])"


@pytest.mark.parametrize("at", [0, 1.5, -0.1, float("nan"), "1"])
def test_a_probability_that_is_none(at):
    with pytest.raises(
        InvalidInput, match=f"`at` of LogTruthProbability is {at!r}; wanted a probability above 0 and at"
    ):
        LogTruthProbability([0], at=at)


@pytest.mark.parametrize("sharpness", [0.0, -1.0, float("inf"), float("nan")])
def test_a_sharpness_that_is_none(sharpness):
    with pytest.raises(InvalidInput, match=r"`sharpness` is .*; it must be above 0 and finite"):
        Recall(sharpness=sharpness)


@each_measure
def test_labels_that_do_not_fit(kind):
    with pytest.raises(InvalidInput, match=r"Labels of shape \(2,\) do not fit distributions of shape \(3, 4\)"):
        MEASURES[kind]().measured(torch.zeros(3, 4), torch.zeros(2, dtype=torch.long))
