"""The readings that rules score teachers by."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from safekd.errors import InvalidInput, MissingSignal
from safekd.weights import EntropyDecay, InverseLoss, OrdinalSafety, Signals, TeacherEvidence, Uniform
from tests.support.weighting import log_p, t

EVIDENCE = TeacherEvidence(
    task_loss_MK=t([0.1, 0.2, 0.4], [1.0, 0.5, 0.25]),
    safety_CK=t([0.9, 0.5, 0.7], [0.2, 0.8, 0.8]),
    count_C=torch.tensor([5, 7]),
    source="validation",
)


@given(seed=st.integers(0, 10**6))
def test_entropy_is_scipys(seed):
    log_p_BKV = log_p(seed, 3, 2, 6)
    expected = entropy(log_p_BKV.exp().numpy(), axis=-1)
    assert Signals(log_p=log_p_BKV).entropy.numpy() == pytest.approx(expected, abs=1e-12)


def test_entropy_of_the_certain_and_of_the_clueless():
    p = t([1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0])
    assert Signals(log_p=p.log()).entropy.tolist() == pytest.approx([0, math.log(4), math.log(2)])


def test_entropy_of_nan_is_not_certainty():
    assert Signals(log_p=t([float("nan"), 0.0], [-0.7, -0.7])).entropy.isnan().tolist() == [True, False]


def test_the_gradient_of_entropy_is_finite_near_certainty():
    logits = t([800.0, 0.0, 0.0], [1.0, 0.0, 0.0]).requires_grad_()
    EntropyDecay()(Signals(log_p=logits.log_softmax(-1))).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_lookups_follow_task_and_context():
    signals = Signals(
        log_p=log_p(0, 3, 3, 4),
        task=torch.tensor([1, 0, 1]),
        context=torch.tensor([0, 1, 1]),
        evidence=EVIDENCE,
    )
    assert torch.equal(signals.task_loss, EVIDENCE.task_loss_MK[[1, 0, 1]])
    assert torch.equal(signals.safety, EVIDENCE.safety_CK[[0, 1, 1]])


def test_one_value_a_sequence_holds_for_all_its_positions():
    signals = Signals(
        log_p=log_p(0, 2, 5, 3, 4),
        labels=torch.tensor([[0, 1, 1, 2, 0], [1, 1, 1, 1, 0]]),
        task=torch.tensor([1, 0]),
        context=torch.tensor([0, 1]),
        evidence=EVIDENCE,
        critical_classes=[2],
        critical_contexts=[1],
    )
    assert signals.shape == (2, 5, 3)
    assert (signals.task_loss == EVIDENCE.task_loss_MK[[1, 0]].unsqueeze(1)).all()
    assert signals.safety.shape == (2, 5, 3)
    assert signals.critical.tolist() == [[False, False, False, True, False], [True] * 5]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({}, [False, False, False]),
        ({"critical_classes": [0]}, [True, False, False]),
        ({"critical_contexts": [1]}, [False, False, True]),
        ({"critical_classes": [0, 7], "critical_contexts": [1]}, [True, False, True]),
        ({"critical_classes": [0], "critical": torch.tensor([False, True, True])}, [False, True, True]),
    ],
)
def test_what_is_critical(named, expected):
    labels, context = torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1])
    signals = Signals(log_p=log_p(0, 3, 2, 3), labels=labels, context=context, **named)
    assert signals.critical.tolist() == expected
    assert signals.names_critical is bool(named)
    assert signals.critical is signals.critical  # worked out once


def test_evidence_of_one_context_needs_no_context():
    one = TeacherEvidence(t([0.1, 0.2]), t([0.9, 0.8]), torch.tensor([4]), "validation")
    signals = Signals(log_p=log_p(0, 3, 2, 4), evidence=one)
    assert torch.equal(signals.safety, one.safety_CK.expand(3, 2))


def test_lookups_take_the_dtype_of_the_teachers():
    signals = Signals(log_p=log_p(0, 3, 3, 4).float(), context=torch.tensor([0, 1, 1]), evidence=EVIDENCE)
    assert signals.safety.dtype == torch.float32


def test_given_outright_comes_first():
    signals = Signals(log_p=log_p(0, 2, 3, 4), evidence=EVIDENCE, entropy=torch.ones(2, 3), safety=torch.zeros(2, 3))
    assert (signals.entropy == 1).all()
    assert (signals.safety == 0).all()


def test_without_log_p_only_what_is_given():
    signals = Signals(entropy=t(0.1, 0.2))
    assert EntropyDecay()(signals).shape == (2,)
    assert Uniform()(signals).tolist() == [0.5, 0.5]
    with pytest.raises(
        MissingSignal, match=r"needs the teachers' log-probabilities; pass `log_p` of shape \(..., K, V"
    ):
        _ = signals.log_p


MISSING = {
    "entropy": (EntropyDecay(), {"safety": t(1.0, 1.0)}, "pass `log_p` of shape"),
    "task loss": (InverseLoss(), {"entropy": t(1.0, 1.0)}, "needs the teachers' losses a task; pass `evidence="),
    "safety": (OrdinalSafety(), {"entropy": t(1.0, 1.0)}, "needs the teachers' safety; pass `evidence="),
    "context": (
        OrdinalSafety(),
        {"log_p": log_p(0, 2, 3, 4), "evidence": EVIDENCE},
        "The evidence tells 2 contexts apart; pass `context`, the context of each position",
    ),
    "task": (
        InverseLoss(),
        {"log_p": log_p(0, 2, 3, 4), "evidence": EVIDENCE},
        "The evidence tells 2 tasks apart; pass `task`",
    ),
}


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_signal_is_named(case):
    rule, signals, message = MISSING[case]
    with pytest.raises(MissingSignal, match=message):
        rule(Signals(**signals))


def test_critical_classes_without_labels_are_not_passed_over():
    signals = Signals(log_p=log_p(0, 2, 3, 4), critical_classes=[0])
    with pytest.raises(MissingSignal, match=r"Critical classes \[0\] are named; pass `labels` to find them by"):
        _ = signals.critical
    signals = Signals(log_p=log_p(0, 2, 3, 4), critical_contexts=[1])
    with pytest.raises(MissingSignal, match=r"Critical contexts \[1\] are named; pass `context`"):
        _ = signals.critical


def test_a_context_that_was_never_measured():
    signals = Signals(log_p=log_p(0, 2, 3, 4), context=torch.tensor([0, 2]), evidence=EVIDENCE)
    with pytest.raises(InvalidInput, match="A position has context 2, but the evidence covers context 0 to 1 only"):
        _ = signals.safety


def test_nothing_given():
    with pytest.raises(InvalidInput, match="Signals are empty; give at least `log_p`"):
        Signals(labels=torch.tensor([0]))


def test_evidence_moves():
    moved = EVIDENCE.to("meta")
    assert {moved.task_loss_MK.device.type, moved.safety_CK.device.type, moved.count_C.device.type} == {"meta"}
    assert moved.source == "validation"


# --- readings of labels, passes and the student


@given(seed=st.integers(0, 10**6))
def test_cross_entropy_is_torchs(seed):
    log_p_BKV, labels_B = log_p(seed, 4, 3, 5), torch.arange(4) % 5
    expected = torch.nn.functional.nll_loss(
        log_p_BKV.flatten(0, 1), labels_B.repeat_interleave(3), reduction="none"
    ).reshape(4, 3)
    torch.testing.assert_close(Signals(log_p=log_p_BKV, labels=labels_B).cross_entropy, expected)


def test_variance_over_passes_by_hand():
    """One teacher answers (1, 0), then (0, 1): a variance of 1/4 a class; the other never changes its mind."""
    log_p_PKV = t([[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]).log()
    signals = Signals(log_p=log_p_PKV[0], log_p_passes=log_p_PKV)
    assert signals.variance.tolist() == [0.5, 0.0]


@given(seed=st.integers(0, 10**6), temperature=st.sampled_from([1.0, 0.5, 4.0]))
def test_the_pull_of_teachers_is_the_gradient_of_their_divergence(seed, temperature):
    logits_BV = log_p(seed + 1, 3, 4).requires_grad_()
    signals = Signals(log_p=log_p(seed, 3, 2, 4), student_log_p=logits_BV.log_softmax(-1))
    divergence_BK, pull_BKV = signals.student_divergence(temperature), signals.student_gradient(temperature)
    for k in range(2):
        (expected,) = torch.autograd.grad(divergence_BK[:, k].sum(), logits_BV, retain_graph=True)
        torch.testing.assert_close(pull_BKV[:, k], expected)
    assert (divergence_BK >= -1e-12).all()


def test_what_is_read_of_the_student_is_worked_out_once():
    signals = Signals(log_p=log_p(0, 3, 2, 4), student_log_p=log_p(1, 3, 4))
    assert signals.student_divergence(2.0) is signals.student_divergence(2.0)
    assert signals.student_gradient() is signals.student_gradient()
    assert not torch.equal(signals.student_gradient(), signals.student_gradient(2.0))


def test_a_teacher_that_rules_a_class_out_has_a_finite_divergence():
    signals = Signals(log_p=t([1.0, 0.0]).log(), student_log_p=t(0.25, 0.75).log())
    assert signals.student_divergence().tolist() == pytest.approx([math.log(4)])


def test_averages_by_task():
    signals = Signals(entropy=torch.zeros(4, 2), task=torch.tensor([0, 2, 0, 2]))
    assert signals.spread_task_average(t(1.0, 10.0, 3.0, 30.0)).tolist() == [2.0, 20.0, 2.0, 20.0]
    assert Signals(entropy=torch.zeros(2, 2)).spread_task_average(t(1.0, 3.0)).tolist() == [2.0, 2.0]


def test_a_sequence_has_the_task_of_its_batch():
    signals = Signals(entropy=torch.zeros(2, 3, 2), task=torch.tensor([0, 1]))
    value = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    assert signals.spread_task_average(value).tolist() == [[1.0] * 3, [4.0] * 3]


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ("cross_entropy", "needs the true classes; pass `labels`"),
        (
            "variance",
            r"needs several passes of each teacher; pass `log_p_passes` of shape \(..., P, K, V\), or `variance`",
        ),
        ("student_log_p", r"looks at the student; pass `student_log_p` of shape \(..., V\)"),
        ("features", r"learns from a representation; pass `features` of shape \(..., D\)"),
        ("performance", "needs the teachers' performance a task; pass `evidence=.*performance_MK, or `performance`"),
        ("distance", "needs the teachers' distance from the context; pass `evidence=.*distance_CK, or `distance`"),
    ],
)
def test_a_reading_that_is_not_there_says_what_to_pass(reading, message):
    signals = Signals(
        log_p=log_p(0, 2, 3, 4), evidence=EVIDENCE, task=torch.tensor([0, 1]), context=torch.tensor([0, 1])
    )
    with pytest.raises(MissingSignal, match=message):
        getattr(signals, reading)
