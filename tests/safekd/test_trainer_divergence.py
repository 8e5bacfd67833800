"""Whatever stops being finite stops the run before the step, and is named; the student stays what it was."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.divergences import ForwardKL
from safekd.safety import TruthProbability
from safekd.teachers import StoredTeacher

from .problems import FreeLogits, Q, agreeing, at_least, one_each, same, state, trainer_for

NAN = math.nan
LAST = 4  # the poison works in the training step of this number, counted from 1


class Poison:
    """Counts training steps; is it time?"""

    def __init__(self, at: int = LAST) -> None:
        self.at, self.steps = at, 0

    def step(self) -> None:
        self.steps += 1

    @property
    def due(self) -> bool:
        return self.steps == self.at


class PoisonedStudent(FreeLogits):
    """Gives logits that are not finite, or a gradient that is not, once it is time."""

    def __init__(self, poison: Poison, output: float = 1.0, gradient: float = 1.0) -> None:
        super().__init__()
        self.poison, self.output, self.gradient = poison, output, gradient
        self.norm = nn.BatchNorm1d(3, dtype=torch.float64)

    def forward(self, inputs):
        logits = super().forward(inputs)
        if self.training:
            self.poison.step()
            if self.poison.due:
                logits = logits * self.output
                logits.register_hook(lambda slope: slope * self.gradient)
        self.norm(logits)  # its running averages move whenever the student is read in train mode
        return logits


class PoisonedLoss(ForwardKL):
    def __init__(self, poison: Poison, student: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "ask", lambda: poison.due and student.training)

    def __call__(self, log_q_V, logits_V):
        return super().__call__(log_q_V, logits_V) * (NAN if self.ask() else 1.0)


class PoisonedMeasure(TruthProbability):
    """Its surrogate, or only what it measures, stops being a number."""

    def __init__(self, poison: Poison, student: nn.Module, part: str) -> None:
        super().__init__(critical=[0])
        self.poison, self.student, self.part = poison, student, part

    def _measured(self, log_p_V, labels):
        bad = self.part == "measured" and self.poison.due and self.student.training
        return super()._measured(log_p_V, labels) * (NAN if bad else 1.0)

    def _surrogate(self, log_p_V, labels):
        bad = self.part == "surrogate" and self.poison.due and self.student.training
        return super()._measured(log_p_V, labels) * (NAN if bad else 1.0)


def build(kind: str, at: int = LAST) -> kd.ConstrainedTrainer:
    """A trainer that is poisoned in one place; at=0 never."""
    poison = Poison(at)
    output = {"output nan": NAN, "output inf": math.inf}.get(kind, 1.0)
    student = PoisonedStudent(poison, output, NAN if kind == "gradient" else 1.0)
    with torch.no_grad():
        student.logits += 0.1  # inf * 0 would be NaN already
    rule = at_least(0.6)
    if kind in ("surrogate", "measured"):
        rule = kd.SafetyConstraint("first", PoisonedMeasure(poison, student, kind), 0.6)
    loss = PoisonedLoss(poison, student) if kind == "loss" else None
    calm = at_least(0.1, "calm", critical=1)
    return trainer_for(calm, rule, student=student, divergence=loss)


CULPRITS = {
    "output nan": "The student's output is not finite",
    "output inf": "The student's output is not finite",
    "gradient": "The gradient of the student's parameter 'logits' is not finite",
    "loss": "The distillation loss is not finite",
    "surrogate": "The value of constraint 'first' is not finite",
    "measured": "The value of constraint 'first' is not finite",
}


@pytest.mark.parametrize("trace_every", [1, 100])
@pytest.mark.parametrize("kind", CULPRITS)
def test_the_step_is_not_taken_and_the_culprit_is_named(kind, trace_every):
    """The reference is the same run without poison, stopped one step earlier."""
    trainer = build(kind)
    result = trainer.fit(one_each(), epochs=50, trace_every=trace_every)
    clean = build(kind, at=0).fit(one_each(), epochs=LAST - 1, trace_every=trace_every)
    assert result.status == "diverged"
    assert result.message == f"{CULPRITS[kind]} at step {LAST}; the student was left as it was before that step."
    assert "mend what is named" in result.next_move
    assert same(state(result.student), state(clean.student))  # running averages too
    assert result.multipliers == clean.multipliers
    assert result.point.step == LAST - 1
    assert result.point.loss == clean.point.loss
    assert result.residuals == clean.residuals  # those of the student that is handed back


def test_without_poison_nothing_diverges():
    assert build("gradient", at=0).fit(one_each(), epochs=50).status != "diverged"


def test_a_first_step_that_fails_leaves_the_student_untouched():
    trainer = build("output nan", at=1)
    before = state(trainer.student)
    result = trainer.fit(one_each(), epochs=5)
    assert result.status == "diverged"
    assert "at step 1" in result.message
    assert same(state(result.student), before)
    assert list(result.multipliers.values()) == [0.0, 0.0]


def test_a_student_that_begins_broken_is_named_by_its_parameter():
    student = FreeLogits()
    with torch.no_grad():
        student.logits[0, 1] = NAN
    result = trainer_for(at_least(0.6), student=student).fit(one_each(), epochs=5)
    assert result.status == "diverged"
    assert "The student's parameter 'logits' is not finite at step 1" in result.message
    assert not result.feasible
    assert result.best_feasible is None


def test_a_step_that_throws_the_student_out_of_range_is_found_by_the_next_full_pass():
    student = FreeLogits(dtype=torch.float32)
    optimizer = torch.optim.SGD(student.parameters(), lr=1e30)
    trainer = kd.ConstrainedTrainer(student, agreeing(), constraints=[at_least(0.6)], optimizer=optimizer)
    for group in optimizer.param_groups:
        group["lr"] = math.inf
    result = trainer.fit(one_each(), epochs=5, trace_every=1)
    assert result.status == "diverged"
    assert "Not finite in the full pass after step 1: the distillation loss is nan" in result.message
    assert "result.most_feasible is a student from before" in result.next_move
    assert torch.isfinite(result.most_feasible.logits).all()
    assert not result.feasible


@pytest.mark.parametrize("bad", [NAN, math.inf])
def test_a_teacher_that_is_at_fault_is_named(bad):
    class Broken:
        name = "broken"

        def log_probabilities(self, batch, split):
            return torch.full((len(batch), 3), bad, dtype=torch.float64)

    trainer = trainer_for(at_least(0.6), teachers=[*agreeing(), Broken()])
    before = state(trainer.student)
    with pytest.raises(kd.InvalidInput, match="Teacher 'broken'"):
        trainer.fit(one_each(), epochs=5)
    assert same(state(trainer.student), before)


def test_a_module_teacher_that_is_at_fault_is_named():
    module = FreeLogits()
    with torch.no_grad():
        module.logits[0, 0] = NAN
    with pytest.raises(kd.InvalidInput, match="Teacher 'net' gave logits that are not finite on 'train'"):
        trainer_for(teachers=[kd.teachers.TorchTeacher("net", module)]).fit(one_each(), epochs=5)


def test_a_failed_run_is_written_like_any_other(tmp_path):
    result = build("loss").fit(one_each(), epochs=50, run_dir=tmp_path)
    assert (tmp_path / "verdict.json").read_text().count('"diverged"') == 1
    assert result.status == "diverged"


def test_huge_but_finite_numbers_are_no_divergence():
    teachers = [StoredTeacher("q", torch.tensor(Q).double().expand(3, -1))]
    student = FreeLogits()
    with torch.no_grad():
        student.logits[0, 0] = -600.0
    result = trainer_for(at_least(0.4), student=student, teachers=teachers).fit(one_each(), epochs=20)
    assert result.status != "diverged"
    assert result.point.loss > 100
