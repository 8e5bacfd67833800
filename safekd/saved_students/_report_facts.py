"""What a report says of a run beyond its result: safety of each context on each split, teachers, axioms, rivals."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ..experiment.config import Strict
from ._checked_record import CheckedRecord

REPORT_FACTS = "report.json"
Count = Annotated[int, Field(ge=0)]


class SafetyFact(Strict):
    """What a student measures on one split, where one constraint covers it; None for a number that does not exist.

    Attributes:
        constraint: Its name.
        context: Name of the one context that is read; None for all that the constraint covers.
        split: Name of the split.
        measured: Average of the measure.
        standard_error: Of it.
        required: Threshold.
        count: Examples averaged.
    """

    constraint: str
    context: str | None
    split: str
    measured: float | None
    standard_error: float | None
    required: float
    count: Count


class BoundFact(Strict):
    """What held-out data prove of one constraint, or why they can prove nothing.

    Attributes:
        constraint: Its name.
        context: As of ``SafetyFact``.
        split: On which it was read.
        lower_bound: With the stated confidence, expected safety is at least this; None where nothing can be proved.
        confidence: Of the bound.
        count: Values averaged.
        required: Threshold.
        note: Which bound, or why there is none.
    """

    constraint: str
    context: str | None
    split: str
    lower_bound: float | None
    confidence: float
    count: Count
    required: float
    note: str


class TeacherFact(Strict):
    """One teacher, as measured before training.

    Attributes:
        name: Its name.
        kind: What it is.
        loss: Mean cross-entropy, nats.
        safety: By context, in their order.
        lower: Least weight that it may have.
        upper: Largest.
    """

    name: str
    kind: str
    loss: float | None
    safety: list[float | None]
    lower: float
    upper: float


class AxiomFact(Strict):
    """One line of the axioms' audit; fields as of ``kd.axioms.Finding``.

    Attributes:
        axiom: Its id.
        name: Its short name.
        subject: Whose weights were judged.
        status: "holds", "violated", "estimated" or "not_applicable".
        evidence: What was seen.
        worst: The worst violation, or an estimate.
        rows: How many positions violate it.
        judged: How many were judged.
        remedy: The next move.
    """

    axiom: str
    name: str
    subject: str
    status: str
    evidence: str
    worst: float | None
    rows: Count
    judged: Count
    remedy: str


class RivalFact(Strict):
    """Another student of the same experiment, trained in another way.

    Attributes:
        name: What it is called.
        status: Verdict of its run.
        loss: Distillation loss against its own target, training split, nats.
        accuracy: On the test split.
        safety: Measured, of the first constraint, by split.
    """

    name: str
    status: str
    loss: float | None
    accuracy: float | None
    safety: dict[str, float | None]


class ReportFacts(CheckedRecord):
    """What ``report.json`` holds.

    Attributes:
        safety: Readings of the student, by constraint, context and split.
        bounds: What the certify split proves.
        accuracy: Of the student, by split; None on a split without examples.
        measured_on: Split on which teachers were measured.
        contexts: Names of the contexts.
        cases: Critical examples of each context there.
        teachers: In their order.
        axioms: The audit of the weighting rule; empty where it could not be judged.
        axioms_note: On what it was judged, or why it was not.
        rivals: Other students that were trained for comparison.
    """

    file_name: ClassVar[str] = REPORT_FACTS

    safety: list[SafetyFact]
    bounds: list[BoundFact]
    accuracy: dict[str, float | None]
    measured_on: str
    contexts: list[str]
    cases: list[Count]
    teachers: list[TeacherFact]
    axioms: list[AxiomFact]
    axioms_note: str
    rivals: list[RivalFact]
