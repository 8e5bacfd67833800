"""Safety constraints: Definition VIII.3, the two averages, sums that add up, settings that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import safekd as kd
from safekd.data import Split
from safekd.errors import InvalidInput
from safekd.safety import KLBall, Recall, SafetyConstraint, TruthProbability

from .test_measures import MEASURES, drawn


def batch_of(labels: torch.Tensor, context: torch.Tensor | None = None):
    return Split("train", torch.zeros(len(labels), 1), labels, context=context).batch()


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(sorted(MEASURES)))
def test_the_two_averages_are_related_as_said(seed, kind):
    """safety_all = 1 - share_of_critical (1 - safety_critical)."""
    log_p_BV, labels = drawn(seed)
    batch = batch_of(labels)
    some = SafetyConstraint("s", MEASURES[kind]([0, 1]), 0.9).sums(log_p_BV, batch)
    every = SafetyConstraint("s", MEASURES[kind]([0, 1]), 0.9, average="all").sums(log_p_BV, batch)
    assert int(every.count_G) == 40
    share = int(some.count_G) / 40
    for reading in ("surrogate_G", "measured_G"):
        safety = float(getattr(some, reading) / some.count_G)
        assert float(getattr(every, reading)) / 40 == pytest.approx(1 - share * (1 - safety), abs=1e-12)


def test_sums_by_hand():
    p_BV = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], dtype=torch.float64)
    batch = batch_of(torch.tensor([0, 0, 1, 0]), context=torch.tensor([0, 1, 0, 2]))
    found = SafetyConstraint("s", Recall([0], sharpness=1.0), 0.9).sums(p_BV.log(), batch)
    first, second, fourth = (1 / (1 - math.log2(p)) for p in (0.9, 0.2, 0.3))
    assert (float(found.surrogate_G), float(found.measured_G)) == (pytest.approx(first + second + fourth), 1)
    assert (float(found.measured_squares_G), int(found.count_G)) == (1, 3)
    some = SafetyConstraint("s", Recall([0], sharpness=1.0), 0.9, contexts=[0, 2])
    assert some.covers(batch).tolist() == [True, False, False, True]
    found = some.sums(p_BV.log(), batch)
    assert (float(found.surrogate_G), float(found.measured_G), int(found.count_G)) == (
        pytest.approx(first + fourth),
        1,
        2,
    )
    every = SafetyConstraint("s", Recall([0]), 0.9, contexts=[0], average="all")
    assert every.covers(batch).tolist() == [True, False, True, False]
    assert float(every.sums(p_BV.log(), batch).measured_G) == 2  # one recalled, one not critical


def test_sums_add_up_over_batches():
    log_p_BV, labels = drawn(8)
    context = torch.arange(40) % 3
    constraint = SafetyConstraint("s", TruthProbability([0]), 0.9, mix={0: 0.2, 1: 0.3, 2: 0.5})
    whole = constraint.sums(log_p_BV, batch_of(labels, context))
    parts = [
        constraint.sums(log_p_BV[part], batch_of(labels[part], context[part])) for part in (slice(0, 17), slice(17, 40))
    ]
    for name, value in vars(parts[0] + parts[1]).items():
        torch.testing.assert_close(value, getattr(whole, name))


def test_only_the_surrogate_has_a_gradient_and_only_where_covered():
    log_p_BV, labels = drawn(9)
    logits = log_p_BV.clone().requires_grad_()
    batch = batch_of(labels, context=torch.arange(40) % 2)
    constraint = SafetyConstraint("s", Recall([0]), 0.9, contexts=[1])
    found = constraint.sums(logits.log_softmax(-1), batch)
    assert not found.measured_G.requires_grad
    found.surrogate_G.sum().backward()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, constraint.covers(batch))


def test_contexts_cover_all_positions_of_their_sequences():
    labels = torch.tensor([[0, 1, 0], [0, 0, 1]])
    batch = Split("train", torch.zeros(2, 1), labels, context=torch.tensor([1, 0])).batch()
    constraint = SafetyConstraint("s", TruthProbability([0]), 0.9, contexts=[1])
    assert constraint.covers(batch).tolist() == [[True, False, True], [False, False, False]]


def test_nobody_covered_sums_to_zero():
    log_p_BV, _ = drawn(10)
    batch = batch_of(torch.zeros(40, dtype=torch.long))
    found = SafetyConstraint("s", TruthProbability([3]), 0.9).sums(log_p_BV, batch)
    assert [float(x) for x in vars(found).values()] == [0, 0, 0, 0]


def test_another_threshold():
    constraint = SafetyConstraint("s", TruthProbability([0]), 0.9, contexts=[1], split="validation", average="all")
    changed = constraint.with_threshold(0.5)
    assert changed.at_least == 0.5
    assert changed.with_threshold(0.9) == constraint
    with pytest.raises(InvalidInput, match=r"at_least is 1.5"):
        constraint.with_threshold(1.5)


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
    "classes": ({"classes": []}, "classes is empty, so nobody is covered; name at least one class, or leave"),
    "both": ({"exactly": 0.9}, "at_least is 0.9 and exactly is 0.9; wanted one of the two"),
    "exactly": ({"at_least": None, "exactly": 2}, "exactly is 2; safety is a number between 0 and 1"),
    "mix": ({"mix": {}}, r"mix is {}; wanted the share of each context, such as {0: 0.4, 1: 0.6}"),
    "share": ({"mix": {0: 0.0, 1: 1.0}}, "context 0 has share 0.0 in the mix; wanted a number above 0. Leave groups"),
    "sum": ({"mix": {0: 0.4, 1: 0.4}}, "shares of the mix sum to 0.8; wanted 1. Divide them by their sum, or add"),
    "mix twice": ({"mix": {0: 0.4, 1: 0.6}, "contexts": [0]}, "mix says already which contexts count; leave contexts="),
    "uncritical": (
        {"mix": {0: 0.4, 1: 0.6}, "by": "class"},
        r"class 1 has a share in the mix, but is not among the critical classes \[0\] of Recall\(critical=\[0\]\)",
    ),
    "by": ({"by": "hour"}, "by is 'hour'; wanted 'context', 'task' or 'class'"),
    "worst": ({"worst": 0.1}, r"worst is 0.1; wanted a ball such as kd.safety.KLBall\(0.1\)"),
    "groups": (
        {"worst": KLBall(0.1)},
        r"the worst mix of 0 groups was asked for; wanted at least two. Name the groups",
    ),
    "one group": (
        {"worst": KLBall(0.1), "by": "class"},
        r"the worst mix of 1 groups .* mix={0: 0.4, 1: 0.6}, or classes=\[0, 1\]",
    ),
}


@pytest.mark.parametrize("case", BAD_CONSTRAINTS)
def test_constraints_that_are_refused(case):
    settings, message = BAD_CONSTRAINTS[case]
    with pytest.raises(InvalidInput, match=message):
        SafetyConstraint(**{"name": "malignant", "measure": Recall([0]), "at_least": 0.9, **settings})


def test_a_threshold_of_one_is_allowed():
    assert SafetyConstraint("s", Recall([0]), 1).at_least == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"contexts": 5}, r"contexts is 5; wanted a list of them, such as \[5\]"),
        ({"classes": 1}, r"classes is 1; wanted a list"),
        ({"contexts": "night"}, r"contexts is 'night'; wanted a list of them, such as \['night'\]"),
        ({"by": []}, r"by is \[\]; wanted 'context', 'task' or 'class'"),
        ({"average": np.ones(1)}, "average is array"),
    ],
)
def test_groups_that_are_no_list_are_told(more, told):
    with pytest.raises(InvalidInput, match=told):
        SafetyConstraint("s", TruthProbability([0]), 0.9, **more)


def test_a_constraint_that_covers_nobody_is_told_before_training():
    student = torch.nn.Linear(2, 3)
    rule = SafetyConstraint("rare", TruthProbability([2]), 0.9)
    teacher = kd.teachers.TorchTeacher("one", torch.nn.Linear(2, 3))
    trainer = kd.ConstrainedTrainer(
        student, [teacher], constraints=[rule], optimizer=torch.optim.SGD(student.parameters(), lr=0.1)
    )
    with pytest.raises(
        InvalidInput, match="Constraint 'rare' covers no example of split 'train'; nothing would be con"
    ):
        trainer.fit(Split("train", torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])), epochs=1)


def test_groups_by_name_want_the_names_of_a_split():
    """Which number "night" is says a split; a trainer and ``certify`` look there."""
    constraint = SafetyConstraint("s", TruthProbability([0]), 0.9, contexts=["night"])
    batch = Split("train", torch.zeros(1, 2), torch.zeros(1).long(), context=torch.zeros(1).long()).batch()
    with pytest.raises(InvalidInput, match=r"names 'night'; which number that is says a split: constraint.with_names"):
        constraint.counts(batch)
