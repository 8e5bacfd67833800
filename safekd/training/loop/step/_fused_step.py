"""The fused step: loss and constraints in few tensor operations, for the most common problem.

That is: targets that do not move, the forward divergence, and constraints on averages, over examples of the training
split, of smooth measures of the library's own, which are numbers for every example, covered or not.  Who is covered is
then known before training, the student's log-probabilities are worked out once for loss and constraints, and an average
is one dot product.  Which position is not finite, and why, such a sum cannot tell: that is left to the general step.

Where batches are parts of the split, what a step needs of its examples is looked up in tables over all of them, as far
as these have room: the targets' shares of the loss, and who is covered by which constraint.

Axes: N examples, B batch, V classes, M constraints, K measures, L positions of a batch in one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    SafetyConstraint,
    SafetyMeasure,
    TruthProbability,
    UnsafeMass,
)
from ..._objective import CHUNK, Objective, require_same_classes


@dataclass(frozen=True)
class FusedStepSettings:
    """What the tables may take.

    Attributes:
        table_bytes: For the targets' shares of the loss.  With more classes a step's softmax takes longer than working
            them out again: at 10 classes and batches of 64 it is 60 of 600 microseconds (``benchmarks.primal_dual``,
            family "overhead").
    """

    table_bytes: int = 2**26


SETTINGS = FusedStepSettings()
_FINITE = (TruthProbability, Margin, OneMinusBrier, UnsafeMass, Calibration)  # wherever log-probabilities are


class FusedStepReader:
    """Reads loss and constraints of a step on a batch of the training split.

    Args:
        objective: Holds student and targets.
        divergence: The objective's.
        constraints: All of the kind that the module describes.
        train: Training split.
        whole: Whether every batch is the split, in its order.
    """

    def __init__(
        self,
        objective: Objective,
        divergence: ForwardKL,
        constraints: Sequence[Constraint],
        train: Split,
        whole: bool,
    ) -> None:
        self.objective, self.divergence, self.train = objective, divergence, train
        rules = [rule for rule in constraints if isinstance(rule, SafetyConstraint)]
        self.averages = [_CoveredAverage(rule, train) for rule in rules] if whole else []
        self.batch_averages = None if whole or not rules else _BatchAverages(rules, train)
        self.whole = whole
        self._shares: Tensor | None = None
        self._has_zeros = True  # among the shares; where nobody knows, it is reckoned with
        self._table: _TargetTable | None = None
        self._looked_for_table = whole  # which takes none

    @classmethod
    def fit_problem(
        cls, objective: Objective, constraints: Sequence[Constraint], train: ExampleSource, whole: bool
    ) -> FusedStepReader | None:
        """Return a reader where the problem is of that kind, and None where it is not.

        Args:
            objective: Holds student and targets.
            constraints: Of the problem.
            train: Training split.
            whole: Whether every batch is the split, in its order.
        """
        divergence = objective.divergence
        if not objective.fixed or type(divergence) is not ForwardKL or not isinstance(train, Split):
            return None
        return cls(objective, divergence, constraints, train, whole) if all(map(_can_fuse, constraints)) else None

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
        if self.batch_averages is not None:
            return loss, *self.batch_averages.read(log_p_V, batch)
        surrogate = [average.read(log_p_V, batch.labels) for average in self.averages]
        return loss, torch.stack(surrogate) if surrogate else logits_V.new_zeros(0), None, None

    @torch.no_grad()
    def _read_target(self, batch: Batch, logits_V: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the target's shares of the loss and, for a batch, its mean entropy in units of the loss."""
        positions = max(batch.positions, 1)
        if self._table is None:
            q_V = self.divergence.soften(self.objective.target(self.train, batch, logits_V.detach()))
            if not self._looked_for_table:
                self._looked_for_table = True
                self._table = _TargetTable.fill(self.objective, self.divergence, self.train, logits_V)
                self._has_zeros = self._table is None or self._table.has_zeros
        if self._table is not None:
            share_V, entropy = self._table.look_up(batch)
            return share_V.mul_(1 / positions), entropy / positions
        share_V = batch.fill_uncounted(self.divergence.shares(q_V, positions), 0.0)
        if self.whole:
            return share_V, None
        entropy = batch.fill_uncounted(torch.special.entr(q_V), 0.0).sum(dtype=torch.float64)
        return share_V, entropy * (self.divergence.temperature**2 / positions)


