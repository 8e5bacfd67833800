"""The fused step: loss and constraints in few tensor operations, for the most common problem.

That is: targets that do not move, the forward divergence, and constraints on averages, over examples of the training
split, of measures of the library's own, which are numbers for every example, covered or not.  Who is covered is
then known before training, the student's log-probabilities are worked out once for loss and constraints, and an average
is one dot product.  Which position is not finite, and why, such a sum cannot tell: that is left to the general step.
Where batches are parts of the split, ``BatchAverages`` reads the constraints; where these are small and targets have
room, a step goes by a ``BatchTable``.

Axes: N examples, B batch, V classes, M constraints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...._precision import SETTINGS as PRECISION
from ...._precision import log_softmax
from ....data import Batch, ExampleSource, Split
from ....divergences import ForwardKL
from ....safety import (
    Calibration,
    Constraint,
    Margin,
    OneMinusBrier,
    Recall,
    SafetyConstraint,
    SafetyMeasure,
    TopK,
    TruthProbability,
    UnsafeMass,
)
from ..._objective import Objective, require_same_classes
from ._batch_averages import SETTINGS as TABLES
from ._batch_averages import BatchAverages, BatchTable, find_covered

_FINITE = (TruthProbability, Margin, OneMinusBrier, UnsafeMass, Calibration)  # wherever log-probabilities are
_COUNTED = (Recall, TopK)  # likewise; from batch to batch alone, where what is measured is read beside


class FusedStepReader:
    """Reads loss and constraints of a step on a batch of the training split.

    Args:
        objective: Holds student and targets.
        divergence: The objective's.
        constraints: All of the kind that the module describes.
        train: Training split.
        batch_size: Examples of a step; None where every batch is the split, in its order.
    """

    def __init__(
        self,
        objective: Objective,
        divergence: ForwardKL,
        constraints: Sequence[Constraint],
        train: Split,
        batch_size: int | None,
    ) -> None:
        self.objective, self.divergence, self.train, self.batch_size = objective, divergence, train, batch_size
        whole = batch_size is None
        rules = [rule for rule in constraints if isinstance(rule, SafetyConstraint)]
        self.averages = [_CoveredAverage(rule, train) for rule in rules] if whole else []
        self.batch_averages = None if whole else BatchAverages(rules, train)
        self.whole = whole
        self._shares: Tensor | None = None
        self._has_zeros = True  # among the shares; where nobody knows, it is reckoned with
        self._table: BatchTable | None = None
        self._looks_left = 1

    @classmethod
    def fit_problem(
        cls, objective: Objective, constraints: Sequence[Constraint], train: ExampleSource, batch_size: int | None
    ) -> FusedStepReader | None:
        """Return a reader where the problem is of that kind, and None where it is not.

        Args:
            objective: Holds student and targets.
            constraints: Of the problem.
            train: Training split.
            batch_size: Examples of a step; None where every batch is the split, in its order.
        """
        divergence = objective.divergence
        if not objective.fixed or type(divergence) is not ForwardKL or not isinstance(train, Split):
            return None
        known = _FINITE if batch_size is None else (*_FINITE, *_COUNTED)
        can_fuse = all(_can_fuse(rule, known) for rule in constraints)
        return cls(objective, divergence, constraints, train, batch_size) if can_fuse else None

    def read(self, batch: Batch, logits_V: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return the loss, g of the surrogates (M,), g as measured and who is present.

        The last two are None where the batch is the whole split: the surrogate is then what is measured.  There the
        loss lacks the target's entropy, the same in each step; from batch to batch it would pass for a change.

        Args:
            batch: The examples.
            logits_V: The student's, (B, ..., V).
        """
        share_V, entropy = (self._shares, None) if self._shares is not None else self._read_target(batch, logits_V)
        if self.whole and self.objective.holds_targets(self.train):
            if self._shares is None:
                self._has_zeros = bool((batch.fill_uncounted(share_V, 1.0) == 0).any())
            self._shares = share_V
        require_same_classes(share_V, logits_V)
        temperature = self.divergence.temperature
        log_p_V = log_softmax(logits_V)
        tempered_V = log_p_V if temperature == 1 else log_softmax(logits_V / temperature)
        if self._has_zeros:  # 0 log 0 = 0, with a finite gradient
            tempered_V = torch.where(share_V == 0, 0.0, tempered_V)
        loss = _add_products(share_V.to(logits_V), tempered_V)
        if entropy is not None:
            loss = loss - entropy
        if self.batch_averages is not None and self.batch_averages.measures:
            return loss, *self.batch_averages.read(log_p_V, batch)
        surrogate = [average.read(log_p_V, batch.labels) for average in self.averages]
        return loss, torch.stack(surrogate) if surrogate else logits_V.new_zeros(0), None, None

    def find_table(self, batch: Batch, logits_V: Tensor) -> BatchTable | None:
        """Return the table by which steps on small batches are taken; None where there is none.

        Args:
            batch: The examples.
            logits_V: The student's, (B, ..., V).
        """
        averages, size = self.batch_averages, self.batch_size
        if averages is None or size is None or not self._looks_left:
            return self._table
        self._looks_left = 0
        # by sizes alone: a run that goes on holds no targets yet, and is to take the same steps
        if 8 * len(self.train) * logits_V[0].numel() <= self.objective.ensemble.cache_limit:
            require_same_classes(self.objective.target(self.train, batch, logits_V), logits_V)
            if size * logits_V[0].numel() <= TABLES.most_numbers:  # a last batch may hold fewer
                self._table = BatchTable.fill(self.objective, self.divergence, averages, self.train, logits_V)
        return self._table

    @torch.no_grad()
    def _read_target(self, batch: Batch, logits_V: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the target's shares of the loss and, for a batch, its mean entropy in units of the loss."""
        q_V = self.divergence.soften(self.objective.target(self.train, batch, logits_V.detach()))
        positions = max(batch.positions, 1)
        share_V = batch.fill_uncounted(self.divergence.shares(q_V, positions), 0.0)
        if self.whole:
            return share_V, None
        entropy = batch.fill_uncounted(torch.special.entr(q_V), 0.0).sum(dtype=torch.float64)
        return share_V, entropy * (self.divergence.temperature**2 / positions)


class _CoveredAverage:
    """``g = required - mean of the measure over the covered examples`` of a whole split."""

    def __init__(self, rule: SafetyConstraint, train: Split) -> None:
        ((_, average),) = rule.parts
        self.measure, self.required = average.measure, rule.required
        inside_N = find_covered(rule, train)
        self.share_N = inside_N.reshape(-1) / inside_N.sum()

    def read(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        """Return g, of the surrogate and as measured, which are the same."""
        value = self.measure.surrogate_everywhere(log_p_V, labels).reshape(-1).double()
        return self.required - torch.dot(self.share_N, value)


def _can_fuse(rule: Constraint, known: Sequence[type[SafetyMeasure]]) -> bool:
    if not isinstance(rule, SafetyConstraint) or rule.split != "train" or rule.gradient_depends_on_means:
        return False
    ((_, average),) = rule.parts
    masked = average.average == "critical" or average.measure.critical is None
    return type(average.measure) in known and not average.groups and masked


def _add_products(share_V: Tensor, log_p_V: Tensor) -> Tensor:
    """Return the sum of products, added up in float64 where there are many classes."""
    if log_p_V.shape[-1] < PRECISION.many_classes:
        return torch.dot(share_V.reshape(-1), log_p_V.reshape(-1))
    return (share_V * log_p_V).sum(dtype=torch.float64)
