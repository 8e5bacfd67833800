"""Batches of their own for the penalty term, and losses and constraints in other units."""

from __future__ import annotations

import pytest
import torch

import safekd as kd
from safekd.divergences import ForwardKL
from safekd.errors import InvalidInput
from safekd.safety import Custom
from safekd.training.loop.step._step_values import StepValues
from tests.support.problems import FreeLogits, agreeing, answer, at_least, one_each, optimal_multiplier, trainer_for

from ..test_trainer import noisy


def test_independent_batches_find_the_same_answer():
    data, teachers, q = noisy()
    trainer = trainer_for(at_least(0.6), teachers=teachers, batch_size=8, lr=0.05, independent_batches=True)
    result = trainer.fit(data, epochs=200, tolerance=1e-9)
    assert result.student.p() == pytest.approx(answer(0.6, q), abs=0.03)
    assert result.multipliers["first"] == pytest.approx(optimal_multiplier(0.6, q), rel=0.15)


def test_values_come_from_the_other_batch_and_gradients_from_this_one(monkeypatch):
    """Two rows of logits, of which a batch sees one: the multiplier moves by the row that the batch does not see."""
    data = kd.Split("train", torch.arange(2.0)[:, None], torch.tensor([0, 0]))
    student = FreeLogits(rows=2)
    with torch.no_grad():
        student.logits[1, 0] = 2.0
    trainer = trainer_for(
        at_least(0.7), student=student, teachers=agreeing(examples=2), batch_size=1, independent_batches=True, seed=3
    )
    seen = []
    move = StepValues.move_multipliers

    def spy(self, loss, surrogate, measured, present):
        seen.append((surrogate.item(), measured.item()))
        return move(self, loss, surrogate, measured, present)

    monkeypatch.setattr(StepValues, "move_multipliers", spy)
    trainer.fit(data, epochs=1)
    p = torch.softmax(torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64), 0)[0].item()
    surrogate, measured = seen[0]
    assert {round(0.7 - surrogate, 6), round(0.7 - measured, 6)} == {round(p, 6), round(1 / 3, 6)}
    assert len(seen) == 2


def test_independent_batches_of_everything_are_refused():
    with pytest.raises(InvalidInput, match="`independent_batches` needs minibatches: give `batch_size`"):
        trainer_for(at_least(0.6), independent_batches=True)


@pytest.mark.parametrize(("loss", "row"), [(1024.0, 1.0), (1.0, 2.0**-10)])  # powers of two round alike
def test_units_change_no_step_of_a_run(loss, row):
    """Adam is free of the loss's units, the engine of both."""

    class Scaled(ForwardKL):
        def __call__(self, log_q_V, logits_V):
            return loss * super().__call__(log_q_V, logits_V)

    def run(divergence, scale):
        student = FreeLogits()
        truth = Custom(
            lambda log_p, y: scale * log_p.gather(-1, y[..., None])[..., 0].exp(),
            lambda log_p, y: scale * log_p.gather(-1, y[..., None])[..., 0].exp(),
            critical=[0],
        )
        adam = torch.optim.Adam(student.parameters(), lr=0.02, eps=1e-30)
        rule = kd.SafetyConstraint("first", truth, 0.6 * scale)
        trainer = kd.ConstrainedTrainer(student, agreeing(), constraints=[rule], optimizer=adam, divergence=divergence)
        return trainer.fit(one_each(), epochs=600, tolerance=1e-9)

    plain, other = run(ForwardKL(), 1.0), run(Scaled(), row)
    assert other.student.p() == pytest.approx(plain.student.p(), abs=1e-9)
    assert plain.student.p()[0] == pytest.approx(0.6, abs=1e-3)
    assert other.multipliers["first"] * row / loss == pytest.approx(plain.multipliers["first"], rel=1e-6)
