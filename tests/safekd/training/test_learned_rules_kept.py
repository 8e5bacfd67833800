"""What a run with a rule that learns refuses, stops at, and keeps."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

import safekd as kd
from safekd.divergences import ForwardKL
from safekd.weights import Conforming, MetaTeacher, MinDivergence, UncertaintyWeighting, Unified, Uniform, rule_state
from tests.support.learning import LEARNED, PAIR, float_net, learned, task, two
from tests.support.problems import FreeLogits, at_least, one_each, same, state, trainer_for

NAN = math.nan
LAST = 3  # what is poisoned fails in the training step of this number
each_learned = pytest.mark.parametrize("name", LEARNED)


# ---- what is refused -------------------------------------------------------------------------------------------------


def trainer_with(rule, optimizer=None, weights_optimizer=None):
    student = float_net()
    optimizer = torch.optim.SGD(student.parameters(), 0.1) if optimizer is None else optimizer(student)
    return kd.ConstrainedTrainer(student, two(), weights=rule, optimizer=optimizer, weights_optimizer=weights_optimizer)


def test_an_optimizer_of_both_is_refused():
    rule = learned("MultiLevel")
    with pytest.raises(kd.InvalidInput, match=r"student's optimizer also holds 'rule\.theta_KD' of the"):
        trainer_with(Conforming(rule, PAIR), lambda s: torch.optim.SGD([*s.parameters(), *rule.parameters()], 0.1))


@pytest.mark.parametrize("rule", [Uniform(), learned("MultiLevel")])
def test_an_optimizer_of_something_else_is_refused(rule):
    stray = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    with pytest.raises(kd.InvalidInput, match="`weights_optimizer` holds no parameter that learns inside"):
        trainer_with(rule, weights_optimizer=stray)


def test_a_loss_that_is_no_scalar_is_refused():
    class Rows(UncertaintyWeighting):
        def learn(self, step):
            return step.weights_K.sum(-1)

    with pytest.raises(kd.InvalidInput, match=r"learn\(\) of Rows at 'rule' gave a loss of shape \(3,\)"):
        trainer_for(teachers=two(), weights=Conforming(Rows(2), PAIR)).fit(one_each(), epochs=1)


# ---- what stops being finite -----------------------------------------------------------------------------------------


class Poisoned(UncertaintyWeighting):
    """Its loss or its gradient stops being a number in the step LAST, or its optimizer throws it out of range."""

    def __init__(self, kind: str, at: int = LAST) -> None:
        super().__init__(2)
        self.kind, self.at, self.steps = kind, at, 0
        self.register_buffer("seen", torch.zeros(()))

    def learn(self, step):
        self.steps += 1
        self.seen += 1
        loss = super().learn(step)
        if self.steps != self.at:
            return loss
        if self.kind == "loss":
            return loss * NAN
        if self.kind == "gradient":
            self.s_MK.register_hook(lambda gradient: gradient * NAN)
        if self.kind == "parameter":
            return loss * 1e30
        return loss


class Leap(torch.optim.Adam):
    """Adam, with a plain and enormous step where the gradient is enormous."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad.abs().max() > 1e20:
                    p.data -= 1e30 * p.grad


POISONS = {
    "loss": "The loss of weighting rule Poisoned at 'rule' is not finite",
    "gradient": "The gradient of 's_MK' of weighting rule Poisoned at 'rule' is not finite",
    "parameter": "Parameter 's_MK' of weighting rule Poisoned at 'rule' is not finite after its step",
}


def poisoned(kind: str, at: int = LAST) -> tuple[kd.ConstrainedTrainer, Poisoned]:
    rule, student = Poisoned(kind, at), FreeLogits()
    trainer = trainer_for(
        at_least(0.6),
        student=student,
        teachers=two(),
        weights=Conforming(rule, PAIR),
        weights_optimizer=Leap(rule.parameters(), lr=0.1),
    )
    return trainer, rule


@pytest.mark.parametrize("kind", POISONS)
def test_what_is_not_finite_stops_before_the_step_and_names_the_rule(kind):
    """The reference is the same run without poison, stopped one step earlier."""
    trainer, _ = poisoned(kind)
    clean_trainer, _ = poisoned(kind, at=0)
    result = trainer.fit(one_each(), epochs=50, trace_every=100)
    clean = clean_trainer.fit(one_each(), epochs=LAST - 1, trace_every=100)
    assert result.status == "diverged"
    assert result.message == f"{POISONS[kind]} at step {LAST}; the student was left as it was before that step."
    assert same(state(result.student), state(clean.student))
    assert same(dict(result.rule_state), dict(clean.rule_state))  # parameters, buffers, moments
    assert result.multipliers == clean.multipliers
    assert result.point.loss == clean.point.loss
    assert result.residuals == clean.residuals


def test_a_first_step_that_fails_leaves_no_moments():
    trainer, rule = poisoned("loss", at=1)
    before = rule_state(rule)
    result = trainer.fit(one_each(), epochs=5)
    assert result.status == "diverged"
    assert same(before, rule_state(rule))
    assert not any(name.startswith("optimizer.") for name in result.rule_state)


