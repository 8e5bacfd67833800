"""The last correction onto what counts: examples change sides one by one, and the gradient is that of a surrogate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from safekd.training.checkpoints import ConstraintGaps, correct_constraints
from tests.support.curves import t as vec
from tests.support.problems import FreeLogits

TOLERANCE = 1e-3
NONE = vec(0.0)


class Count:
    """Examples count where x_0 is above their bars; the surrogate is a mean of sigmoids; the loss is |x|^2 / 2."""

    def __init__(self, bars: Tensor, required: float, start: float = 0.0, width: float = 0.1) -> None:
        self.student, self.bars, self.required, self.width = FreeLogits(), bars, required, width
        self.reads = 0
        with torch.no_grad():
            self.student.logits.zero_()[0, 0] = start

    @property
    def x(self) -> Tensor:
        return self.student.logits[0].detach()

    @property
    def measured(self) -> float:
        return float((self.x[0] > self.bars).double().mean())

    def read(self) -> ConstraintGaps:
        self.reads += 1
        share = torch.sigmoid((self.x[0].double() - self.bars) / self.width)
        rate = float((share * (1 - share)).mean()) / self.width
        jacobian_13 = torch.cat([vec(-rate), vec(0.0, 0.0)])[None].double()
        return ConstraintGaps(
            jacobian_13,
            torch.tensor([self.required - self.measured]).double(),
            self.x.double(),
            torch.tensor([self.required - float(share.mean())]).double(),
        )

    def correct(self) -> ConstraintGaps | None:
        here = self.read()
        self.reads = 0
        return correct_constraints(self.student, here, self.read, NONE, torch.tensor([False]), TOLERANCE)


def test_a_count_is_met_though_it_rests_while_the_surrogate_rises():
    """The nearest bar is further off than the first steps go: they change no count."""
    problem = Count(torch.tensor([-1.0] * 88 + [0.2] * 12), required=0.9, width=0.3)
    first = problem.read()
    assert first.g_M.item() == pytest.approx(0.02)
    step = first.g_M.item() / -first.jacobian_Mn[0, 0].item()
    assert step < 0.2  # the test means something
    assert problem.correct() is not None
    assert problem.measured >= 0.9
    assert problem.reads > 1


def test_a_student_that_is_carried_beyond_what_it_missed_has_met_it():
    """One example is missing, and the nearest bar is that of ten."""
    problem = Count(torch.tensor([-1.0] * 89 + [0.01] * 10 + [3.0]), required=0.9, width=0.02)
    there = problem.correct()
    assert there is not None
    assert there.g_M.item() == pytest.approx(-0.09)


def test_a_step_beyond_the_threshold_is_shortened_to_what_meets_it():
    """Bars stand one beside the other, but the surrogate is flat: the first step meets ten times what was missing."""
    bars = torch.cat([torch.full((80,), -1.0), torch.linspace(0.01, 1.0, 20)])
    problem = Count(bars, required=0.82, width=2.0)
    first = problem.read()
    step = first.g_M.item() / -first.jacobian_Mn[0, 0].item()
    assert float((step > bars).double().mean()) >= 0.83
    there = problem.correct()
    assert there is not None
    assert 0.82 <= problem.measured < float((step > bars).double().mean())
    assert problem.x[0] <= 0.06 + step / 8  # the second of the missing bars, and an eighth of the step


def test_a_count_that_is_met_with_some_to_spare_is_left_alone():
    problem = Count(torch.tensor([-1.0] * 95 + [1.0] * 5), required=0.9)
    assert problem.correct() is None
    assert problem.x.tolist() == [0.0, 0.0, 0.0]


def test_a_count_that_no_step_brings_nearer_leaves_the_student_alone():
    """All that does not count yet lies where the surrogate has no gradient."""
    problem = Count(torch.tensor([-50.0] * 80 + [50.0] * 20), required=0.9)
    assert problem.correct() is None
    assert problem.x.tolist() == [0.0, 0.0, 0.0]
