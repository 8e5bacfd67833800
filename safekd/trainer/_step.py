"""One primal-dual step of a student, and of the weighting rule that learns beside it.  Axes: B batch, M constraints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solvers.primal_dual import PrimalDual

from ..data import Split
from ..weights import StudentStep
from . import _culprit
from ._attainable import attainable
from ._objective import Pool

if TYPE_CHECKING:
    from ._trainer import ConstrainedTrainer


class Stepper:
    """Takes the steps of one run, each from a batch of the training split."""

    def __init__(
        self, trainer: ConstrainedTrainer, engine: PrimalDual, train: Split, splits: Mapping[str, Split]
    ) -> None:
        self.trainer, self.engine, self.train, self.splits = trainer, engine, train, splits
        ours = {id(p) for p in trainer.student.parameters()}
        groups = trainer.optimizer.param_groups
        self._group = next(i for i, group in enumerate(groups) if any(id(p) in ours for p in group["params"]))

    def take(self, index: Tensor) -> str | None:
        """Take one primal-dual step; say what was not finite, everything left as it was before, or return None."""
        student = self.trainer.student
        buffers = {name: value.clone() for name, value in student.named_buffers()}
        put_back = self.trainer.learning.snapshot()
        culprit = self._try(index)
        if culprit is not None:
            put_back()
            for name, value in student.named_buffers():
                value.copy_(buffers[name])  # running averages moved in the forward pass
        return culprit

    def _try(self, index: Tensor) -> str | None:
        trainer, objective = self.trainer, self.trainer.objective
        batch = self.train.batch(index)
        logits_V = objective.logits(batch)
        if not objective.fixed and not bool(torch.isfinite(logits_V).all()):
            return _culprit.of_loss(trainer.student, logits_V)  # before a rule that looks at them complains
        pool = None if objective.fixed else objective.pool(self.train, index, logits_V)
        log_q_V = objective.target(self.train, index, logits_V) if pool is None else pool.log_q_V.detach()
        loss = objective.loss(log_q_V, logits_V).mean()
        smooth, exact, present = self._constraint_values({"train": (batch, logits_V)})
        if not bool(torch.isfinite(loss)):
            return _culprit.of_loss(trainer.student, logits_V)
        if not bool((torch.isfinite(smooth) & torch.isfinite(exact)).all()):
            return _culprit.of_values(trainer.constraints, smooth, exact)
        total = self.engine.step(loss, inequality=smooth, measured=exact, present=present)
        trainer.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.get_total_norm([p.grad for p in trainer.student.parameters() if p.grad is not None])
        culprit = None if bool(torch.isfinite(norm)) else _culprit.of_gradient(trainer.student)
        if culprit is None and pool is not None:
            culprit = self._teach(pool, batch.inputs, logits_V.detach())
        if culprit is not None:
            self.engine.undo()
            return culprit
        trainer.optimizer.step()
        if trainer.scheduler is not None:
            trainer.scheduler.step()
        return None

    def _teach(self, pool: Pool, inputs: Tensor, logits_V: Tensor) -> str | None:
        """Move the rule by what this step shows, the student still as it was; say what was not finite."""
        trainer = self.trainer
        rate = float(trainer.optimizer.param_groups[self._group]["lr"])
        step = StudentStep(pool.signals, pool.weights_K, trainer.student, inputs, rate)
        culprit = trainer.learning.gradients(step, lambda: trainer.objective.loss(pool.log_q_V, logits_V).mean())
        return culprit or trainer.learning.step()

    def _constraint_values(self, logits: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Return g from surrogates, g as measured, and which constraints this step's data speak of, each (M,)."""
        smooth, exact, present = [], [], []
        for rule in self.trainer.constraints:
            if rule.split not in logits:
                batch = self.splits[rule.split].batch()
                logits[rule.split] = (batch, self.trainer.objective.logits(batch))
            batch, logits_V = logits[rule.split]
            soft, hard, count = rule.sums(torch.log_softmax(logits_V, dim=-1), batch)
            smooth.append(rule.at_least - soft / count.clamp_min(1))
            whole = rule.split != "train" or len(batch) == len(self.train)
            exact.append((attainable(rule, count) if whole else rule.at_least) - hard / count.clamp_min(1))
            present.append(count > 0)
        if not smooth:
            none = torch.zeros(0, device=self.trainer.device)
            return none, none, none.bool()
        return torch.stack(smooth), torch.stack(exact), torch.stack(present)
