"""Whatever stops being finite stops the run before the step, and is named; the student stays what it was."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.divergences import ForwardKL
from safekd.safety import TruthProbability
from safekd.teachers import StoredTeacher, TeacherEnsemble
from tests.support.problems import FreeLogits, Q, agreeing, at_least, one_each, same, state, trainer_for

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
                logits.register_hook(lambda gradient: gradient * self.gradient)
        self.norm(logits)  # its running averages move whenever the student is read in train mode
        return logits


class PoisonedLoss(ForwardKL):
    """Is no number, or infinite for example 1 alone."""

    def __init__(self, poison: Poison, student: nn.Module, by: float | list[float]) -> None:
        super().__init__()
        object.__setattr__(self, "ask", lambda: poison.due and student.training)
        object.__setattr__(self, "by", torch.tensor(by))

    def __call__(self, log_q_V, logits_V):
        return super().__call__(log_q_V, logits_V) * (self.by if self.ask() else 1.0)


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
        value = super()._measured(log_p_V, labels)
        if self.part == "constraint's gradient" and self.poison.steps >= self.poison.at > 0 and self.student.training:
            value = value + 0 * torch.sqrt(value.detach() * 0 + 0 * value)  # 0, and its gradient is 0 / 0
        return value * (NAN if bad else 1.0)


def build(kind: str, at: int = LAST) -> kd.ConstrainedTrainer:
    """A trainer that is poisoned in one place; at=0 never."""
    poison = Poison(at)
    output = {"output nan": NAN, "output inf": math.inf}.get(kind, 1.0)
    student = PoisonedStudent(poison, output, NAN if kind == "gradient" else 1.0)
    with torch.no_grad():
        student.logits += 0.1  # inf * 0 would be NaN already
    rule = at_least(0.6)
    if kind in ("surrogate", "measured", "constraint's gradient"):
        rule = kd.SafetyConstraint("first", PoisonedMeasure(poison, student, kind), 0.6)
    by = {"loss": NAN, "one example": [1.0, math.inf, 1.0]}.get(kind)
    loss = None if by is None else PoisonedLoss(poison, student, by)
    calm = at_least(0.1, "calm", critical=1)
    return trainer_for(calm, rule, student=student, divergence=loss)


CULPRITS = {
    "output nan": "The student's output is not finite",
    "output inf": "The student's output is not finite",
    "gradient": "The gradient of the student's parameter 'logits' is not finite",
    "loss": "The distillation loss is not finite",
    "surrogate": "The surrogate of constraint 'first' is not finite",
    "measured": "The measured value of constraint 'first' is not finite",
    "constraint's gradient": "The gradient of constraint 'first' in the student's parameter 'logits' is not finite",
    "one example": "The distillation loss of example 1 is not finite",
}


@pytest.mark.parametrize("trace_every", [1, 100])
@pytest.mark.parametrize("kind", CULPRITS)
def test_the_step_is_not_taken_and_its_source_is_named(kind, trace_every):
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


class Spoilt(torch.optim.Adam):
    """Adam whose rate turns into something else for one step."""

    def __init__(self, student: nn.Module, poison: Poison, rate: float) -> None:
        super().__init__(student.parameters(), lr=0.1)
        self.poison, self.rate = poison, rate

    def zero_grad(self, set_to_none: bool = True) -> None:
        if self.poison.due:
            self.param_groups[0]["lr"] = self.rate
        super().zero_grad(set_to_none)


@pytest.mark.parametrize(
    ("rate", "gradient", "said"),
    [
        (math.inf, 1.0, "The optimizer's step makes the student's parameter 'logits' not finite"),
        (NAN, 1.0, "The optimizer's step makes the student's parameter 'logits' not finite"),
        (0.1, 1e200, "The gradient's norm is too large for its number type"),  # its square would be
    ],
)
def test_a_step_that_leaves_the_range_of_numbers_is_taken_back(rate, gradient, said):
    """Weights, moments, buffers and multipliers are those of a run that ended one step earlier."""

    def run(at: int, epochs: int):
        poison = Poison(at)
        student = PoisonedStudent(poison, gradient=gradient)
        optimizer = Spoilt(student, poison, rate)
        trainer = kd.ConstrainedTrainer(student, agreeing(), constraints=[at_least(0.6)], optimizer=optimizer)
        return trainer.fit(one_each(), epochs=epochs), optimizer

    (result, optimizer), (clean, calm) = run(LAST, 50), run(0, LAST - 1)
    assert result.status == "diverged"
    assert result.message == f"{said} at step {LAST}; the student was left as it was before that step."
    assert same(state(result.student), state(clean.student))
    assert result.multipliers == clean.multipliers
    [moments, expected] = [next(iter(one.state.values())) for one in (optimizer, calm)]
    assert same(moments, expected)


def test_a_first_step_that_leaves_the_range_leaves_no_moments_behind():
    student = FreeLogits()
    before = state(student)
    optimizer = torch.optim.Adam(student.parameters(), lr=math.inf)
    trainer = kd.ConstrainedTrainer(student, agreeing(), constraints=[at_least(0.6)], optimizer=optimizer)
    assert trainer.fit(one_each(), epochs=5).status == "diverged"
    assert same(state(student), before)
    assert not optimizer.state


@pytest.mark.parametrize("bad", [NAN, math.inf])
def test_a_teacher_that_is_at_fault_is_named(bad):
    """On one example alone."""

    class Broken:
        name = "broken"

        def log_probabilities(self, batch, split):
            rows = torch.full((len(batch), 3), 1 / 3, dtype=torch.float64).log()
            rows[batch.index == 2, 0] = bad
            return rows

    trainer = trainer_for(at_least(0.6), teachers=[*agreeing(), Broken()])
    before = state(trainer.student)
    result = trainer.fit(one_each(), epochs=5)
    assert result.status == "diverged"
    assert "Teacher 'broken' gave values whose exponentials sum to" in result.message
    assert "for example 2 at step 1; the student was left as it was" in result.message
    assert same(state(trainer.student), before)
    assert list(result.multipliers.values()) == [0.0]


def test_a_teacher_that_breaks_while_training_is_named():
    """Where nothing is kept, teachers are asked every step."""
    poison = Poison()

    class Breaking:
        name = "breaking"

        def log_probabilities(self, batch, split):
            rows = torch.full((len(batch), 3), 1 / 3, dtype=torch.float64).log()
            return rows * NAN if poison.due else rows

    def run(at: int, epochs: int):
        poison.at, poison.steps = at, 0
        student = PoisonedStudent(poison)
        ensemble = TeacherEnsemble([*agreeing(), Breaking()], cache_limit=0)
        trainer = trainer_for(at_least(0.6), student=student, teachers=ensemble)
        return trainer.fit(one_each(), epochs=epochs, trace_every=100)

    result, clean = run(LAST, 50), run(0, LAST - 1)
    assert result.status == "diverged"
    assert (
        f"Teacher 'breaking' gave values whose exponentials sum to nan for example 0 at step {LAST}" in result.message
    )
    assert same(state(result.student), state(clean.student))
    assert result.multipliers == clean.multipliers


def test_a_module_teacher_that_is_at_fault_is_named():
    module = FreeLogits()
    with torch.no_grad():
        module.logits[0, 0] = NAN
    result = trainer_for(teachers=[kd.teachers.TorchTeacher("net", module)]).fit(one_each(), epochs=5)
    assert result.status == "diverged"
    assert "Teacher 'net' gave logits that are not finite on 'train', example 0 at step 1" in result.message


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
