"""Steps of a student for tests of rules that learn.  Axes: B batch, ... positions, K teachers, V classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from safekd.weights import Signals, StudentStep

from .weighting import log_p

D = 6  # inputs


def small_net(seed: int = 0, V: int = 4) -> nn.Module:
    """A student with curvature, float64."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, 7), nn.Tanh(), nn.Linear(7, V)).double()


def drawn_signals(student: nn.Module, inputs: Tensor, K: int, seed: int = 0, **more) -> Signals:
    """Return readings of random teachers and labels, and of the student in eval mode."""
    lead = inputs.shape[:-1]
    student.eval()
    with torch.no_grad():
        student_log_p = torch.log_softmax(student(inputs), -1)
    student.train()
    V = student_log_p.shape[-1]
    labels = torch.randint(V, lead, generator=torch.Generator().manual_seed(seed))
    given = {"log_p": log_p(seed + 1, *lead, K, V), "labels": labels, "student_log_p": student_log_p, **more}
    return Signals(**{"features": inputs, **given})


def drawn_inputs(seed: int, *lead: int) -> Tensor:
    return torch.randn(*lead, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step_with(rule, student: nn.Module, inputs: Tensor, signals: Signals, rate: float = 0.3) -> StudentStep:
    """Return the step that a trainer would show."""
    return StudentStep(signals, rule(signals), student, inputs, rate)
