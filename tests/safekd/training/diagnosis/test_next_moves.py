"""Advice at the end of a run fits the run: nobody is told to do what was done already."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

import safekd as kd
from safekd.training.diagnosis import RunFacts, advise_finite_numbers
from safekd.training.diagnosis._next_moves import (
    advise_after_convergence,
    advise_leaving_saddle,
    advise_more_training,
    advise_raising_cap,
)
from safekd.training.trace import TracePoint
from solvers.kkt import KKTResiduals
from tests.support.problems import at_least, one_each, trainer_for

FULL = RunFacts(examples=100, batch_size=100, rate=0.05, first_rate=0.05)
SMALL = replace(FULL, batch_size=8)


def trace(*stationarity):
    return [
        TracePoint(i, i, 1.0, (), (), (), KKTResiduals(value, 0.0, 0.0, 0.0), 1.0, 0.0)
        for i, value in enumerate(stationarity)
    ]


UP_AND_DOWN = trace(0.3, 0.1, 0.2, 0.1, 0.2, 0.1, 0.2)
FALLING = trace(0.4, 0.3, 0.2, 0.1, 0.05, 0.02)
SLOW = trace(0.4, 0.399, 0.398, 0.397, 0.396)


def test_larger_batches_are_advised_only_where_batches_are_small():
    assert advise_more_training(UP_AND_DOWN, 1e-3, FULL).startswith(
        "Lower the learning rate, now 0.05: stationarity goes up and down. "
    )
    assert "or take batches of more than 8 examples" in advise_more_training(UP_AND_DOWN, 1e-3, SMALL)
    for points in (UP_AND_DOWN, FALLING, SLOW):
        assert "batches" not in advise_more_training(points, 1e-3, FULL)


def test_longer_training_is_advised_where_residuals_fall():
    for facts in (FULL, SMALL):
        said = advise_more_training(FALLING, 1e-3, facts)
        assert said.startswith("Train longer: fit(..., warm_start=kd.WarmStart.from_result(result)) goes on from here.")
        assert "learning rate" not in said
    assert "or raise the learning rate, now 0.05: stationarity hardly falls" in advise_more_training(SLOW, 1e-3, FULL)


def test_what_holds_stationarity_up_is_named():
    decayed = replace(FULL, weight_decay=0.01)
    assert "set weight_decay, now 0.01, to 0" in advise_more_training(FALLING, 1e-3, decayed)
    coarse = replace(FULL, dtype="bfloat16", eps=2.0**-7)
    assert "keep the parameters in float32: those of bfloat16" in advise_more_training(FALLING, 1e-3, coarse)
    spent = replace(FULL, rate=1e-9)
    said = advise_more_training(UP_AND_DOWN, 1e-3, spent)
    assert said.startswith("Let the learning rate fall more slowly: its schedule ended at 1e-09")
    assert "Lower the learning rate" not in said
    sampled = replace(FULL, sampled=1024)
    assert "from more than 1024 examples" in advise_more_training(trace(0.0, 0.0, 0.0), 1e-3, sampled)


def test_a_saddle_is_left_by_noise_only_where_there_was_none():
    assert "train on in small batches" in advise_leaving_saddle(FULL)
    assert "batches" not in advise_leaving_saddle(SMALL)


def test_only_what_can_be_certified_is_to_be_certified():
    assert "kd.certify(result, constraint, held_out)." in advise_after_convergence(replace(FULL, certifiable=["a"]))
    assert "kd.certify(result, constraints, held_out)." in advise_after_convergence(
        replace(FULL, certifiable=["a", "b"])
    )
    assert "certify" not in advise_after_convergence(FULL)
    assert "Pass `validation=`" in advise_after_convergence(FULL)
    assert "validation" not in advise_after_convergence(replace(FULL, validation=True))


def test_the_cap_is_named():
    assert advise_raising_cap(replace(FULL, cap=0.1)) == "Raise or drop the cap, now 0.1, or lower the threshold."


def test_no_learning_rate_mends_a_teacher():
    assert "learning rate changes what a teacher" in advise_finite_numbers("Teacher 't' gave nan", 10, FULL)
    assert "before the first step" in advise_finite_numbers("The student's output is not finite", 0, FULL)
    assert "weights_optimizer" in advise_finite_numbers("The loss of weighting rule X is not finite", 3, FULL)
    assert "now 0.05, or mend what is named" in advise_finite_numbers("The loss", 3, FULL)


# of whole runs --------------------------------------------------------------------------------------------------------


def test_a_run_on_full_batches_is_not_told_to_use_them():
    for lr, epochs in ((0.001, 5), (0.01, 40), (30.0, 60)):
        result = trainer_for(at_least(0.6), lr=lr).fit(one_each(), epochs=epochs)
        assert result.status == ("loss_rose" if lr == 30.0 else "budget_spent")
        assert "batch" not in result.next_move
        assert "Start" in result.next_move or f"{lr:.3g}" in result.next_move or "Train longer" in result.next_move


def test_a_run_in_batches_hears_of_its_batch_size():
    torch.manual_seed(0)
    inputs = torch.randn(64, 2)
    train = kd.Split("train", inputs, (inputs[:, 0] > 0).long())
    teacher = kd.teachers.CallableTeacher("t", lambda x: torch.stack([-x[:, 0], x[:, 1]], 1), gives="logits")
    student = nn.Linear(2, 2)
    sgd = torch.optim.SGD(student.parameters(), lr=6.0)
    rule = kd.SafetyConstraint("a", kd.safety.TruthProbability([0]), 0.7)
    trainer = kd.ConstrainedTrainer(student, [teacher], constraints=[rule], optimizer=sgd, batch_size=8)
    result = trainer.fit(train, epochs=20, trace_every=4)
    assert result.status == "budget_spent", result.message
    assert "batches of more than 8 examples" in result.next_move


def test_a_converged_run_with_an_equality_is_not_told_to_certify_it():
    rule = kd.SafetyConstraint("first", kd.safety.TruthProbability(critical=[0]), exactly=0.6)
    result = trainer_for(rule).fit(one_each(), validation=one_each(name="validation"), epochs=800)
    assert result.status == "converged", result.message
    assert result.next_move == "Evaluate it on data that nothing else saw."


def test_a_student_broken_from_the_start_is_not_told_to_learn_more_slowly():
    trainer = trainer_for(at_least(0.6))
    with torch.no_grad():
        trainer.student.logits[0, 0] = torch.nan
    result = trainer.fit(one_each(), epochs=5)
    assert result.status == "diverged"
    assert "before the first step" in result.next_move
    assert "Lower" not in result.next_move
