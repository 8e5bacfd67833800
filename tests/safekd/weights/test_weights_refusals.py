"""What users pass wrongly to rules, wrappers and the validation: refused in words, or made right."""

from __future__ import annotations

import pytest
import torch

import safekd as kd
from safekd.errors import InvalidInput
from safekd.weights import (
    Confidence,
    Conforming,
    DomainDistance,
    EntropyDecay,
    GradientAlignment,
    InverseLoss,
    InverseVariance,
    MetaTeacher,
    Normalized,
    OrdinalSafety,
    Signals,
    TeacherEvidence,
    Tracking,
    Unified,
    Uniform,
)
from tests.support.weighting import log_p, t

L = log_p(0, 4, 3, 5)
WHOLE = torch.zeros(4, dtype=torch.long)
POLYTOPE = kd.WeightPolytope(n_teachers=3, lower=0.05, upper=0.6)
EVIDENCE = TeacherEvidence(t([0.1, 0.2, 0.4], [1.0, 0.5, 0.25]), t([0.9, 0.5, 0.7]), torch.tensor([5]), "validation")

UNFIT = {
    "logits": (
        {"log_p": L + 2},
        "exp.log_p. of teacher 0 sums to 7.389 at the first position; wanted 1. Pass logits.log_s",
    ),
    "probabilities": ({"log_p": L.exp()}, "holds no log-probabilities"),
    "an array": ({"log_p": L.numpy()}, "`log_p` is a ndarray; wanted a tensor"),
    "one axis": ({"log_p": L[0, 0]}, r"`log_p` is float64 of shape \(5,\); wanted floats"),
    "labels of floats": ({"log_p": L, "labels": torch.zeros(4)}, "`labels` is float32; wanted integers"),
    "one-hot labels": ({"log_p": L, "labels": torch.zeros(4, 5).long()}, r"`labels` has shape \(4, 5\); wanted \(4,\)"),
    # as many sequences as positions: torch would take the label of another position
    "labels of sequences": (
        {"log_p": log_p(0, 4, 4, 3, 5), "labels": WHOLE},
        r"shape \(4,\); wanted \(4, 4\), one for",
    ),
    "tasks": ({"log_p": L, "task": torch.zeros(3).long()}, r"`task` has shape \(3,\); wanted \(4,\)"),
    "student": ({"log_p": L, "student_log_p": log_p(1, 5)}, r"`student_log_p` has shape \(5,\); wanted \(4, classes\)"),
    "student's classes": ({"log_p": L, "student_log_p": log_p(1, 4, 6)}, "has 6 classes, `log_p` has 5"),
    "no passes": ({"log_p": L, "log_p_passes": log_p(1, 4, 0, 3, 5)}, "has 0 passes, .* wanted at least 1"),
    "passes in front": ({"log_p": L, "log_p_passes": log_p(1, 6, 4, 3, 5)}, "`log_p_passes` has shape"),
    "safety of others": ({"log_p": L, "safety": torch.rand(4, 2)}, r"`safety` has shape \(4, 2\); wanted \(4, 3\)"),
    "one loss for all": ({"task_loss": torch.tensor(1.0)}, r"`task_loss` has shape \(\); wanted \(..., teachers\)"),
    "losses of others": (
        {"log_p": L, "entropy": torch.zeros(4, 5)},
        r"`entropy` has shape \(4, 5\); wanted \(4, 3\), \(..., teachers\), as the others",
    ),
    "a list": ({"entropy": [0.1, 0.2]}, "`entropy` is a list; wanted a tensor"),
    "a mask of numbers": ({"log_p": L, "critical": WHOLE}, "`critical` is int64 .* wanted bool"),
    "a mask too short": ({"log_p": L, "critical": torch.ones(3).bool()}, r"shape \(3,\); wanted bool of shape \(4,\)"),
    "one critical class": ({"log_p": L, "critical_classes": 0}, "`critical_classes` is 0; wanted a list of numbers"),
    "the last class": ({"log_p": L, "critical_classes": [-1]}, "`critical_classes` names -1; wanted numbers from 0"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_readings_that_do_not_fit_are_refused(case):
    given, message = UNFIT[case]
    with pytest.raises(InvalidInput, match=message):
        Signals(**given)


WRONG = {
    "no class": (Confidence(), {"labels": torch.tensor([0, 1, -1, 2])}, r"Position \(2,\) has label -1; .* 0 to 4"),
    "no such class": (
        GradientAlignment(),
        {"labels": torch.tensor([0, 5, 1, 2]), "student_log_p": log_p(1, 4, 5)},
        r"Position \(1,\) has label 5; wanted a class, 0 to 4",
    ),
    "a task below 0": (
        InverseLoss(),
        {"task": torch.tensor([0, 1, -1, 0]), "evidence": EVIDENCE},
        "A position has task -1, but the evidence covers task 0 to 1 only",
    ),
    "a pull of a task below 0": (
        GradientAlignment(),
        {"task": WHOLE - 1, "labels": WHOLE, "student_log_p": log_p(1, 4, 5)},
        "A position has task -1; wanted numbers from 0",
    ),
    "evidence of others": (
        OrdinalSafety(),
        {"log_p": log_p(0, 4, 2, 5), "evidence": EVIDENCE},
        "The evidence is about 3 teachers, the signals have 2",
    ),
    "a distance below 0": (
        DomainDistance(),
        {"distance": t([1.0, -0.5, 2.0]).expand(4, 3)},
        r"`distance` of teacher 1 at position \(0,\) is -0.5; wanted at least 0",
    ),
    "safety that is not known": (
        Normalized(OrdinalSafety()),
        {"safety": t(0.5, float("nan"), 0.2)},
        r"OrdinalSafety gave scores \[2.0, nan, 1.0\]",
    ),
    "scores in a list": (Normalized(lambda s: [0.5, 0.3, 0.2]), {}, "gave a list; wanted a tensor of scores"),
    "teachers of Tracking": (
        Tracking(Uniform(), kd.WeightPolytope(n_teachers=4), beta=0.5),
        {},
        "The signals have 3 teachers, the polytope of Tracking has 4",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_readings_that_a_rule_cannot_use_are_refused(case):
    rule, given, message = WRONG[case]
    signals = Signals(**{"log_p": L, **given})
    with pytest.raises(InvalidInput, match=message):
        rule(signals)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_whole_numbers_of_any_type_are_looked_up_alike(dtype):
    numbers = torch.tensor([0, 1, 1, 0])
    for name, rule in {"labels": Confidence(), "task": InverseLoss()}.items():
        one, other = (Signals(log_p=L, evidence=EVIDENCE, **{name: n}) for n in (numbers, numbers.to(dtype)))
        assert torch.equal(rule(one), rule(other))


def test_one_safety_for_all_positions_is_spread_over_them():
    signals = Signals(log_p=L, safety=t(0.9, 0.2, 0.5))
    assert OrdinalSafety()(signals).tolist() == [[3.0, 1.0, 2.0]] * 4


@pytest.mark.parametrize(
    "make",
    [
        lambda rule: Conforming(rule, POLYTOPE),
        lambda rule: Unified(polytope=POLYTOPE, token=rule),
        lambda rule: Tracking(rule, POLYTOPE, beta=0.5),
        lambda rule: kd.audit(rule, Signals(log_p=L)),
        Normalized,
    ],
)
def test_a_class_is_no_rule(make):
    with pytest.raises(InvalidInput, match=r"is the class Uniform; wanted a rule: Uniform\(\)"):
        make(Uniform)
    with pytest.raises(InvalidInput, match="is 'entropy'; wanted a rule"):
        make("entropy")


@pytest.mark.parametrize(
    "make",
    [
        lambda polytope: Conforming(Uniform(), polytope),
        lambda polytope: Unified(polytope=polytope, token=Uniform()),
        lambda polytope: Tracking(Uniform(), polytope, beta=0.5),
        lambda polytope: kd.audit(Uniform(), Signals(log_p=L), polytope=polytope),
    ],
)
def test_bounds_are_no_polytope(make):
    with pytest.raises(InvalidInput, match=r"`polytope` is \(0.05, 0.6\); wanted a WeightPolytope"):
        make((0.05, 0.6))


AUDITS = {
    "no lines": ({"tries": 0}, "`tries` is 0; wanted a whole number, at least 1"),
    "a bare module": ({"student": torch.nn.Sequential(torch.nn.Linear(2, 2))}, r"wanted a pair, \(module, tensor"),
    "ragged losses": ({"scale": "task", "losses": [[1, 2, 3], [1, 2]]}, "`losses` are no table of numbers"),
    "students elsewhere": (
        {"scale": "task", "losses": torch.rand(1, 3), "under": [Signals(log_p=L[:2])]},
        "`under` holds 2 positions for student 0; wanted 4",
    ),
}


@pytest.mark.parametrize("case", AUDITS)
def test_an_audit_refuses_what_it_cannot_use(case):
    options, message = AUDITS[case]
    with pytest.raises(InvalidInput, match=message):
        kd.audit(EntropyDecay(), Signals(log_p=L), **options)


def test_an_audit_wants_signals_and_weights_of_some_shape():
    with pytest.raises(InvalidInput, match="`signals` are a Tensor; wanted Signals"):
        kd.audit(EntropyDecay(), L)
    with pytest.raises(InvalidInput, match=r"Weights have shape \(\); wanted \(..., teachers\)"):
        kd.audit(torch.tensor(1.0))


def test_one_reading_to_vary_needs_no_list():
    one, other = (kd.audit(EntropyDecay(), Signals(log_p=L), tries=1, vary=v) for v in ("log_p", ["log_p"]))
    assert str(one) == str(other)


def test_scores_below_zero_do_not_pass_the_audit_as_shares():
    report = kd.audit(lambda signals: -signals.ones(), Signals(log_p=L), tries=1)
    assert {"III.1", "III.2"} <= {finding.axiom for finding in report.violated}


@pytest.mark.parametrize("rule", [GradientAlignment(), MetaTeacher()], ids=lambda rule: type(rule).__name__)
def test_half_precision_gives_weights_that_were_worked_out_in_float32(rule):
    sure = log_p(0, 4, 3, 5).half()
    labels = sure.amax(1).argmax(-1)
    signals = Signals(log_p=sure, student_log_p=torch.nn.functional.one_hot(labels, 5).log().half(), labels=labels)
    weights = rule(signals)
    assert weights.dtype == torch.float32
    assert torch.isfinite(weights).all()


@pytest.mark.filterwarnings("error")
def test_nothing_warns_of_gradients_or_empty_batches():
    given = {"log_p": L.clone().requires_grad_()}
    assert "positions repaired" in str(Unified(polytope=POLYTOPE, token=EntropyDecay()).repair(Signals(**given)))
    empty = Signals(log_p=L[:0], log_p_passes=log_p(1, 4, 6, 3, 5)[:0])
    assert InverseVariance()(empty).shape == (0, 3)
