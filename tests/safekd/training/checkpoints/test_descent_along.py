"""The last steps along active constraints, beside closed forms of quadratic programs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from safekd.training.checkpoints import ConstraintGaps, LossCurvature
from safekd.training.checkpoints._descent_along import SETTINGS, descend_along_constraints
from tests.support.curves import t as vec
from tests.support.problems import FreeLogits

H_33 = torch.diag(vec(100.0, 1.0, 10.0)) + 0.5
BEST, ROW, THRESHOLD = vec(0.3, -0.4, 0.1), vec(1.0, 1.0, 0.0), 1.0
TOLERANCE = 1e-3
ONE, NONE = torch.tensor([True]), torch.tensor([False])


class OnAConstraint:
    """f = (x - best)' H (x - best) / 2 under ``threshold - a . x + tilt x_2^2 <= 0``; x is a student's parameters."""

    def __init__(self, start: Tensor, tilt: float = 0.0) -> None:
        self.student, self.tilt, self.reads, self.gradients = FreeLogits(), tilt, 0, 0
        with torch.no_grad():
            self.student.logits.copy_(start)

    @property
    def x(self) -> Tensor:
        return self.student.logits[0].detach().clone()

    def gradient(self) -> Tensor:
        self.gradients += 1
        return H_33 @ (self.x - BEST)

    def read(self) -> ConstraintGaps:
        self.reads += 1
        off = self.x - BEST
        g = THRESHOLD - ROW @ self.x + self.tilt * self.x[2] ** 2
        bent_3 = vec(0.0, 0.0, 2 * self.tilt) * self.x
        return ConstraintGaps((bent_3 - ROW)[None], g[None], H_33 @ off, loss=float(off @ H_33 @ off) / 2)

    def descend(self, active_M: Tensor = ONE, passes: int = 999) -> bool:
        curvature = LossCurvature([self.student.logits], self.gradient, passes) if passes else None
        return descend_along_constraints(self.student, self.read(), self.read, active_M, TOLERANCE, curvature)


def solve_exactly() -> Tensor:
    """Return the x of least loss with ``a . x = threshold``: best + H^-1 a (threshold - a . best) / (a . H^-1 a)."""
    direction_3 = torch.linalg.solve(H_33, ROW)
    return BEST + direction_3 * (THRESHOLD - ROW @ BEST) / (ROW @ direction_3)


ON_THE_LINE = vec(0.35, 0.65, 0.4)


@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_a_student_on_its_constraint_goes_on_to_where_the_loss_is_least(tilt):
    problem = OnAConstraint(ON_THE_LINE + vec(0.0, tilt * 0.16, 0.0), tilt)
    before = problem.read()
    assert problem.descend()
    after = problem.read()
    assert float(after.g_M) <= TOLERANCE
    assert after.loss < before.loss
    if not tilt:
        torch.testing.assert_close(problem.x, solve_exactly().to(problem.x), atol=2e-3, rtol=0.0)


def test_a_step_that_bends_off_its_constraint_is_put_back_onto_it():
    problem = OnAConstraint(vec(0.2, 0.8 + 3 * 0.16, 0.4), tilt=3.0)
    assert problem.descend()
    assert float(problem.read().g_M) <= TOLERANCE


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_no_more_steps_are_taken_than_the_settings_say(steps, monkeypatch):
    monkeypatch.setattr("safekd.training.checkpoints._descent_along.SETTINGS", type(SETTINGS)(steps=steps))
    problem = OnAConstraint(ON_THE_LINE)
    assert problem.descend() == (steps > 0)
    assert problem.reads == 1 + steps  # a line is not left


def test_a_first_step_is_as_long_as_the_settings_say(monkeypatch):
    monkeypatch.setattr("safekd.training.checkpoints._descent_along.SETTINGS", type(SETTINGS)(steps=1))
    problem = OnAConstraint(ON_THE_LINE)
    before = problem.x
    assert problem.descend()
    assert float((problem.x - before).norm()) == pytest.approx(SETTINGS.first * float(before.norm()), rel=1e-4)


@pytest.mark.parametrize("passes", [0, 1, 2])
def test_without_passes_a_student_stays(passes):
    problem = OnAConstraint(ON_THE_LINE)
    assert not problem.descend(passes=passes)
    torch.testing.assert_close(problem.x, ON_THE_LINE.to(problem.x), atol=0.0, rtol=0.0)


def test_passes_are_not_overdrawn():
    problem = OnAConstraint(ON_THE_LINE)
    assert problem.descend(passes=8)
    assert problem.gradients <= 8


def test_a_student_that_no_constraint_holds_back_stays():
    problem = OnAConstraint(ON_THE_LINE)
    assert not problem.descend(active_M=NONE)


def test_a_student_that_misses_a_constraint_stays():
    problem = OnAConstraint(ON_THE_LINE - 0.1)
    assert not problem.descend()


def test_a_student_at_the_least_loss_is_left_to_the_last_bit():
    problem = OnAConstraint(solve_exactly())
    before = problem.x
    problem.descend()
    assert float((problem.x - before).norm()) < 1e-4
