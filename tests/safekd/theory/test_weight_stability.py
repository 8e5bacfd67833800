"""Movement of students under perturbed weights, where the answer is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.errors import InvalidInput
from safekd.safety import TruthProbability
from safekd.teachers import StoredTeacher
from safekd.weights import Conforming, EntropyDecay, MultiLevel, Uniform

A, B = (0.7, 0.2, 0.1), (0.2, 0.3, 0.5)
BOX = kd.WeightPolytope(n_teachers=2, lower=0.1, upper=0.9)
SPLIT = kd.Split("train", torch.zeros(3, 1, dtype=torch.float64), torch.arange(3))


class OneRow(nn.Module):
    """Free logits, or their power, so that the loss is flat where the logits are 0."""

    def __init__(self, power=1):
        super().__init__()
        self.power = power
        self.theta = nn.Parameter(torch.full((3,), 0.5 if power > 1 else 0.0, dtype=torch.float64))

    def forward(self, inputs):
        return (self.theta**self.power).expand(len(inputs), -1)


def pose(student, teachers=(A, B), rule=None, constraints=(), lr=0.1, method=torch.optim.Adam):
    stored = [StoredTeacher(f"t{k}", torch.tensor([p] * 3, dtype=torch.float64)) for k, p in enumerate(teachers)]
    optimizer = method(student.parameters(), lr=lr)
    return kd.ConstrainedTrainer(student, stored, weights=rule, optimizer=optimizer, constraints=constraints)


@pytest.fixture(scope="module")
def found():
    student = OneRow()
    rule = Conforming(lambda s: torch.tensor([0.6, 0.4], dtype=torch.float64).expand(s.shape), BOX)
    before = student.theta.detach().clone()
    # plain descent leaves the sum of the logits alone, which the loss does not see
    trainer = pose(student, rule=rule, lr=2.0, method=torch.optim.SGD)
    result = kd.stability(trainer, SPLIT, delta=0.04, directions=2, epochs=600, tolerance=1e-9)
    assert torch.equal(student.theta, before)
    return result


def optimum(w):
    q = torch.tensor(A, dtype=torch.float64) * w + torch.tensor(B, dtype=torch.float64) * (1 - w)
    return q.log() - q.log().mean(), q


def test_the_students_move_as_the_closed_form_says(found):
    base, q = optimum(0.6)
    for row in found.table.itertuples():
        assert row.weights_moved == pytest.approx(row.delta)
        options = [optimum(0.6 + sign * row.delta) for sign in (1, -1)]
        distances = [float((theta - base).norm()) for theta, _ in options]
        assert min(abs(row.student_moved - d) for d in distances) < 1e-4
        variations = [float((other - q).abs().sum()) / 2 for _, other in options]
        assert min(abs(row.predictions_moved - v) for v in variations) < 1e-5


def test_the_rate_is_linear_and_the_excess_quadratic(found):
    assert found.student_rate.slope == pytest.approx(1, abs=0.02)
    assert found.excess_rate.slope == pytest.approx(2, abs=0.05)
    theta, _ = optimum(0.6)
    gradient = (optimum(0.6 + 1e-6)[0] - theta).norm() / 1e-6
    assert found.constant == pytest.approx(float(gradient), rel=0.1)
    assert "student moves by at most" in str(found)


def test_a_flat_loss_moves_faster_than_any_constant():
    """Logits theta^3 with a uniform pool: the optimum is the cube root of the logits."""
    base, away = (1 / 3, 1 / 3, 1 / 3), (0.4, 0.35, 0.25)
    student = OneRow(power=3)
    with torch.no_grad():
        student.theta.copy_(torch.tensor([0.05, 0.02, -0.07]))
    box = kd.WeightPolytope(n_teachers=2, lower=0.0, upper=1.0)
    rule = Conforming(lambda s: torch.tensor([1.0, 0.0], dtype=torch.float64).expand(s.shape), box)
    trainer = pose(student, (base, away), rule, lr=0.01)
    sizes = [0.01, 0.03, 0.1, 0.3]
    result = kd.stability(trainer, SPLIT, delta=sizes, directions=2, epochs=1500, tolerance=1e-12)
    moved = result.table[result.table["weights_moved"] > 1e-6]
    assert (moved["predictions_moved"] / moved["weights_moved"]).max() < 0.2
    assert result.student_rate.high < 0.9


def test_constraints_hold_under_perturbed_weights_too():
    rule = kd.SafetyConstraint("class 2", TruthProbability(critical=[2]), at_least=0.4)
    trainer = pose(OneRow(), rule=Uniform(), constraints=[rule])
    result = kd.stability(trainer, SPLIT, delta=[0.1], directions=2, epochs=300)
    assert result.table["safety_moved"].max() < 2e-3  # active before and after
    assert result.result.feasible
    assert result.student_rate is None  # two points have no band


def test_a_weight_at_a_bound_is_moved_inwards_only():
    rule = Conforming(lambda s: torch.tensor([1.0, 0.0], dtype=torch.float64).expand(s.shape), BOX)
    result = kd.stability(pose(OneRow(), rule=rule), SPLIT, delta=0.04, directions=4, epochs=60)
    assert {round(x, 6) for x in result.table["weights_moved"]} <= {0.0, 0.005, 0.01, 0.02, 0.04}
    assert math.isfinite(result.constant)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"delta": 0}, "`delta` is 0"),
        ({"delta": [0.1, 2]}, r"`delta` is \[0.1, 2\]"),
        ({"directions": 0}, "`directions` is 0"),
        ({"run_dir": "x"}, "`run_dir` was given to stability"),
    ],
)
def test_what_does_not_fit_is_refused(more, text):
    with pytest.raises(InvalidInput, match=text):
        kd.stability(pose(OneRow()), SPLIT, epochs=2, **more)


def test_rules_that_learn_and_single_teachers_are_refused():
    with pytest.raises(InvalidInput, match="learns"):
        kd.stability(pose(OneRow(), rule=MultiLevel(2, 1)), SPLIT, epochs=2)
    with pytest.raises(InvalidInput, match="at least two teachers"):
        kd.stability(pose(OneRow(), (A,), EntropyDecay()), SPLIT, epochs=2)
    point = Conforming(Uniform(), kd.WeightPolytope(n_teachers=2, lower=0.5, upper=0.5))
    with pytest.raises(InvalidInput, match="No perturbation moved a weight"):
        kd.stability(pose(OneRow(), rule=point), SPLIT, epochs=2)
