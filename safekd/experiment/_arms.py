"""One way of training a student, and everything a table says about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvers.primal_dual import DualMethod

from .._modes import evaluating
from ..safety import Certificate, SafetyConstraint, certify
from ..training import FitResult, Objective, pose_all_on_train, read_full_pass
from ..training.trace import ConstraintReading, TracePoint
from ..weights import Rule, Signals
from ._build import Experiment


@dataclass(frozen=True)
class Arm:
    """A way of training: which weights, which constraints, which multipliers.

    before: the weights ahead of the projection, to count what it repaired; None when nothing is projected.
    """

    name: str
    rule: Rule
    constraints: Sequence[SafetyConstraint]
    dual: DualMethod | None = None
    before: Rule | None = None


@dataclass(frozen=True)
class ArmReport:
    """What an arm reached.

    loss: distillation loss on the training split against the arm's own target, nats.  accuracy: on the test split.
    readings: first constraint by split, all contexts; by_context: the same by
    (split, context name).  violations_before, violations_after: training positions where an ordering is
    broken (a safer teacher counts less), before and after projection; before is None when nothing is projected.
    """

    arm: Arm
    result: FitResult
    loss: float
    accuracy: float
    readings: Mapping[str, ConstraintReading]
    by_context: Mapping[tuple[str, str], ConstraintReading]
    certificate: Certificate
    lightest: float
    heaviest: float
    violations_before: int | None
    violations_after: int
    seconds: float


def run_arm(
    experiment: Experiment, arm: Arm, *, confidence: float = 0.95, on_trace: Callable[[TracePoint], None] | None = None
) -> ArmReport:
    """Train one arm and read it on every split.  Only the certify split decides the certificate."""
    began = time.perf_counter()
    trainer = experiment.trainer(rule=arm.rule, constraints=arm.constraints, dual=arm.dual)
    settings = experiment.config.training
    result = trainer.fit(
        experiment.train,
        experiment.validation,
        splits=experiment.others,
        epochs=settings.epochs,
        tolerance=settings.tolerance,
        on_trace=on_trace,
    )
    seconds = time.perf_counter() - began
    read = {name: _read(experiment, trainer.objective, name) for name in experiment.splits}
    weights_K, after = _weights(experiment, arm.rule)
    return ArmReport(
        arm=arm,
        result=result,
        loss=result.point.loss,
        accuracy=_accuracy(experiment, result),
        readings={name: overall for name, (overall, _) in read.items()},
        by_context={(name, context): reading for name, (_, each) in read.items() for context, reading in each.items()},
        certificate=certify(result, experiment.constraints[0], experiment.splits["certify"], confidence),
        lightest=float(weights_K.min()),
        heaviest=float(weights_K.max()),
        violations_before=None if arm.before is None else _weights(experiment, arm.before)[1],
        violations_after=after,
        seconds=seconds,
    )


def training_signals(experiment: Experiment) -> Signals:
    """Return the signals of the whole training split, as the trainer sees them."""
    everything = torch.arange(len(experiment.train))
    return experiment.trainer().objective.signals(experiment.train, everything)


def _weights(experiment: Experiment, rule: Rule) -> tuple[Tensor, int]:
    signals = training_signals(experiment)
    weights_K = rule(signals)
    return weights_K, int(experiment.unified.orders(signals).broken(weights_K).sum())


def _read(
    experiment: Experiment, objective: Objective, split: str
) -> tuple[ConstraintReading, dict[str, ConstraintReading]]:
    """Read the first constraint on a whole split: overall, and by context name."""
    rule = experiment.constraints[0]
    contexts = experiment.table.contexts
    narrowed = [replace(rule, contexts=[number], mix=None, worst=None) for number in range(len(contexts))]
    data = experiment.splits[split]
    found = read_full_pass(objective, data, {}, pose_all_on_train([rule, *narrowed]), with_gradients=False).readings
    overall, *each = [replace(reading, split=split) for reading in found]
    return overall, dict(zip(contexts, each, strict=True))


def _accuracy(experiment: Experiment, result: FitResult) -> float:
    batch = experiment.splits["test"].batch()
    with evaluating(result.student), torch.no_grad():
        return float((result.student(batch.inputs).argmax(-1) == batch.labels).double().mean())
