"""Constrained distillation as a problem on the student's parameters, and the same task for our trainer.

digits          the task of ``benchmarks.weightings``: the truth of degraded pictures in training gets 0.8 or more,
                on average; teachers pooled with equal weights
breast cancer   the demo's task: the truth of malignant cases in training gets 0.95 or more, on average

Full batches, float32, students with tanh units.  Axes: N examples, V classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from safekd import ConstrainedTrainer
from safekd.data import Split
from safekd.demo import load_demo_config
from safekd.experiment import build_experiment
from safekd.safety import SafetyConstraint, TruthProbability
from solvers.primal_dual import DualMethod

from ..weightings._tasks import DEGRADED, TASKS
from ._problems import RATE, Problem, Values

STEPS = 2000


@dataclass(frozen=True)
class StudentTask:
    """A problem, what it was made of, and a trainer on a fresh student: (constrained, dual method) -> trainer."""

    problem: Problem
    train: Split
    log_q_NV: Tensor
    rule: SafetyConstraint
    trainer: Callable[[bool, DualMethod | None], ConstrainedTrainer]


def digits(steps: int = STEPS) -> StudentTask:
    """Return the digits task, from seed 0."""
    task = TASKS["digits"](0)
    rule = SafetyConstraint("degraded", TruthProbability(), 0.8, contexts=[DEGRADED])

    def trainer(constrained: bool, dual: DualMethod | None) -> ConstrainedTrainer:
        student = task.student()
        return ConstrainedTrainer(
            student,
            task.ensemble,
            constraints=[rule] if constrained else [],
            optimizer=torch.optim.Adam(student.parameters(), lr=RATE),
            dual=dual,
        )

    return _task("digits", task.train, rule, trainer, steps)


def breast_cancer(steps: int = STEPS) -> StudentTask:
    """Return the demo's task, from seed 0."""
    _, config = load_demo_config(0)
    experiment = build_experiment(config, Path("."))

    def trainer(constrained: bool, dual: DualMethod | None) -> ConstrainedTrainer:
        return experiment.trainer(constraints=None if constrained else [], dual=dual)

    return _task("breast cancer", experiment.train, experiment.constraints[0], trainer, steps)


def _task(
    name: str,
    train: Split,
    rule: SafetyConstraint,
    trainer: Callable[[bool, DualMethod | None], ConstrainedTrainer],
    steps: int,
) -> StudentTask:
    first = trainer(False, None)
    batch, loss = train.batch(), first.objective.divergence
    with torch.no_grad():
        log_q_NV = first.objective.target(train, batch, first.objective.logits(batch))
    log_q_NV = log_q_NV.to(batch.inputs.dtype)

    def evaluate(x: Sequence[Tensor]) -> Values:
        logits_NV = forward(x, batch.inputs)
        sums = rule.sums(torch.log_softmax(logits_NV, dim=-1), batch)
        g_M = (rule.required - sums.surrogate_G / sums.count_G).to(logits_NV)
        return loss(log_q_NV, logits_NV).mean(), g_M, logits_NV.new_zeros(0)

    problem = Problem(
        name,
        "distillation",
        start=lambda: list(trainer(False, None).student.parameters()),
        evaluate=evaluate,
        M=1,
        E=0,
        steps=steps,
        seconds=30.0,
        whole=True,
    )
    return StudentTask(problem, train, log_q_NV, rule, trainer)


def forward(x: Sequence[Tensor], inputs_ND: Tensor) -> Tensor:
    """Return the logits of the multilayer perceptron whose weights and biases are ``x``, tanh between layers."""
    values = inputs_ND
    for layer in range(0, len(x), 2):
        values = torch.nn.functional.linear(values if layer == 0 else torch.tanh(values), x[layer], x[layer + 1])
    return values
