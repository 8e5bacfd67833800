"""Half types: the student computes in them, loss and measures do not, and an overflow costs a step, not the run."""

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.safety import TruthProbability
from safekd.teachers import StoredTeacher

N, FEATURES, CLASSES = 120, 6, 3


class Watched(nn.Module):
    """A student that remembers the types of its outputs, and scales them."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))
        self.scale, self.types = scale, set()

    def forward(self, x):
        logits = self.layers(x)
        self.types.add(logits.dtype)
        return logits * self.scale


def fit(autocast=None, microbatch_size=None, student=None, epochs=60):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(N, FEATURES, generator=draw)
    labels = torch.randint(CLASSES, (N,), generator=draw)
    rows = torch.softmax(2 * torch.randn(N, CLASSES, generator=draw), -1)
    student = Watched() if student is None else student
    trainer = kd.ConstrainedTrainer(
        student,
        [StoredTeacher("t", rows)],
        constraints=[kd.SafetyConstraint("a", TruthProbability(critical=[0]), 0.6)],
        optimizer=torch.optim.Adam(student.parameters(), lr=0.01),
        batch_size=40,
        microbatch_size=microbatch_size,
        autocast=autocast,
    )
    return trainer.fit(kd.Split("train", x, labels), epochs=epochs), student


@pytest.mark.parametrize("microbatch_size", [None, 16])
@pytest.mark.parametrize(("name", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_the_student_computes_in_half_and_the_answer_is_that_of_float32(name, dtype, microbatch_size):
    full, _ = fit()
    half, student = fit(name, microbatch_size)
    assert student.types == {dtype}
    assert half.point.loss == pytest.approx(full.point.loss, rel=0.02)
    assert half.point.readings[0].measured == pytest.approx(full.point.readings[0].measured, abs=0.01)
    assert all(p.dtype == torch.float32 for p in half.student.parameters())


def test_gradients_beyond_float16_leave_steps_out_until_the_scale_suits_them():
    result, _ = fit("float16", student=Watched(scale=300.0), epochs=10)
    assert 0 < result.trace["skipped_steps"].sum() < 30
    assert result.status != "diverged"
    assert all(bool(torch.isfinite(p).all()) for p in result.student.parameters())


class Explodes(Watched):
    """A student whose gradients are infinite whatever the scale, and whose outputs are not."""

    def forward(self, x):
        return self.layers(x) + (self.layers[0].weight.sum() * 0).abs().sqrt()


def test_gradients_that_no_scale_can_save_end_the_run():
    result, _ = fit("float16", student=Explodes(), epochs=30)
    assert result.status == "diverged"
    assert "gradient" in result.message
    assert result.trace["skipped_steps"].sum() >= 20
