"""A constraint on whole texts that the student writes: no string in them, a classifier's score.

The value is ``E[f(y)]`` over prompts and the student's own texts y.  What is measured is the mean score; what training
follows is its gradient, ``E[(f(y) - b) grad log p(y)]``, with the average b of other texts as baseline, so that a text
that scores better than the others becomes more probable (REINFORCE, leave-one-out).  It is unbiased for texts of the
present student, and an approximation for older ones, whose age ``Rollouts`` bounds.

Axes: B texts, T positions, P positions that count, C positions of a chunk, G groups (one).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from ...data import Batch, Group, GroupNames
from ...errors import InvalidInput
from ...safety import Average, Constraint, GroupSums, SafetyConstraint, SafetyMeasure
from ..loss import LogitGradient
from ._written_text import WrittenBatch


class _LogTruth(SafetyMeasure):
    """log p(y): what the gradient of a text's log-probability is made of; it is no safety by itself."""

    truth_only = True

    def _measured(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        return log_p_V.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True, repr=False)
class WrittenConstraint(ShortRepr, Constraint):
    """``average score of the student's own texts >= at_least``, for ``LanguageStep`` and batches of ``Rollouts``.

    Batches of fixed data say nothing of it.

    Attributes:
        name: What tables call it.
        score: Name of the score in ``Rollouts(scores=...)``.
        at_least: Threshold in (0, 1].
        contexts: Only texts after prompts of these contexts count, numbers or names; None for all.
        tasks: Only texts of these tasks count; None for all.
        split: Name of the data on which it is posed.

    Raises:
        InvalidInput: The threshold is outside (0, 1], or a group is no number; later, the batch has no such score.

    Source: the score function, Williams 1992; leave-one-out baselines, Kool, van Hoof and Welling 2019.
    """

    name: str
    score: str
    at_least: float
    contexts: Collection[Group] | None = None
    tasks: Collection[Group] | None = None
    split: str = "rollouts"

    def __post_init__(self) -> None:
        if not isinstance(self.score, str) or not self.score:
            raise InvalidInput(f"Constraint '{self.name}': score is {self.score!r}; wanted the name of a score.")
        _ = self._plain  # whose checks speak of threshold and groups

    @cached_property
    def _plain(self) -> SafetyConstraint:
        return SafetyConstraint(self.name, _LogTruth(), self.at_least, self.contexts, self.split, tasks=self.tasks)

    @property
    def required(self) -> float:
        """The threshold."""
        return self.at_least

    @property
    def parts(self) -> Sequence[tuple[float, Average]]:
        """The one average, over texts."""
        return self._plain.parts

    def with_threshold(self, threshold: float) -> WrittenConstraint:
        """Return the same constraint with another threshold.

        Args:
            threshold: In (0, 1].
        """
        return replace(self, at_least=threshold)

    def with_split(self, split: str) -> WrittenConstraint:
        """Return the same constraint, posed on another split.

        Args:
            split: Name of the split.
        """
        return replace(self, split=split)

    def with_names(self, names: GroupNames) -> WrittenConstraint:
        """Return the same constraint with numbers in place of names of contexts and tasks.

        Args:
            names: Of the prompts.

        Raises:
            InvalidInput: There is no such name.
        """
        named = self._plain.with_names(names)
        return replace(self, contexts=named.contexts, tasks=named.tasks)

    def counts(self, batch: Batch) -> Tensor:
        """Return how many texts of a batch count, (1,), float64.

        Args:
            batch: The student's own, or fixed data, which count nothing.
        """
        return self._cover(batch).sum().double().reshape(1)

    def read_texts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the scores of the texts that count, 0 elsewhere, and which count, (B, 1) each, float64.

        Args:
            batch: The student's own, or fixed data, which count nothing.

        Raises:
            InvalidInput: The batch is the student's own and has no such score.
        """
        covered_B = self._cover(batch)
        value_B = torch.zeros(len(batch), dtype=torch.float64, device=covered_B.device)
        if isinstance(batch, WrittenBatch) and batch.score is not None:
            value_B = torch.where(covered_B, batch.score[:, batch.scores.index(self.score)], value_B)
        return value_B[:, None], covered_B.double()[:, None]

    def bind(self, batch: Batch) -> Constraint:
        """Return the constraint as it reads one batch, whose texts and scores it then knows.

        Args:
            batch: The student's own, or fixed data.

        Raises:
            InvalidInput: The batch is the student's own and has no such score.
        """
        covered_B = self._cover(batch)
        value_B, advantage_B = torch.zeros(len(batch), dtype=torch.float64, device=covered_B.device), None
        if isinstance(batch, WrittenBatch) and batch.score is not None and batch.baseline is not None:
            place = batch.scores.index(self.score)
            value_B = batch.score[:, place]
            advantage_B = value_B - batch.baseline[:, place]
        inside_BT = covered_B[:, None].expand(batch.labels.shape)
        inside_BT = inside_BT if batch.mask is None else inside_BT & batch.mask
        factor_BT = torch.where(inside_BT, (value_B if advantage_B is None else advantage_B)[:, None], 0.0)
        return _BoundConstraint(self, _TextAverage(_LogTruth(), factor_BT=factor_BT, value_B=value_B[covered_B]))

    def _cover(self, batch: Batch) -> Tensor:
        """Return which texts count, (B,)."""
        if not isinstance(batch, WrittenBatch):
            return torch.zeros(len(batch), dtype=torch.bool, device=batch.labels.device)
        if self.score not in batch.scores:
            raise InvalidInput(
                f"Constraint '{self.name}' reads the score '{self.score}', and the texts have "
                f"{', '.join(map(repr, batch.scores)) or 'none'}; give it to Rollouts(scores=...)."
            )
        ((_, average),) = self.parts
        return average.covers(replace(batch, mask=None)).any(-1)


@dataclass(frozen=True)
class _BoundConstraint(Constraint):
    """A constraint that knows the texts of one batch."""

    rule: WrittenConstraint
    average: _TextAverage

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.rule.name

    @property
    def split(self) -> str:  # type: ignore[override]
        return self.rule.split

    @property
    def required(self) -> float:
        return self.rule.required

    @property
    def parts(self) -> Sequence[tuple[float, Average]]:
        return [(1.0, self.average)]

    def with_threshold(self, threshold: float) -> Constraint:
        return replace(self, rule=self.rule.with_threshold(threshold))

    def with_split(self, split: str) -> Constraint:
        return replace(self, rule=self.rule.with_split(split))


@dataclass(frozen=True, eq=False)
class _TextAverage(Average):
    """The mean score of the texts of one batch, with what each position's log-probability counts in its gradient."""

    factor_BT: Tensor = field(default_factory=lambda: torch.zeros(0, 0), repr=False)
    value_B: Tensor = field(default_factory=lambda: torch.zeros(0), repr=False)

    def members(self, batch: Batch) -> Tensor:
        """Return what each position counts in the gradient, (1, B, T): a number, not a truth value.

        Args:
            batch: Not looked at; the average knows its own.
        """
        del batch
        return self.factor_BT.unsqueeze(0)

    def open_reader(self, batch: Batch, kept_P: Tensor | None) -> _TextReader:
        """Return what reads the average chunk by chunk.

        Args:
            batch: Not looked at.
            kept_P: Places of the positions that count among all, or None where all do.
        """
        del batch
        factor_N = self.factor_BT.flatten()
        return _TextReader(factor_N if kept_P is None else factor_N[kept_P], self.value_B)


