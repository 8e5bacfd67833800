"""One primal-dual step of a student, and of the weighting rule that learns beside it.  Axes: B batch, M constraints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solvers.primal_dual import PrimalDual

from ..data import Batch, Split
from ..errors import NotFinite
from ..weights import StudentStep
from . import _culprit
from ._attainable import attainable
from ._batch_values import BatchValue
from ._guard import clear_gradients, gradient_norm, guarded_step
from ._objective import Pool
from ._rows import Rows
from ._swift import SwiftReader

if TYPE_CHECKING:
    from ._trainer import ConstrainedTrainer


class Stepper:
    """Takes the steps of one run, each from a batch of the training split."""

    def __init__(
        self, trainer: ConstrainedTrainer, engine: PrimalDual, train: Split, splits: Mapping[str, Split]
    ) -> None:
        self.trainer, self.engine, self.train, self.splits = trainer, engine, train, splits
        full = trainer.batch_size is None or trainer.batch_size >= len(train)
        self.rows = Rows(trainer.constraints, trainer.device)
        placed = [train if rule.split == "train" else splits[rule.split] for rule in trainer.constraints]
        self.values = [
            BatchValue(rule, trainer.objective.counts(rule, split))
            for rule, split in zip(trainer.constraints, placed, strict=True)
        ]
        self.others = [BatchValue(value.rule, value.count_G) for value in self.values]  # of batches that are only read
        whole = [rule.split != "train" or full for rule in trainer.constraints]
        # what a counted measure can take lies above the threshold; batches take other values
        self._raised = [
            float(attainable(rule, value.count_G.sum())) - rule.required if counted else 0.0
            for rule, value, counted in zip(trainer.constraints, self.values, whole, strict=True)
        ]
        ours = {id(p) for p in trainer.student.parameters()}
        groups = trainer.optimizer.param_groups
        self.parameters = list(trainer.student.parameters())
        self._buffers = list(trainer.student.buffers())
        self.swift = SwiftReader.fitting(trainer, train, full)
        self._teaches = bool(trainer.learning.modules)
        self._group = next(i for i, group in enumerate(groups) if any(id(p) in ours for p in group["params"]))

    def take(self, index: Tensor, other: Tensor | None = None) -> str | None:
        """Take one primal-dual step; say what was not finite, everything left as it was before, or return None.

        other: examples whose values multipliers and penalties see in place of those of ``index``.
        """
        before = [value.clone() for value in self._buffers]  # running averages move in the forward pass
        put_back = self.trainer.learning.snapshot() if self._teaches else None
        self.trainer.objective.complaint = None
        try:
            culprit = self._try(index, other) if self.swift is None or other is not None else self._swiftly(index)
        except NotFinite as error:  # of a teacher, before anything moved
            culprit = error.source
        if culprit is not None:
            if put_back is not None:
                put_back()
            for value, old in zip(self._buffers, before, strict=True):
                value.copy_(old)
        return culprit

    def _swiftly(self, index: Tensor) -> str | None:
        """Take the step in fewer operations; where something is not finite, look in the general way what that is."""
        assert self.swift is not None
        objective = self.trainer.objective
        batch = self.swift.batch(index)
        logits_V = objective.logits(batch)
        loss, smooth, exact, present = self.swift.read(index, batch, logits_V)
        total = self._priced(loss, smooth, exact, present)
        norm = self._slope(total)
        if norm is not None:
            return self._moved(None, norm)
        seen_V = logits_V.detach()
        log_q_V = objective.target(self.train, index, seen_V)
        losses = objective.loss(log_q_V, seen_V)
        values = self._constraint_values({"train": (batch, seen_V)}, self.values)[:2]
        return self._moved(self._culprit(batch, index, logits_V, log_q_V, losses, *values), None)

    def _try(self, index: Tensor, other: Tensor | None) -> str | None:
        trainer, objective = self.trainer, self.trainer.objective
        batch = self.train.batch(index)
        logits_V = objective.logits(batch)
        if not objective.fixed and not bool(torch.isfinite(logits_V).all()):
            return _culprit.of_loss(trainer.student, logits_V)  # before a rule that looks at them complains
        pool = None if objective.fixed else objective.pool(self.train, index, logits_V)
        log_q_V = objective.target(self.train, index, logits_V) if pool is None else pool.log_q_V.detach()
        losses = objective.loss(log_q_V, logits_V)
        loss = losses.mean()
        smooth, exact, present = self._constraint_values({"train": (batch, logits_V)}, self.values)
        if other is not None:
            exact, present = self._seen_elsewhere(other, exact, present)
        total = self._priced(loss, smooth, exact, present)
        norm = self._slope(total)
        culprit = None
        if norm is None:
            culprit = self._culprit(batch, index, logits_V, log_q_V, losses, smooth, exact)
        elif pool is not None:
            culprit = self._teach(pool, batch.inputs, logits_V.detach())
        return self._moved(culprit, norm)

    def _slope(self, total: Tensor) -> float | None:
        """Leave the gradient where the optimizer looks for it; return its norm, None where something is not finite."""
        clear_gradients(self.trainer.optimizer)
        total.backward()  # type: ignore[no-untyped-call]
        norm = gradient_norm(self.parameters, total.detach())
        return norm if math.isfinite(norm) else None

    def _moved(self, culprit: str | None, norm: float | None) -> str | None:
        """Move the student, unless there is a culprit already; take everything back where there is one then."""
        trainer = self.trainer
        if culprit is None and norm is not None:
            culprit = guarded_step(trainer.optimizer, trainer.student, norm)
        if culprit is not None:
            self.engine.undo()
            trainer.optimizer.zero_grad()
            return culprit
        if trainer.scheduler is not None:
            trainer.scheduler.step()
        return None

    def _culprit(
        self, batch: Batch, index: Tensor, logits_V: Tensor, log_q_V: Tensor, losses: Tensor, *values_M: Tensor
    ) -> str:
        """Say which of what a step rests on is not finite, first cause first."""
        student, objective = self.trainer.student, self.trainer.objective
        if not bool(torch.isfinite(losses.mean())):
            return objective.complaint or _culprit.of_loss(student, logits_V, losses, index)
        found = _culprit.of_values(self.trainer.constraints, *values_M)
        return found or _culprit.of_gradient(student, self._terms(batch, log_q_V))

    def _terms(self, batch: Batch, log_q_V: Tensor) -> dict[str, Tensor]:
        """Return what a step adds up, read once more: the loss, and each constraint by its surrogate."""
        logits_V = self.trainer.objective.logits(batch)
        smooth, _, _ = self._constraint_rows(
            {"train": (batch, logits_V)}, self.values
        )  # stacked, one NaN would reach all
        named = {f"constraint '{rule.name}'": g for rule, g in zip(self.trainer.constraints, smooth, strict=True)}
        return {"the distillation loss": self.trainer.objective.loss(log_q_V, logits_V).mean(), **named}

    def _teach(self, pool: Pool, inputs: Tensor, logits_V: Tensor) -> str | None:
        """Move the rule by what this step shows, the student still as it was; say what was not finite."""
        trainer = self.trainer
        rate = float(trainer.optimizer.param_groups[self._group]["lr"])
        step = StudentStep(pool.signals, pool.weights_K, trainer.student, inputs, rate)
        culprit = trainer.learning.gradients(step, lambda: trainer.objective.loss(pool.log_q_V, logits_V).mean())
        return culprit or trainer.learning.step()

    def _priced(self, loss: Tensor, smooth_M: Tensor, exact_M: Tensor | None, present_M: Tensor | None) -> Tensor:
        """Move the multipliers by what was measured; return what to minimise, which follows the surrogates.

        exact_M: None where it is smooth_M; present_M: None where all are.
        """
        if not len(self.rows.equalities):
            return self.engine.step(loss, smooth_M, measured=exact_M, present=present_M)
        g_M, h_E = self.rows.apart(smooth_M)
        exact_g_M, exact_h_E = (None, None) if exact_M is None else self.rows.apart(exact_M)
        present = None if present_M is None else torch.cat(self.rows.apart(present_M))
        return self.engine.step(loss, g_M, h_E, measured=exact_g_M, measured_equality=exact_h_E, present=present)

    @torch.no_grad()
    def _seen_elsewhere(self, index: Tensor, exact_M: Tensor, present_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return g as measured on other training examples, and whether both batches say something of it."""
        batch = self.train.batch(index)
        logits = {"train": (batch, self.trainer.objective.logits(batch))}
        drawn = [m for m, rule in enumerate(self.trainer.constraints) if rule.split == "train"]
        _, other, known = self._constraint_rows(logits, self.others, only=drawn)
        if drawn:
            exact_M, present_M = exact_M.clone(), present_M.clone()
            exact_M[drawn] = torch.stack(other).to(exact_M)
            present_M[drawn] &= torch.stack(known)
        return exact_M, present_M

    def _constraint_values(self, logits: dict[str, Any], values: Sequence[BatchValue]) -> tuple[Tensor, Tensor, Tensor]:
        """Return g to follow, g as measured, and which constraints this step's data speak of, each (M,)."""
        smooth, exact, present = self._constraint_rows(logits, values)
        if not smooth:
            none = torch.zeros(0, device=self.trainer.device)
            return none, none, none.bool()
        return torch.stack(smooth), torch.stack(exact), torch.stack(present)

    def _constraint_rows(
        self, logits: dict[str, Any], values: Sequence[BatchValue], only: Sequence[int] | None = None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        smooth, exact, present = [], [], []
        for m in range(len(values)) if only is None else only:
            rule, value, raised = self.trainer.constraints[m], values[m], self._raised[m]
            if rule.split not in logits:
                batch = self.splits[rule.split].batch()
                logits[rule.split] = (batch, self.trainer.objective.logits(batch))
            batch, logits_V = logits[rule.split]
            share = len(batch) / len(self.train) if rule.split == "train" else 1.0
            soft, hard, known = value.read(rule.sums(torch.log_softmax(logits_V, dim=-1), batch), share)
            smooth.append(soft)
            exact.append(hard + raised if raised else hard)
            present.append(known)
        return smooth, exact, present
