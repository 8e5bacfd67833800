"""One way of training a student, and everything a table says about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from solvers.primal_dual import DualMethod
from solvers.short_repr import ShortRepr

from .._torch_state import evaluation_mode
from ..safety import Certificate, SafetyConstraint, certify
from ..training import FitResult, Objective, pose_all_on_train, read_full_pass
from ..training.trace import ConstraintReading, TracePoint
from ..weights import Rule
from ._build_experiment import Experiment
from ._weight_table import find_training_signals


@dataclass(frozen=True)
class Variant:
    """A way of training that is compared with others: which weights, which constraints, which multipliers.

    Attributes:
        name: What tables call it.
        rule: Weighting rule.
        constraints: Safety constraints, or none.
        dual: Dual method; None for the trainer's own.
        before: The weights ahead of the projection, to count what it repaired; None when nothing is projected.
        tightened: Whether thresholds are raised as the configuration says.
    """

    name: str
    rule: Rule
    constraints: Sequence[SafetyConstraint]
    dual: DualMethod | None = None
    before: Rule | None = None
    tightened: bool = False


@dataclass(frozen=True, repr=False)
class VariantReport(ShortRepr):
    """What a variant reached.

    Attributes:
        variant: The way of training.
        result: Its run.
        loss: Distillation loss on the training split against the variant's own target, nats.
        accuracy: On the test split.
        readings: The experiment's first constraint, all contexts, by split.
        by_context: The same by (split, context name).
        certificate: What the certify split shows of the first constraint.
        lightest: Smallest weight of a teacher over the training split.
        heaviest: Largest.
        violations_before: Training positions where an ordering is broken (a safer teacher counts less) before the
            projection; None when nothing is projected.
        violations_after: The same after it.
        seconds: How long training took.
    """

    variant: Variant
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


def run_variant(
    experiment: Experiment,
    variant: Variant,
    *,
    confidence: float = 0.95,
    on_trace: Callable[[TracePoint], None] | None = None,
) -> VariantReport:
    """Train one variant and read it on every split.  Only the certify split decides the certificate.

    Args:
        experiment: Data, teachers, and settings of training.
        variant: The way of training.
        confidence: Of the certificate, between 0 and 1.
        on_trace: Called with each line of the trace.
    """
    began = time.perf_counter()
    trainer = experiment.trainer(rule=variant.rule, constraints=variant.constraints, dual=variant.dual)
    settings = experiment.config.training
    result = trainer.fit(
        experiment.train,
        experiment.validation,
        splits=experiment.others,
        epochs=settings.epochs,
        tolerance=settings.tolerance,
        tighten=experiment.tighten if variant.tightened else None,
        on_trace=on_trace,
    )
    seconds = time.perf_counter() - began
    read = {name: _read_by_context(experiment, trainer.objective, name) for name in experiment.splits}
    weights_K, after = _weigh_training_split(experiment, variant.rule)
    return VariantReport(
        variant=variant,
        result=result,
        loss=result.point.loss,
        accuracy=_measure_accuracy(experiment, result),
        readings={name: overall for name, (overall, _) in read.items()},
        by_context={(name, context): reading for name, (_, each) in read.items() for context, reading in each.items()},
        certificate=certify(result, experiment.constraints[0], experiment.splits["certify"], confidence),
        lightest=float(weights_K.min()),
        heaviest=float(weights_K.max()),
        violations_before=None if variant.before is None else _weigh_training_split(experiment, variant.before)[1],
        violations_after=after,
        seconds=seconds,
    )


def _weigh_training_split(experiment: Experiment, rule: Rule) -> tuple[Tensor, int]:
    signals = find_training_signals(experiment)
    weights_K = rule(signals)
    return weights_K, int(experiment.unified.orders(signals).find_violations(weights_K).sum())


def _read_by_context(
    experiment: Experiment, objective: Objective, split: str
) -> tuple[ConstraintReading, dict[str, ConstraintReading]]:
    """Read the first constraint on a whole split: overall, and by context name."""
    constraint = experiment.constraints[0]
    narrowed = narrow_to_contexts(constraint, experiment.table.contexts)
    data = experiment.splits[split]
    readings = read_full_pass(
        objective, data, {}, pose_all_on_train([constraint, *narrowed.values()]), with_gradients=False
    ).readings
    overall, *each = [replace(reading, split=split) for reading in readings]
    return overall, dict(zip(narrowed, each, strict=True))


def narrow_to_contexts(constraint: SafetyConstraint, contexts: Sequence[str]) -> dict[str, SafetyConstraint]:
    """Return what a constraint asks of each context that it covers, by name: the plain average there.

    Args:
        constraint: With numbers of contexts, as an experiment states it.
        contexts: Names of all contexts.
    """
    covered = range(len(contexts)) if constraint.contexts is None else constraint.contexts
    return {
        name: replace(constraint, contexts=[number], mix=None, worst=None)
        for number, name in enumerate(contexts)
        if number in covered
    }


def _measure_accuracy(experiment: Experiment, result: FitResult) -> float:
    batch = experiment.splits["test"].batch()
    with evaluation_mode(result.student), torch.no_grad():
        return float(batch.average_positions((result.student(batch.inputs).argmax(-1) == batch.labels).double()))