class _TextReader:
    """Reads scores of whole texts, and adds the gradient of their log-probabilities.

    Args:
        factor_P: What each position's log-probability counts.
        value_B: Scores of the texts that count.
    """

    def __init__(self, factor_P: Tensor, value_B: Tensor) -> None:
        self._factor_P = factor_P
        self.coefficient_G: Tensor | None = None
        total = value_B.sum().reshape(1)
        self.sums = GroupSums(total, total, value_B.square().sum().reshape(1), total.new_full((1,), len(value_B)))

    def read(self, rows: slice, log_p_CV: Tensor, label_C: Tensor, gradient: LogitGradient | None) -> None:
        """Add a chunk's gradient to ``gradient``; the scores are known.

        Args:
            rows: Which positions the chunk has.
            log_p_CV: Not looked at: the gradient of log p(y) in the logits is ``e_y - p``.
            label_C: Labels.
            gradient: What to add to; None where no gradient is asked for.
        """
        del log_p_CV
        if gradient is None or self.coefficient_G is None:
            return
        factor_C = self._factor_P[rows]
        place_R = factor_C.nonzero()[:, 0]
        value_R = (self.coefficient_G * factor_C[place_R]).to(gradient.scale_C)
        gradient.scale_C.index_add_(0, place_R, -value_R)
        gradient.entries.append((place_R, label_C[place_R][:, None], value_R[:, None]))
