"""Loss and constraints of a step in few tensor operations, for the most common problem.

That is: targets that do not move, the forward divergence, and constraints on averages, over examples of the training
split, of smooth measures of the library's own, which are numbers for every example, covered or not.  Who is covered is
then known before training, the student's log-probabilities are worked out once for loss and constraints, and an average
is one dot product.  Which position is not finite, and why, such a sum cannot tell: that is left to the general way.

Axes: N examples, B batch, V classes, M constraints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data import Batch, Split
from ..divergences import ForwardKL
from ..safety import (
    Calibration,
    Constraint,
    Margin,
    OneMinusBrier,
    SafetyConstraint,
    TruthProbability,
    UnsafeMass,
)

if TYPE_CHECKING:
    from ._trainer import ConstrainedTrainer

_FINITE = (TruthProbability, Margin, OneMinusBrier, UnsafeMass, Calibration)  # wherever log-probabilities are


class SwiftReader:
    """Reads steps on batches of ``train``; ``whole``: every batch is the split, in its order."""

    def __init__(self, trainer: ConstrainedTrainer, divergence: ForwardKL, train: Split, whole: bool) -> None:
        self.objective, self.divergence, self.train = trainer.objective, divergence, train
        self.averages = [
            _Average(rule, train, whole) for rule in trainer.constraints if isinstance(rule, SafetyConstraint)
        ]
        self.whole = whole
        self._batch: Batch | None = None
        self._shares: Tensor | None = None

    @classmethod
    def fitting(cls, trainer: ConstrainedTrainer, train: Split, whole: bool) -> SwiftReader | None:
        """Return a reader where the problem is of that kind, and None where it is not."""
        divergence = trainer.objective.divergence
        if not trainer.objective.fixed or type(divergence) is not ForwardKL:
            return None
        return cls(trainer, divergence, train, whole) if all(map(_is_simple, trainer.constraints)) else None

    def batch(self, index: Tensor) -> Batch:
        """Return the examples of a step."""
        if not self.whole:
            return self.train.batch(index)
        if self._batch is None:
            self._batch = self.train.batch()
        return self._batch

    def read(
        self, index: Tensor, batch: Batch, logits_V: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return the loss less the target's entropy, g to follow (M,), g as measured and who is present.

        The last two are None where the batch is the whole split: what is followed is then what is measured.
        """
        share_V = self._shares if self._shares is not None else self._share(index, logits_V)
        if self.whole and self.objective.keeps(self.train):
            self._shares = share_V
        soft = self.divergence.temperature
        log_p_V = torch.log_softmax(logits_V, dim=-1)
        softened_V = log_p_V if soft == 1 else torch.log_softmax(logits_V / soft, dim=-1)
        loss = torch.dot(share_V.to(logits_V).reshape(-1), softened_V.reshape(-1))
        if not self.averages:
            return loss, logits_V.new_zeros(0), None, None
        found = [average.read(log_p_V, batch.labels, None if self.whole else index) for average in self.averages]
        smooth, exact, present = zip(*found, strict=True)
        if self.whole:
            return loss, _row(smooth), None, None
        return loss, _row(smooth), _row(exact), _row(present)

    @torch.no_grad()
    def _share(self, index: Tensor, logits_V: Tensor) -> Tensor:
        log_q_V = self.objective.target(self.train, index, logits_V.detach())
        return self.divergence.shares(self.divergence.soften(log_q_V))


class _Average:
    """``g = required - mean of the measure over the covered examples``, from sums over batches."""

    def __init__(self, rule: SafetyConstraint, train: Split, whole: bool) -> None:
        ((_, average),) = rule.parts
        self.measure, self.required = average.measure, rule.required
        self.inside_N = torch.cat([rule.covers(train.batch(some)) for some in train.chunks(4096)]).double()
        self.count, self.examples = self.inside_N.sum(), len(train)
        self.share_N = self.inside_N.reshape(-1) / self.count if whole else self.inside_N

    def read(self, log_p_V: Tensor, labels: Tensor, index: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return g to follow, g as measured, and whether the batch says anything of it."""
        value = self.measure.surrogate_everywhere(log_p_V, labels).reshape(-1).double()
        if index is None:
            g = self.required - torch.dot(self.share_N, value)
            return g, g, g
        inside_B = self.inside_N[index].reshape(-1)
        total, here = torch.dot(inside_B, value), inside_B.sum()
        followed = self.required - total * (self.examples / (len(index) * self.count))
        return followed, self.required - total.detach() / here.clamp_min(1), here > 0


def _is_simple(rule: Constraint) -> bool:
    if not isinstance(rule, SafetyConstraint) or rule.split != "train" or rule.gradient_depends_on_means:
        return False
    ((_, average),) = rule.parts
    masked = average.average == "critical" or average.measure.critical is None
    return type(average.measure) in _FINITE and not average.groups and masked


def _row(values: tuple[Tensor, ...]) -> Tensor:
    return values[0].reshape(1) if len(values) == 1 else torch.stack(values)
