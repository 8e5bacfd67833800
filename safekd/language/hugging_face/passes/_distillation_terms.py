"""What the loss of a run is made of, in one record: the same for training, evaluation and residuals."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from ....data import Batch
from ....divergences import TemperedDivergence
from ....fingerprints import describe
from ....pooling import PoolFunction
from ....safety import Constraint
from ....weights import Rule, TeacherEvidence
from ...loss import LanguageLoss, distillation_loss
from ._sequence_pass import SequenceAnswers


@dataclass(frozen=True, repr=False)
class DistillationTerms(ShortRepr):
    """How a student is compared with its teachers.

    Attributes:
        names: Of the teachers.
        weights: Of the teachers: numbers, (K,), or a rule; None for all alike.
        constraints: What the student must meet.
        divergence: Of target and student.
        pool: A name of ``kd.pooling.POOLS``, a ``PowerPool`` or a ``LogLinearPool``.
        temperature: Of teachers and student.
        temper: "teachers" or "pool".
        cross_entropy: Share of the cross-entropy on the labels.
        vocabulary: How many tokens are compared; None where all have the same.
        budget: Memory for distributions.
        evidence: What was measured of the teachers, for rules.
        critical_classes: Tokens at which safety orderings of the weights apply.
        critical_contexts: Contexts in which they apply.
    """

    names: tuple[str, ...]
    weights: Tensor | Rule | None
    constraints: tuple[Constraint, ...]
    divergence: TemperedDivergence | None
    pool: str | PoolFunction
    temperature: float | Sequence[float] | None
    temper: str
    cross_entropy: float
    vocabulary: int | None
    budget: str | int
    evidence: TeacherEvidence | None = None
    critical_classes: Collection[int] = ()
    critical_contexts: Collection[int] = ()

    def settings(self) -> dict[str, Any]:
        """Return what loss and step are told besides teachers, constraints and data, by keyword."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("names", "constraints")}

    def compare(
        self,
        answers: SequenceAnswers,
        batch: Batch,
        *,
        count: float,
        multipliers: Tensor | None = None,
        group_weights: Sequence[Tensor] | None = None,
        measure_counts: Sequence[Tensor] | None = None,
    ) -> LanguageLoss:
        """Return the share of a batch in the loss of a whole pass.

        Args:
            answers: What student and teachers say.
            batch: The sequences.
            count: Positions of the whole pass.
            multipliers: One a constraint; None leaves the constraints out.
            group_weights: What each group counts in each constraint, (G,) each.
            measure_counts: Positions of each group in the whole pass, (G,) each.
        """
        more: dict[str, Any] = {}
        if multipliers is not None:
            more = {"measures": [one.bind(batch) for one in self.constraints], "multipliers": multipliers}
            more |= {"group_weights": group_weights, "measure_counts": measure_counts}
        return distillation_loss(
            answers.hidden,
            answers.head,
            answers.teachers,
            labels=batch.labels,
            mask=batch.mask,
            task=batch.task,
            context=batch.context,
            index=batch.index if batch.numbered else None,
            count=count,
            names=self.names,
            **self.settings(),
            **more,
        )

    def read_loss(self, answers: SequenceAnswers, batch: Batch) -> tuple[float, float]:
        """Return the sums of distillation loss and cross-entropy over the positions of a batch.

        Args:
            answers: What student and teachers say.
            batch: The sequences.
        """
        if not batch.positions:
            return 0.0, 0.0
        with torch.no_grad():
            out = self.compare(answers, batch, count=batch.positions)
        assert out.cross_entropy is not None  # there are labels
        return float(out.distillation) * out.positions, float(out.cross_entropy) * out.positions

    def describe(self) -> dict[str, Any]:
        """Return what decides the numbers of a run, as plain JSON; what a rule has learned is no part of it."""
        return {
            "weights": describe(self.weights, with_state=False),
            "constraints": {constraint.name: describe(constraint) for constraint in self.constraints},
            "divergence": describe(self.divergence),
            "pool": describe(self.pool),
            "temperature": describe(self.temperature),
            "temper": self.temper,
            "cross_entropy": self.cross_entropy,
            "vocabulary": self.vocabulary,
            "evidence": describe(self.evidence),
            "critical_classes": sorted(self.critical_classes, key=str),
            "critical_contexts": sorted(self.critical_contexts, key=str),
        }