class _TargetTable:
    """What the targets of each example of a split give to the loss, less the division by how many positions count."""

    def __init__(self, share_NV: Tensor, entropy_N: Tensor, has_zeros: bool) -> None:
        self.share_NV, self.entropy_N, self.has_zeros = share_NV, entropy_N, has_zeros

    @classmethod
    def fill(cls, objective: Objective, divergence: ForwardKL, train: Split, logits_V: Tensor) -> _TargetTable | None:
        """Return the table of a split whose targets are in memory; None where they are not, or it has no room."""
        positions = train.labels.numel() * logits_V.shape[-1]
        if not objective.holds_targets(train) or positions * logits_V.element_size() > SETTINGS.table_bytes:
            return None
        shares, entropies, has_zeros = [], [], False
        for batch in train.batches(CHUNK):
            q_V = divergence.soften(objective.target(train, batch, logits_V))
            share_V = divergence.shares(q_V, 1)
            has_zeros = has_zeros or bool((batch.fill_uncounted(share_V, 1.0) == 0).any())
            shares.append(batch.fill_uncounted(share_V, 0.0))
            entropy = batch.fill_uncounted(torch.special.entr(q_V), 0.0).reshape(len(batch), -1)
            entropies.append(entropy.sum(1, dtype=torch.float64) * divergence.temperature**2)
        return cls(torch.cat(shares), torch.cat(entropies), has_zeros)

    def look_up(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return a copy of the shares of a batch, and the sum of its entropies."""
        return self.share_NV[batch.place], self.entropy_N[batch.place].sum()


class _CoveredAverage:
    """``g = required - mean of the measure over the covered examples`` of a whole split."""

    def __init__(self, rule: SafetyConstraint, train: Split) -> None:
        ((_, average),) = rule.parts
        self.measure, self.required = average.measure, rule.required
        inside_N = _find_covered(rule, train)
        self.share_N = inside_N.reshape(-1) / inside_N.sum()

    def read(self, log_p_V: Tensor, labels: Tensor) -> Tensor:
        """Return g, of the surrogate and as measured, which are the same."""
        value = self.measure.surrogate_everywhere(log_p_V, labels).reshape(-1).double()
        return self.required - torch.dot(self.share_N, value)


class _BatchAverages:
    """The same of all constraints at once, read off a part of the split."""

    def __init__(self, rules: Sequence[SafetyConstraint], train: Split) -> None:
        measures: dict[tuple[object, ...], SafetyMeasure] = {}
        number_M = []
        for rule in rules:
            ((_, average),) = rule.parts
            settings = [name for name in average.measure.class_settings if name != "critical"]
            key = (type(average.measure), *(getattr(average.measure, name) for name in settings))
            measures.setdefault(key, average.measure)  # where it is read is known without it
            number_M.append([*measures].index(key))
        self.measures = [*measures.values()]
        self.inside_NM = torch.stack([_find_covered(rule, train) for rule in rules], -1)
        count_M = self.inside_NM.reshape(-1, len(rules)).sum(0)
        self.number_M = torch.tensor([number_M], device=count_M.device)
        self.required_M = count_M.new_tensor([rule.required for rule in rules])
        self.each_M = len(train) / count_M

    def read(self, log_p_V: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return g of the surrogates, g as measured, and which constraints the batch says anything of, (M,) each."""
        values = [measure.surrogate_everywhere(log_p_V, batch.labels).reshape(-1) for measure in self.measures]
        inside_LM = self.inside_NM[batch.place].reshape(-1, len(self.each_M))
        if len(values) == 1:
            total_M = values[0].double() @ inside_LM
        else:
            total_M = (torch.stack(values).double() @ inside_LM).gather(0, self.number_M).squeeze(0)
        here_M = inside_LM.sum(0)
        surrogate_M = torch.addcmul(self.required_M, total_M, self.each_M, value=-1 / len(batch))
        return surrogate_M, self.required_M - total_M.detach() / here_M.clamp_min(1), here_M > 0


def _find_covered(rule: SafetyConstraint, train: Split) -> Tensor:
    return torch.cat([rule.covers(batch) for batch in train.batches(CHUNK)]).double()


def _can_fuse(rule: Constraint) -> bool:
    if not isinstance(rule, SafetyConstraint) or rule.split != "train" or rule.gradient_depends_on_means:
        return False
    ((_, average),) = rule.parts
    masked = average.average == "critical" or average.measure.critical is None
    return type(average.measure) in _FINITE and not average.groups and masked


def _add_products(share_V: Tensor, log_p_V: Tensor) -> Tensor:
    """Return the sum of products, added up in float64 where there are many classes."""
    if log_p_V.shape[-1] < PRECISION.many_classes:
        return torch.dot(share_V.reshape(-1), log_p_V.reshape(-1))
    return (share_V * log_p_V).sum(dtype=torch.float64)
