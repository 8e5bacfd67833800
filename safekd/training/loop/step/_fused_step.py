"""The fused step: loss and constraints in few tensor operations, for the most common problem.

That is: targets that do not move, the forward divergence, and constraints on averages, over examples of the training
split, of smooth measures of the library's own, which are numbers for every example, covered or not.  Who is covered is
then known before training, the student's log-probabilities are worked out once for loss and constraints, and an average
is one dot product.  Which position is not finite, and why, such a sum cannot tell: that is left to the general step.

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
    SafetyConstraint,
    TruthProbability,
    UnsafeMass,
)
from ..._objective import CHUNK, Objective, require_same_classes

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
        self.averages = [
            _CoveredAverage(rule, train, whole) for rule in constraints if isinstance(rule, SafetyConstraint)
        ]
        self.whole = whole
        self._shares: Tensor | None = None
        self._has_zeros = True  # among the shares; where nobody knows, it is reckoned with

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
        if not self.averages:
            return loss, logits_V.new_zeros(0), None, None
        values = [average.read(log_p_V, batch.labels, None if self.whole else batch.place) for average in self.averages]
        surrogate, measured, present = zip(*values, strict=True)
        if self.whole:
            return loss, _stack_scalars(surrogate), None, None
        return loss, _stack_scalars(surrogate), _stack_scalars(measured), _stack_scalars(present)

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
    """``g = required - mean of the measure over the covered examples``, from sums over batches."""

    def __init__(self, rule: SafetyConstraint, train: Split, whole: bool) -> None:
        ((_, average),) = rule.parts
        self.measure, self.required = average.measure, rule.required
        self.inside_N = torch.cat([rule.covers(batch) for batch in train.batches(CHUNK)]).double()
        self.count, self.examples = self.inside_N.sum(), len(train)
        self.share_N = self.inside_N.reshape(-1) / self.count if whole else self.inside_N

    def read(self, log_p_V: Tensor, labels: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return g of the surrogate, g as measured, and whether the batch says anything of it."""
        value = self.measure.surrogate_everywhere(log_p_V, labels).reshape(-1).double()
        if index is None:
            g = self.required - torch.dot(self.share_N, value)
            return g, g, g
        inside_B = self.inside_N[index].reshape(-1)
        total, here = torch.dot(inside_B, value), inside_B.sum()
        surrogate = self.required - total * (self.examples / (len(index) * self.count))
        return surrogate, self.required - total.detach() / here.clamp_min(1), here > 0


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


def _stack_scalars(values: tuple[Tensor, ...]) -> Tensor:
    return values[0].reshape(1) if len(values) == 1 else torch.stack(values)
