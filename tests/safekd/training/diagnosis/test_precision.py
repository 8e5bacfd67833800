"""Verdicts follow the floats that a student computes in: rounding is no asymmetry, no saddle and no descent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.safety import TruthProbability

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


class TwoLayers(nn.Module):
    """Layers of two dtypes, or one of them under autocast."""

    def __init__(self, first=F32, last=F32, autocast=None):
        super().__init__()
        self.first, self.last, self.autocast = nn.Linear(2, 16).to(first), nn.Linear(16, 2).to(last), autocast

    def forward(self, x):
        with torch.autocast("cpu", dtype=self.autocast, enabled=self.autocast is not None):
            hidden = torch.tanh(self.first(x.to(self.first.weight)))
            return self.last(hidden.to(self.last.weight))


def fit(student, seed, dtype=F32, *, lr, epochs, tolerance):
    torch.manual_seed(0)
    inputs = torch.randn(200, 2)
    train = kd.Split("train", inputs.to(dtype), (inputs[:, 0] + 0.3 * torch.randn(200) > 0).long())
    teacher = kd.teachers.CallableTeacher("t", lambda x: torch.stack([-x[:, 0] - 1, x[:, 0] + 1], 1), gives="logits")
    rule = kd.SafetyConstraint("class 0", measure=TruthProbability(critical=[0]), at_least=0.7)
    torch.manual_seed(seed)
    model = student()
    adam = torch.optim.Adam(model.parameters(), lr=lr)
    trainer = kd.ConstrainedTrainer(model, [teacher], constraints=[rule], optimizer=adam, seed=seed)
    return trainer.fit(train, epochs=epochs, tolerance=tolerance)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("dtype", "bias"), [(F16, True), (F32, True), (F32, False), (F64, True)])
def test_a_linear_student_converges_in_any_dtype(dtype, seed, bias):
    """Softmax does not see a shift of all logits, so half of the Hessian is nothing but rounding."""
    result = fit(lambda: nn.Linear(2, 2, bias=bias).to(dtype), seed, dtype, lr=0.05, epochs=600, tolerance=1e-3)
    assert result.status == "converged", result.message
    assert abs(result.verdict.evidence["least_curvature"]) < 0.01


COARSE = {
    "bf16": lambda: nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).to(BF16),
    "body in bf16": lambda: TwoLayers(first=BF16),
    "head in bf16": lambda: TwoLayers(last=BF16),
    "head in float64": lambda: TwoLayers(last=F64),
    "autocast": lambda: TwoLayers(autocast=BF16),
}


@pytest.mark.parametrize("kind", COARSE)
def test_mixed_and_coarse_floats_converge(kind):
    dtype = BF16 if kind == "bf16" else F32
    result = fit(COARSE[kind], 0, dtype, lr=0.01, epochs=1500, tolerance=2e-2)
    assert result.status == "converged", result.message


@pytest.mark.parametrize("seed", range(3))
def test_a_saddle_still_shows_in_float32(seed):
    """A layer of zeros on symmetric data never learns, and is no minimum."""
    torch.manual_seed(seed)
    corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    labels = torch.tensor([0, 1, 1, 0])
    student = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    with torch.no_grad():
        for p in student[0].parameters():
            p.zero_()
    teacher = kd.teachers.StoredTeacher("t", torch.eye(2)[labels] * 0.8 + 0.1)
    sgd = torch.optim.SGD(student.parameters(), lr=0.1)
    trainer = kd.ConstrainedTrainer(student, [teacher], optimizer=sgd)
    result = trainer.fit(kd.Split("train", corners, labels), epochs=200, tolerance=2e-2)
    assert result.status == "stationary_unverified", result.message
