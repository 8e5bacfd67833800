"""Facts for the report of a run: read off the trained student, its experiment, and what was trained beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .._torch_state import evaluation_mode
from ..axioms import audit
from ..data import move_split
from ..errors import SafekdError
from ..experiment import Experiment, VariantReport, narrow_to_contexts
from ..safety import Certificate, SafetyConstraint, certify
from ..training import FitResult, read_full_pass
from ._report_facts import AxiomFact, BoundFact, ReportFacts, RivalFact, SafetyFact, TeacherFact


@dataclass(frozen=True)
class FactSettings:
    """How much is read for a report; ``tests/safekd/report/test_report_facts.py`` notices.

    Attributes:
        confidence: Of all bounds of the contexts of one constraint together, as of its own bound.
        axiom_rows: Training examples on which axioms are judged: a search for jumps costs half a second there.
        most_bounds: Bounds by context of all constraints: each is a pass over the certify split.
    """

    confidence: float = 0.95
    axiom_rows: int = 1000
    most_bounds: int = 60


SETTINGS = FactSettings()


def gather_facts(experiment: Experiment, result: FitResult, rivals: Sequence[VariantReport] = ()) -> ReportFacts:
    """Return what ``report.json`` says of a run.

    Args:
        experiment: What was run.
        result: What came out, with its certificates.
        rivals: Students that were trained beside it.
    """
    axioms, note = _judge_axioms(experiment)
    return ReportFacts(
        safety=_read_safety(experiment, result),
        bounds=[*_list_bounds(result), *_bound_contexts(experiment, result)],
        accuracy=_measure_accuracies(experiment, result),
        measured_on=experiment.evidence.source,
        contexts=experiment.table.contexts,
        cases=[int(count) for count in experiment.evidence.count_C],
        teachers=_list_teachers(experiment),
        axioms=axioms,
        axioms_note=note,
        rivals=[_describe_rival(report) for report in rivals],
    )


def _read_safety(experiment: Experiment, result: FitResult) -> list[SafetyFact]:
    """Read each constraint, and each of its contexts, on every split, in one pass."""
    trainer = experiment.trainer()
    trainer.student.load_state_dict(result.student.state_dict())
    splits = {name: move_split(part, name, trainer.problem.device) for name, part in experiment.splits.items()}
    posed = [
        (rule, context, name)
        for constraint in experiment.constraints
        for context, rule in [(None, constraint), *narrow_to_contexts(constraint, experiment.table.contexts).items()]
        for name in splits
    ]
    train = splits.pop("train")
    rules = [rule.with_split(name) for rule, _, name in posed]
    readings = read_full_pass(trainer.objective, train, splits, rules, with_gradients=False).readings
    return [
        SafetyFact(
            constraint=rule.name,
            context=context,
            split=name,
            measured=_make_finite(reading.measured),
            standard_error=_make_finite(reading.standard_error),
            required=reading.required,
            count=reading.count,
        )
        for (rule, context, name), reading in zip(posed, readings, strict=True)
    ]


def _list_bounds(result: FitResult) -> Iterator[BoundFact]:
    for proved in result.certificates:
        yield _state_bound(proved, None)


def _bound_contexts(experiment: Experiment, result: FitResult) -> Iterator[BoundFact]:
    """Yield a bound for each context of each constraint; those of one constraint hold together."""
    held_out, left = experiment.splits["certify"], SETTINGS.most_bounds
    for constraint in experiment.constraints:
        narrowed = narrow_to_contexts(constraint, experiment.table.contexts)
        left -= len(narrowed)
        if left < 0:
            return
        level = 1 - (1 - SETTINGS.confidence) / max(len(narrowed), 1)
        for context, rule in narrowed.items():
            try:
                yield _state_bound(certify(result, rule, held_out, level), context)
            except SafekdError as error:
                yield _state_no_bound(rule, context, level, str(error))


def _state_bound(proved: Certificate, context: str | None) -> BoundFact:
    return BoundFact(
        constraint=proved.constraint,
        context=context,
        split="certify",
        lower_bound=_make_finite(proved.lower_bound),
        confidence=proved.confidence,
        count=proved.count,
        required=proved.required,
        note=proved.method,
    )


def _state_no_bound(rule: SafetyConstraint, context: str, level: float, why: str) -> BoundFact:
    return BoundFact(
        constraint=rule.name,
        context=context,
        split="certify",
        lower_bound=None,
        confidence=level,
        count=0,
        required=rule.required,
        note=why,
    )


def _measure_accuracies(experiment: Experiment, result: FitResult) -> dict[str, float | None]:
    device = next(result.student.parameters()).device
    accuracies: dict[str, float | None] = {}
    with evaluation_mode(result.student), torch.no_grad():
        for name, split in experiment.splits.items():
            batch = move_split(split, name, device).batch()
            logits_V = result.student(batch.inputs)
            right = (logits_V.argmax(-1) == batch.labels).double()
            right = torch.where(logits_V.isfinite().all(-1), right, torch.nan)  # a diverged student has no answer
            accuracies[name] = _make_finite(float(batch.average_positions(right)))
    return accuracies


def _list_teachers(experiment: Experiment) -> list[TeacherFact]:
    evidence, polytope = experiment.evidence, experiment.unified.polytope
    return [
        TeacherFact(
            name=teacher.name,
            kind=teacher.kind,
            loss=_make_finite(float(evidence.task_loss_MK[:, k].mean())),
            safety=[_make_finite(float(value)) for value in evidence.safety_CK[:, k]],
            lower=float(polytope.lower[k]),
            upper=float(polytope.upper[k]),
        )
        for k, teacher in enumerate(experiment.config.teachers)
    ]


def _judge_axioms(experiment: Experiment) -> tuple[list[AxiomFact], str]:
    """Return a line for each axiom, and on what they were judged."""
    train = experiment.splits["train"].sample(SETTINGS.axiom_rows, experiment.config.seed)
    try:
        signals = experiment.trainer().objective.signals(train, train.batch())
        report = audit(experiment.unified, signals, names=experiment.ensemble.names, quick=True)
    except SafekdError as error:  # a run is no worse for weights that cannot be judged
        return [], f"The axioms could not be judged: {error}"
    lines = [
        AxiomFact(
            axiom=one.axiom,
            name=one.name,
            subject=one.subject,
            status=one.status,
            evidence=one.evidence,
            worst=None if one.worst is None else _make_finite(one.worst),
            rows=one.rows,
            judged=one.judged,
            remedy=one.remedy,
        )
        for one in report
    ]
    return lines, f"Judged on {len(train)} training examples; jumps were looked for along few lines (quick)."


def _describe_rival(report: VariantReport) -> RivalFact:
    return RivalFact(
        name=report.variant.name,
        status=report.result.status,
        loss=_make_finite(report.loss),
        accuracy=_make_finite(report.accuracy),
        safety={split: _make_finite(reading.measured) for split, reading in report.readings.items()},
    )


def _make_finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
