"""Steps of a student for tests of rules that learn.  Axes: B batch, ... positions, K teachers, V classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import safekd as kd
from safekd.teachers import StoredTeacher
from safekd.weights import MetaTeacher, MultiLevel, PolicyGradient, Signals, StudentStep, UncertaintyWeighting
from solvers.polytope import WeightPolytope

from .problems import SPLITS
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


def stirred(rule: nn.Module, seed: int = 0) -> nn.Module:
    """Return the rule, double, with parameters as if it had learned."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in rule.double().parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return rule


def trained(rule: nn.Module, step: StudentStep, steps: int = 400, lr: float = 0.1) -> nn.Module:
    """Return the rule after plain gradient steps on its own loss, the step staying what it is."""
    optimizer = torch.optim.Adam(rule.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        rule.learn(StudentStep(step.signals, rule(step.signals), step.student, step.inputs, step.rate)).backward()
        optimizer.step()
        scheduler.step()
    return rule


def right_and_wrong(B: int = 64) -> tuple[nn.Module, torch.Tensor, Signals]:
    """A teacher that is right, and one that is as sure of the next class."""
    student, inputs = small_net(), drawn_inputs(5, B)
    drawn = drawn_signals(student, inputs, 2)
    right = torch.full((B, 4), 0.1, dtype=torch.float64).scatter(-1, drawn.labels.unsqueeze(-1), 0.7)
    log_p_KV = torch.stack([right, right.roll(1, -1)], -2).log()
    return student, inputs, Signals(log_p=log_p_KV, labels=drawn.labels, student_log_p=drawn.student_log_p)


# ---- whole runs ----

PAIR = WeightPolytope(2, lower=0.2, upper=0.7)
Q0, Q1 = torch.tensor([0.8, 0.1, 0.1]).double(), torch.tensor([0.1, 0.1, 0.8]).double()


def two(examples: int = 3) -> list[StoredTeacher]:
    return [StoredTeacher(name, dict.fromkeys(SPLITS, q.expand(examples, -1))) for name, q in (("a", Q0), ("b", Q1))]


def float_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def task(examples: int = 40) -> tuple[kd.Split, list[StoredTeacher]]:
    draw = torch.Generator().manual_seed(5)
    inputs, labels = torch.randn(examples, 4, generator=draw), torch.randint(3, (examples,), generator=draw)
    rows = [torch.softmax(torch.randn(examples, 3, generator=draw), -1) for _ in range(2)]
    teachers = [StoredTeacher(n, dict.fromkeys(SPLITS, p)) for n, p in zip(("a", "b"), rows, strict=True)]
    return kd.Split("train", inputs, labels), teachers


def others(examples: int = 40) -> kd.Split:
    """Other examples of the kind of ``task``."""
    draw = torch.Generator().manual_seed(6)
    inputs, labels = torch.randn(examples, 4, generator=draw), torch.randint(3, (examples,), generator=draw)
    return kd.Split("validation", inputs, labels)


def learned(name: str) -> nn.Module:
    torch.manual_seed(1)
    make = {
        "UncertaintyWeighting": lambda: UncertaintyWeighting(2),
        "MultiLevel": lambda: MultiLevel(2, features=4),
        "MetaTeacher": lambda: MetaTeacher(hidden=4),
        "PolicyGradient": lambda: PolicyGradient(hidden=4),
    }
    return make[name]()


LEARNED = ["UncertaintyWeighting", "MultiLevel", "MetaTeacher", "PolicyGradient"]
