"""Steps of the last correction that look at the loss, beside closed forms of quadratic programs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from safekd.training.checkpoints import ConstraintGaps, LossCurvature, correct_constraints
from safekd.training.checkpoints._correction_step import find_steps, move_parameters
from tests.support.curves import t as vec
from tests.support.problems import FreeLogits

H_33 = torch.diag(vec(100.0, 1.0, 10.0)) + 0.5
NONE, ONE = vec(0.0), torch.tensor([True])


class Quadratic:
    """f = (x - best)' H (x - best) / 2 under rows ``threshold - a . x <= 0``, at a student of one row of parameters."""

    def __init__(self, start: Tensor, best: Tensor, rows: list[tuple[Tensor, float]], tilt: float = 0.0) -> None:
        self.student, self.best, self.tilt, self.asked = FreeLogits(), best, tilt, 0
        self.a_M3, self.threshold_M = torch.stack([a for a, _ in rows]), vec(*(b for _, b in rows))
        with torch.no_grad():
            self.student.logits.copy_(start)

    @property
    def x(self) -> Tensor:
        return self.student.logits[0].detach()

    @property
    def loss(self) -> float:
        return float((self.x - self.best) @ H_33 @ (self.x - self.best)) / 2

    def gradient(self) -> Tensor:
        self.asked += 1
        return H_33 @ (self.x - self.best)

    def read(self) -> ConstraintGaps:
        """Rows bend as ``tilt x_1^2`` says, which a linear model does not know."""
        bent_3 = vec(0.0, 2 * self.tilt, 0.0) * self.x
        g_M = self.threshold_M - self.a_M3 @ self.x + self.tilt * self.x[1] ** 2
        return ConstraintGaps(bent_3 - self.a_M3, g_M, H_33 @ (self.x - self.best))

    def curvature(self, passes: int = 99) -> LossCurvature:
        return LossCurvature([self.student.logits], self.gradient, passes)

    def correct(self, passes: int, multiplier: Tensor) -> ConstraintGaps | None:
        smooth_M = torch.ones(len(self.a_M3), dtype=torch.bool)
        curvature = self.curvature(passes) if passes else None
        return correct_constraints(self.student, self.read(), self.read, multiplier, smooth_M, 1e-6, curvature)


def solve_exactly(best: Tensor, a_3: Tensor, threshold: float) -> Tensor:
    """Return the x of least loss with ``a . x = threshold``: best + H^-1 a (threshold - a . best) / (a . H^-1 a)."""
    direction_3 = torch.linalg.solve(H_33, a_3)
    return best + direction_3 * (threshold - a_3 @ best) / (a_3 @ direction_3)


def test_a_constraint_is_met_where_the_loss_is_least():
    """The smallest step goes where the loss bends most: it costs eight times the least."""
    best, a_3 = vec(0.3, -0.2, 0.1), vec(1.0, 0.5, 0.0)
    small, looks = (Quadratic(best, best, [(a_3, 0.4)]) for _ in range(2))
    small.correct(0, vec(1.0))
    wanted_3 = solve_exactly(best, a_3, 0.4)
    looks.correct(99, vec(1.0))
    assert small.read().g_M.item() == pytest.approx(0.0, abs=1e-6)
    assert looks.read().g_M.item() == pytest.approx(0.0, abs=1e-6)
    least = float((wanted_3 - best) @ H_33 @ (wanted_3 - best)) / 2
    assert small.loss > 8 * least
    assert looks.loss < 0.5 * small.loss


def test_a_step_within_the_radius_ends_at_the_exact_answer():
    """Far from the constraint and near to the best place along it."""
    a_3 = vec(1.0, 0.1, 0.1)
    best = vec(0.0, 0.0, 0.0)
    wanted_3 = solve_exactly(best, a_3, 1.0)
    problem = Quadratic(wanted_3 - 1.0 * a_3 + vec(0.0, 0.05, -0.05), best, [(a_3, 1.0)])
    problem.correct(99, vec(1.0))
    assert problem.x.tolist() == pytest.approx(wanted_3.tolist(), abs=1e-3)


