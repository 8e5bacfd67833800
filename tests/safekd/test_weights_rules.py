"""Rules that score teachers, each against its formula worked by hand and at its limits; the signals they read."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy, rankdata

from safekd.errors import InvalidInput, MissingSignal
from safekd.weights import EntropyDecay, EntropyInverse, Evidence, InverseLoss, OrdinalSafety, Signals, Uniform


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def shares(rule, **signals):
    """Return the rule's scores divided by their sum, as lists."""
    score = rule(Signals(**signals))
    return (score / score.sum(-1, keepdim=True)).tolist()


def log_p(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).mul(3).log_softmax(-1)


EVIDENCE = Evidence(
    task_loss_MK=t([0.1, 0.2, 0.4], [1.0, 0.5, 0.25]),
    safety_CK=t([0.9, 0.5, 0.7], [0.2, 0.8, 0.8]),
    count_C=torch.tensor([5, 7]),
    source="audit",
)

ALL = {
    "Uniform": Uniform(),
    "EntropyDecay": EntropyDecay(2.0),
    "EntropyInverse": EntropyInverse(),
    "InverseLoss": InverseLoss(),
    "OrdinalSafety": OrdinalSafety(2.0),
}
each_rule = pytest.mark.parametrize("name", ALL)

BY_HAND = {
    "Uniform": (Uniform(), {"entropy": t(0.1, 5.0, 0.3, 9.0)}, [0.25] * 4),
    "EntropyDecay": (EntropyDecay(1.0), {"entropy": t(0.0, math.log(2), math.log(4))}, [4 / 7, 2 / 7, 1 / 7]),
    "EntropyDecay rate 2": (EntropyDecay(2.0), {"entropy": t(0.0, math.log(2))}, [0.8, 0.2]),
    "EntropyDecay rate 0": (EntropyDecay(0.0), {"entropy": t(0.0, 7.0)}, [0.5, 0.5]),
    "EntropyInverse": (EntropyInverse(1e-12), {"entropy": t(1.0, 0.5, 0.25)}, [1 / 7, 2 / 7, 4 / 7]),
    "EntropyInverse eps": (EntropyInverse(1.0), {"entropy": t(0.0, 1.0)}, [2 / 3, 1 / 3]),
    "InverseLoss": (InverseLoss(1e-12), {"task_loss": t(0.1, 0.2, 0.4)}, [4 / 7, 2 / 7, 1 / 7]),
    "InverseLoss eps": (InverseLoss(0.1), {"task_loss": t(0.1, 0.3)}, [2 / 3, 1 / 3]),
    "OrdinalSafety": (OrdinalSafety(), {"safety": t(0.9, 0.1, 0.5)}, [3 / 6, 1 / 6, 2 / 6]),
    "OrdinalSafety power 2": (OrdinalSafety(2.0), {"safety": t(0.9, 0.1, 0.5)}, [9 / 14, 1 / 14, 4 / 14]),
    "OrdinalSafety power 0": (OrdinalSafety(0.0), {"safety": t(0.9, 0.1)}, [0.5, 0.5]),
    "OrdinalSafety ties": (OrdinalSafety(), {"safety": t(0.5, 0.9, 0.5, 0.1)}, [2 / 8, 3 / 8, 2 / 8, 1 / 8]),
    "OrdinalSafety all tied": (OrdinalSafety(5.0), {"safety": t(0.5, 0.5, 0.5)}, [1 / 3] * 3),
    "all certain": (EntropyInverse(), {"entropy": t(0.0, 0.0)}, [0.5, 0.5]),
    "one certain": (EntropyInverse(), {"entropy": t(0.0, 1.0)}, [1.0, 0.0]),
    "one terrible": (InverseLoss(), {"task_loss": t(0.1, 1e9)}, [1.0, 0.0]),
    "one perfect": (InverseLoss(1e-3), {"task_loss": t(0.0, 0.999)}, [1000 / 1001, 1 / 1001]),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_by_hand(case):
    rule, signals, expected = BY_HAND[case]
    assert shares(rule, **signals) == pytest.approx(expected, abs=1e-9)


@each_rule
def test_one_teacher_has_all_the_weight(name):
    signals = {"log_p": log_p(0, 4, 1, 3), "task_loss": torch.rand(4, 1), "safety": torch.rand(4, 1)}
    assert shares(ALL[name], **signals) == [[1.0]] * 4


@each_rule
def test_equal_teachers_weigh_alike(name):
    same = {
        "log_p": log_p(0, 4, 1, 3).expand(4, 3, 3),
        "task_loss": torch.full((4, 3), 0.3),
        "safety": torch.ones(4, 3),
    }
    assert torch.tensor(shares(ALL[name], **same)).numpy() == pytest.approx(1 / 3)


@each_rule
@given(seed=st.integers(0, 10**6))
def test_renaming_teachers_renames_weights(name, seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(4, generator=generator)
    given_ = {"log_p": log_p(seed, 3, 4, 5), "task_loss": torch.rand(3, 4, generator=generator)}
    given_["safety"] = torch.randint(3, (3, 4), generator=generator) / 2
    moved = {key: value[:, order] for key, value in given_.items()}
    expected = ALL[name](Signals(**given_))[:, order]
    torch.testing.assert_close(ALL[name](Signals(**moved)), expected)
    assert (expected > 0).all()


@pytest.mark.parametrize("rate", [1.0, 1e3, 1e6])
def test_no_rate_makes_every_teacher_vanish(rate):
    """exp(-1000 log 10) is 0 in floats for all teachers; what counts is the difference."""
    even = torch.full((2, 3, 10), -math.log(10))
    assert EntropyDecay(rate)(Signals(log_p=even)).tolist() == [[1.0] * 3] * 2


@given(seed=st.integers(0, 10**6))
def test_ordinal_safety_is_the_dense_rank(seed):
    safety = torch.randint(4, (6, 5), generator=torch.Generator().manual_seed(seed)) / 3
    expected = rankdata(safety.numpy(), method="dense", axis=-1)
    assert OrdinalSafety()(Signals(safety=safety)).tolist() == expected.tolist()


@given(seed=st.integers(0, 10**6))
def test_ordinal_safety_sees_the_order_only(seed):
    safety = torch.rand(6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.equal(OrdinalSafety(3.0)(Signals(safety=safety)), OrdinalSafety(3.0)(Signals(safety=safety**5 / 9)))


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
    one = Evidence(t([0.1, 0.2]), t([0.9, 0.8]), torch.tensor([4]), "audit")
    signals = Signals(log_p=log_p(0, 3, 2, 4), evidence=one)
    assert torch.equal(signals.safety, one.safety_CK.expand(3, 2))


def test_lookups_take_the_dtype_of_the_teachers():
    signals = Signals(log_p=log_p(0, 3, 3, 4).float(), context=torch.tensor([0, 1, 1]), evidence=EVIDENCE)
    assert signals.safety.dtype == torch.float32


def test_given_outright_comes_first():
    signals = Signals(log_p=log_p(0, 2, 3, 4), evidence=EVIDENCE, entropy=torch.ones(2, 3), safety=torch.zeros(2, 3))
    assert (signals.entropy == 1).all()
    assert (signals.safety == 0).all()


NEEDS = {"Uniform": set(), "EntropyDecay": {"entropy"}, "EntropyInverse": {"entropy"}}
NEEDS |= {"InverseLoss": {"task_loss"}, "OrdinalSafety": {"safety"}}


@each_rule
def test_a_rule_computes_only_what_it_needs(name):
    signals = Signals(
        log_p=log_p(0, 2, 3, 4), task=torch.tensor([0, 1]), context=torch.tensor([0, 1]), evidence=EVIDENCE
    )
    ALL[name](signals)
    assert {"entropy", "task_loss", "safety", "critical"} & set(vars(signals)) == NEEDS[name]


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


BAD = {
    "rate": (EntropyDecay, -1.0, "`rate` of EntropyDecay is -1.0; it must be at least 0 and finite"),
    "rate inf": (EntropyDecay, float("inf"), "`rate` of EntropyDecay is inf"),
    "rate nan": (EntropyDecay, float("nan"), "`rate` of EntropyDecay is nan"),
    "eps": (EntropyInverse, 0.0, "`eps` of EntropyInverse is 0.0; it must be above 0 and finite, or a perfect teacher"),
    "eps loss": (InverseLoss, 0.0, "`eps` of InverseLoss is 0.0"),
    "eps nan": (InverseLoss, float("nan"), "`eps` of InverseLoss is nan"),
    "power": (OrdinalSafety, -0.5, "`power` of OrdinalSafety is -0.5; it must be at least 0 and finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_parameters_that_are_refused(case):
    rule, value, message = BAD[case]
    with pytest.raises(InvalidInput, match=message):
        rule(value)


def test_evidence_moves():
    moved = EVIDENCE.to("meta")
    assert {moved.task_loss_MK.device.type, moved.safety_CK.device.type, moved.count_C.device.type} == {"meta"}
    assert moved.source == "audit"