@pytest.mark.parametrize("rule", [Conforming(MinDivergence(), PAIR), Conforming(MetaTeacher(), PAIR)])
def test_a_student_that_breaks_is_named_before_a_rule_that_looks_at_it(rule):
    student = FreeLogits()
    with torch.no_grad():
        student.logits[0, 1] = NAN
    result = trainer_for(at_least(0.6), student=student, teachers=two(), weights=rule).fit(one_each(), epochs=5)
    assert result.status == "diverged"
    assert "The student's parameter 'logits' is not finite at step 1" in result.message


# ---- what is kept ----------------------------------------------------------------------------------------------------


@each_learned
@pytest.mark.parametrize("from_files", [False, True])
def test_a_run_continued_is_the_run_in_one(name, from_files, tmp_path):
    """The student's plain descent has no memory; the rule's Adam has one, which is kept too."""
    data, teachers = task()

    def begin():
        student, rule = float_net(), Unified(token=Conforming(learned(name), PAIR), polytope=PAIR)
        optimizer = torch.optim.SGD(student.parameters(), 0.5)
        return kd.ConstrainedTrainer(student, teachers, constraints=[at_least(0.05)], weights=rule, optimizer=optimizer)

    whole = begin().fit(data, epochs=6)
    first = begin().fit(data, epochs=3, run_dir=tmp_path)
    start = kd.WarmStart.from_result(first)
    if from_files:
        names = ("student", "weighting_rule")
        parameters, rule_state = (load_file(tmp_path / f"{name}.safetensors") for name in names)
        start = kd.WarmStart(parameters, list(first.multipliers.values()), rule_state)
    second = begin().fit(data, epochs=3, warm_start=start)
    assert same(dict(second.rule_state), dict(whole.rule_state))
    assert same(state(second.student), state(whole.student))
    forgetful = begin().fit(data, epochs=3, warm_start=kd.WarmStart(start.parameters, start.multipliers))
    assert not same(dict(forgetful.rule_state), dict(whole.rule_state))


def test_weights_are_written_where_there_are_any(tmp_path):
    def run(rule):
        return trainer_for(teachers=two(), weights=rule).fit(one_each(), epochs=2, run_dir=tmp_path)

    result = run(Conforming(MetaTeacher(), PAIR))
    assert same(load_file(tmp_path / "weighting_rule.safetensors"), dict(result.rule_state))
    assert "rule.rule.network.outer.weight" in result.rule_state
    assert "optimizer.Adam.rule.network.outer.weight.exp_avg" in result.rule_state
    assert not any(path.suffix in (".pt", ".pkl", ".bin") for path in tmp_path.iterdir())
    again = run(Uniform())  # into the same folder: no stale file stays
    assert again.rule_state == {}
    assert not (tmp_path / "weighting_rule.safetensors").exists()
    assert sorted(path.name for path in result.save(tmp_path)) == [
        "student.safetensors",
        "trace.csv",
        "trace.jsonl",
        "used_examples.safetensors",
        "verdict.json",
        "weighting_rule.safetensors",
    ]


def test_another_kind_of_optimizer_begins_afresh():
    first = trainer_for(teachers=two(), weights=learned("UncertaintyWeighting")).fit(one_each(), epochs=3)
    rule = learned("UncertaintyWeighting")
    momentum = torch.optim.SGD(rule.parameters(), lr=0.1, momentum=0.9)
    trainer = trainer_for(teachers=two(), weights=rule, weights_optimizer=momentum)
    trainer.fit(one_each(), epochs=1, warm_start=kd.WarmStart.from_result(first))
    assert set(trainer.problem.learning.state()) == {"rule.s_MK", "optimizer.SGD.s_MK.momentum_buffer"}


def test_a_warm_start_of_another_rule_is_refused():
    first = trainer_for(teachers=two(), weights=learned("UncertaintyWeighting")).fit(one_each(), epochs=1)
    for rule in (learned("MetaTeacher"), Uniform()):
        with pytest.raises(kd.InvalidInput, match="The state is that of another weighting rule"):
            trainer_for(teachers=two(), weights=rule).fit(
                one_each(), epochs=1, warm_start=kd.WarmStart.from_result(first)
            )


def test_a_frontier_carries_the_rule_from_target_to_target():
    seen = []

    def make_trainer(threshold):
        rule = learned("UncertaintyWeighting")
        trainer = trainer_for(at_least(threshold), teachers=two(), weights=Conforming(rule, PAIR))
        seen.append((rule, trainer))
        return trainer

    frontier = kd.trace_frontier(make_trainer, one_each(), targets=3, highest=0.7, epochs=100)
    assert len(frontier.table) == 3
    assert all(float(rule.s_MK.detach().abs().max()) > 0.1 for rule, _ in seen)


def test_teachers_in_float64_and_a_student_in_float32():
    result = trainer_for(
        student=FreeLogits(dtype=torch.float32), teachers=two(), weights=MetaTeacher(), divergence=ForwardKL(2.0)
    ).fit(one_each(), epochs=5)
    assert result.status != "diverged"
    assert result.student.logits.dtype == torch.float32