def test_a_step_moves_no_further_along_its_constraints_than_onto_them():
    best, a_3 = vec(0.0, 50.0, 0.0), vec(1.0, 0.0, 0.0)  # far more is to be gained than the correction is for
    problem = Quadratic(vec(0.9, 0.0, 0.0), best, [(a_3, 1.0)])
    looks_3, onto_3 = find_steps(problem.read(), vec(0.1), ONE, 1e-6, problem.curvature())
    assert onto_3.tolist() == pytest.approx([0.1, 0.0, 0.0])
    assert (looks_3 - onto_3).norm() == pytest.approx(0.1)
    assert float(a_3 @ looks_3) == pytest.approx(0.1)
    assert problem.x.tolist() == [0.9, 0.0, 0.0]  # put back after each gradient


def test_a_loss_that_bends_downward_is_followed_to_the_radius():
    problem = Quadratic(vec(0.9, 0.0, 0.0), vec(0.0, 0.0, 0.0), [(vec(1.0, 0.0, 0.0), 1.0)])
    here = problem.read()
    downward = LossCurvature([problem.student.logits], lambda: -10 * problem.x, 99)
    tilted = ConstraintGaps(here.jacobian_Mn, here.g_M, vec(0.0, 0.0, 0.01))
    looks_3, onto_3 = find_steps(tilted, vec(0.1), ONE, 1e-6, downward)
    assert (looks_3 - onto_3).tolist() == pytest.approx([0.0, 0.0, -0.1], abs=1e-6)


@pytest.mark.parametrize(("passes", "steps"), [(0, 1), (2, 1), (3, 2), (99, 2)])
def test_a_correction_asks_for_no_more_gradients_than_it_may(passes, steps):
    best = vec(0.3, -0.2, 0.1)
    problem = Quadratic(best, best, [(vec(1.0, 0.5, 0.0), 0.9)])
    assert len(list(find_steps(problem.read(), vec(0.1), ONE, 1e-6, problem.curvature(passes)))) == steps
    assert problem.asked <= min(passes, 7)


def test_a_constraint_that_the_step_would_violate_is_kept():
    """The second row is met with .02 to spare, and its gradient is nearly the opposite of the first one's."""
    rows = [(vec(1.0, 0.0, 0.0), 1.0), (vec(-1.0, 0.2, 0.0), -0.92)]
    for passes in (0, 99):
        problem = Quadratic(vec(0.9, 0.0, 0.0), vec(0.9, 0.0, 0.0), rows)
        assert problem.read().g_M.tolist() == pytest.approx([0.1, -0.02])
        assert problem.correct(passes, vec(1.0, 0.0)) is not None
        assert float(problem.read().g_M.max()) <= 1e-6


def test_the_smallest_step_is_taken_where_one_that_looks_at_the_loss_misses():
    """Along x_1 the loss falls a lot, and the row, which is bent, is missed by more than before."""
    problem = Quadratic(vec(0.9, 0.0, 0.0), vec(0.9, 5.0, 0.0), [(vec(1.0, 0.0, 0.0), 1.0)], tilt=40.0)
    here, first = problem.read(), problem.curvature()
    looks_3 = next(find_steps(here, vec(0.1), ONE, 1e-6, first))
    with torch.no_grad():
        move_parameters([problem.student.logits], looks_3)
        missed = problem.read().g_M.item()
        move_parameters([problem.student.logits], -looks_3)
    assert missed > here.g_M.item()  # the test means something
    problem.correct(7, vec(1.0))
    assert problem.read().g_M.item() <= 1e-6


def test_constraints_whose_gradients_agree_share_a_step():
    rows = [(vec(1.0, 0.5, 0.0), 1.0), (vec(1.0, 0.5, 0.0), 1.0)]
    problem = Quadratic(vec(0.5, 0.0, 0.0), vec(0.5, 0.0, 0.0), rows)
    problem.correct(99, vec(1.0, 1.0))
    assert problem.read().g_M.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
