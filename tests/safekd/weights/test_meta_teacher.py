"""The meta-teacher's look-ahead against second-order autograd, and what it learns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from safekd.weights import (
    EntropyDecay,
    MetaTeacher,
    StudentStep,
    Unified,
)
from safekd.weights.learned._meta_teacher import look_ahead
from solvers.polytope import WeightPolytope
from tests.support.learning import (
    D,
    drawn_inputs,
    drawn_signals,
    right_and_wrong,
    small_net,
    step_with,
    stirred,
    trained,
)
from tests.support.weighting import t

# ---- MetaTeacher -----------------------------------------------------------------------------------------------------


def reference_loss(student, inputs, signals, w_K, temperature, hard, rate):
    """Cross-entropy on the hard positions after the look-ahead, as a function of the weights, by its definition."""
    theta = {name: p.detach().clone().requires_grad_() for name, p in student.named_parameters() if p.requires_grad}
    z_V = functional_call(student, theta, (inputs,))
    s_V = torch.log_softmax(z_V / temperature, -1).unsqueeze(-2)
    p_KV = torch.softmax(signals.log_p / temperature, -1)
    kd_K = temperature**2 * (p_KV * (p_KV.log() - s_V)).sum(-1)
    slopes = torch.autograd.grad((w_K * kd_K).sum(-1).mean(), list(theta.values()), create_graph=True)
    ahead = {name: p - rate * slope for (name, p), slope in zip(theta.items(), slopes, strict=True)}
    labels = signals.labels.flatten()
    before = torch.nn.functional.cross_entropy(z_V.flatten(0, -2), labels, reduction="none")
    worst = before.argsort(descending=True)[: math.ceil(hard * len(before))]
    after = torch.nn.functional.cross_entropy(
        functional_call(student, ahead, (inputs,)).flatten(0, -2), labels, reduction="none"
    )
    return after[worst].mean()


class Cubed(torch.autograd.Function):
    """An operation that knows how to go backwards only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * slope


class CubedNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(D, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.outer(Cubed.apply(torch.tanh(self.inner(x))))


def attentive() -> nn.Module:
    layer = nn.TransformerEncoderLayer(D, nhead=2, dim_feedforward=8, dropout=0.1, batch_first=True)
    return nn.Sequential(layer, nn.Linear(D, 4)).double()


def with_modes() -> nn.Module:
    """Dropout and running averages, which the look-ahead reads in eval mode."""
    return nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 4)).double()


def partly_frozen() -> nn.Module:
    student = small_net()
    student[0].requires_grad_(False)
    return student


def tied() -> nn.Module:
    student = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, D), nn.Linear(D, 4)).double()
    student[2].weight = student[0].weight
    return student


def compiled() -> nn.Module:
    """Code whose gradient is written ahead of time has no second one."""
    return torch.compile(small_net(), backend="aot_eager")


def recurrent() -> nn.Module:
    class Last(nn.Module):
        def forward(self, outputs):
            return outputs[0]

    return nn.Sequential(nn.GRU(D, 5, batch_first=True), Last(), nn.Linear(5, 4)).double()


STUDENTS = {
    "small": (small_net, (9,)),
    "linear": (lambda: nn.Linear(D, 4).double(), (9,)),
    "positions": (small_net, (3, 4)),
    "attention": (attentive, (3, 4)),
    "dropout and batch norm": (with_modes, (9,)),
    "frozen part": (partly_frozen, (9,)),
    "tied": (tied, (9,)),
    "compiled": (compiled, (9,)),
    "recurrent": (recurrent, (3, 4)),
    "backward only": (lambda: CubedNet().double(), (9,)),
}


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("hard", [1.0, 0.3])
@pytest.mark.parametrize("kind", STUDENTS)
def test_the_look_ahead_is_the_second_order_gradient(kind, hard, temperature):
    torch.manual_seed(3)
    make, lead = STUDENTS[kind]
    student, inputs = make(), drawn_inputs(1, *lead)
    signals = drawn_signals(student, inputs, 3)
    w_K = torch.softmax(torch.randn(*lead, 3, dtype=torch.float64), -1).requires_grad_()
    found = look_ahead(StudentStep(signals, w_K, student, inputs, rate=0.7), temperature, hard)
    student.eval()
    with sdpa_kernel(SDPBackend.MATH), torch.compiler.set_stance("force_eager"):
        loss = reference_loss(student, inputs, signals, w_K, temperature, hard, 0.7)
        (expected,) = torch.autograd.grad(loss, w_K)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


def test_the_look_ahead_is_not_the_first_order_product():
    """At theta instead of theta' the inner product is another: the check above can tell."""
    student, inputs = small_net(), drawn_inputs(1, 9)
    signals = drawn_signals(student, inputs, 3)
    w_K = torch.full((9, 3), 1 / 3, dtype=torch.float64, requires_grad=True)
    slopes = [look_ahead(StudentStep(signals, w_K, student, inputs, rate), 1.0, 1.0) / rate for rate in (1e-6, 3.0)]
    assert (slopes[0] - slopes[1]).abs().max() > 1e-3


def test_parameters_follow_the_loss_after_the_step_through_projection_and_product():
    """The whole chain network -> product -> projection -> look-ahead, differentiated by autograd at second order."""
    student, inputs = small_net(), drawn_inputs(1, 9)
    signals = drawn_signals(student, inputs, 3)
    meta = stirred(MetaTeacher(hidden=4))
    rule = Unified(token=meta, task=EntropyDecay(), polytope=WeightPolytope(3, lower=0.2, upper=0.5))
    step = step_with(rule, student, inputs, signals)
    found = torch.autograd.grad(meta.learn(step), list(meta.parameters()))
    loss = reference_loss(student, inputs, signals, rule(signals), 1.0, meta.hard, step.rate)
    expected = torch.autograd.grad(loss, list(meta.parameters()))
    assert max(float(slope.abs().max()) for slope in expected) > 1e-6
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-12)


def test_the_look_ahead_leaves_no_trace():
    student, inputs = with_modes(), drawn_inputs(1, 9)
    student[0].eval()
    signals = drawn_signals(student, inputs, 3)
    student[1].train()
    for parameter in student.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    modes, noise = [part.training for part in student.modules()], torch.get_rng_state()
    w_K = torch.full((9, 3), 1 / 3, dtype=torch.float64, requires_grad=True)
    look_ahead(StudentStep(signals, w_K, student, inputs, 0.3), 1.0, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert [part.training for part in student.modules()] == modes
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in student.parameters())
    assert torch.equal(torch.get_rng_state(), noise)
    assert w_K.grad is None


def test_a_student_in_float32_and_teachers_in_float64():
    student, inputs = small_net().float(), drawn_inputs(1, 9).float()
    signals = drawn_signals(student, inputs, 3)
    rule = MetaTeacher()
    loss = rule.learn(step_with(rule, student, inputs, signals))
    loss.backward()
    assert rule.network.outer.weight.grad.dtype == torch.float32
    assert float(rule.network.outer.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("hard", [0.5, 1.0])
def test_the_meta_teacher_learns_what_helps_after_the_step(hard):
    """A step then helps more than one with all the weight on the teacher that is right: positions share parameters."""
    student, inputs, signals = right_and_wrong()
    torch.manual_seed(0)
    rule = MetaTeacher(hard=hard)

    def after(w_K):
        return reference_loss(student, inputs, signals, w_K, 1.0, hard, 0.3).item()

    first = after(rule(signals))
    trained(rule, step_with(rule, student, inputs, signals), steps=60, lr=0.05)
    assert after(rule(signals)) < after(t(1.0, 0.0).expand(64, 2)) < first
