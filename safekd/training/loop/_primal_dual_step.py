"""One primal-dual step of a student, and of the weighting rule that learns beside it.  Axes: B batch, M constraints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from solvers.primal_dual import PrimalDual

from ..._precision import find_unusable_rows, log_softmax
from ...data import Batch
from ...errors import NotFinite
from ...weights import StudentStep
from .._constraint_layout import ConstraintLayout, attainable_threshold
from .._objective import PooledTeachers
from .._training_problem import TrainingProblem
from ..diagnosis import find_gradient_source, find_loss_source, find_value_source
from ._batch_values import BatchValue
from ._fit_inputs import FitData
from ._fused_step import FusedStepReader
from ._step_or_rollback import clear_gradients, gradient_norm, step_or_rollback


class PrimalDualStep:
    """Takes the steps of one fit, each from a batch of the training split.

    Args:
        problem: What is trained.
        engine: Holds multipliers and penalties.
        data: Of the fit.
    """

    def __init__(self, problem: TrainingProblem, engine: PrimalDual, data: FitData) -> None:
        self.problem, self.engine, self.data = problem, engine, data
        self.layout = ConstraintLayout(problem.constraints, problem.device)
        full = problem.is_full_batch(data.train)
        self.values = [
            BatchValue(rule, *problem.objective.count_groups([rule], data.by_name[rule.split]))
            for rule in problem.constraints
        ]
        self.others = [BatchValue(value.rule, value.count_G) for value in self.values]  # of batches that are only read
        whole = [rule.split != "train" or full for rule in problem.constraints]
        # what a measure that counts can take lies above the threshold; batches take other values
        self._raised = [
            float(attainable_threshold(rule, value.count_G.sum())) - rule.required if counted else 0.0
            for rule, value, counted in zip(problem.constraints, self.values, whole, strict=True)
        ]
        self.parameters = list(problem.student.parameters())
        self._buffers = list(problem.student.buffers())
        self.fused = FusedStepReader.fit_problem(problem.objective, problem.constraints, data.train, full)
        self._rule_learns = bool(problem.learning.modules)
        own, groups = {id(p) for p in self.parameters}, problem.optimizer.param_groups
        self._group = next(i for i, group in enumerate(groups) if any(id(p) in own for p in group["params"]))

    def step(self, batch: Batch, other: Batch | None = None) -> str | None:
        """Take one primal-dual step, or leave everything as it was before.

        Args:
            batch: Training examples.
            other: Training examples whose values multipliers and penalties see in place of those of ``batch``.

        Returns:
            What was not finite; None where the step was taken.
        """
        before = [value.clone() for value in self._buffers]  # running averages move in the forward pass
        roll_back_rule = self.problem.learning.snapshot() if self._rule_learns else None
        self.problem.objective.clear_non_finite_source()
        try:
            fused = self.fused is not None and other is None
            source = self._fused_step(batch) if fused else self._general_step(batch, other)
        except NotFinite as error:  # of a teacher, before anything moved
            source = error.source
        if source is not None:
            if roll_back_rule is not None:
                roll_back_rule()
            for value, old in zip(self._buffers, before, strict=True):
                value.copy_(old)
        return source

    def _fused_step(self, batch: Batch) -> str | None:
        """Take the step in fewer operations; where something is not finite, find in the general way what that is."""
        assert self.fused is not None
        objective = self.problem.objective
        logits_V = objective.logits(batch)
        loss, surrogate, measured, present = self.fused.read(batch, logits_V)
        norm = self._backpropagate(self._lagrangian(loss, surrogate, measured, present))
        if norm is not None:
            return self._move_student(None, norm)
        detached_V = logits_V.detach()
        log_q_V = objective.target(self.data.train, batch, detached_V)
        losses = objective.loss(log_q_V, detached_V)
        values = self._constraint_values({"train": (batch, detached_V)}, self.values)[:2]
        return self._move_student(self._find_source(batch, logits_V, log_q_V, losses, *values), None)

    def _general_step(self, batch: Batch, other: Batch | None) -> str | None:
        objective, train = self.problem.objective, self.data.train
        logits_V = objective.logits(batch)
        if not objective.fixed and bool(find_unusable_rows(logits_V).any()):
            return find_loss_source(objective.student, logits_V)  # before a rule that looks at them complains
        pool = None if objective.fixed else objective.pool(train, batch, logits_V)
        log_q_V = objective.target(train, batch, logits_V) if pool is None else pool.log_q_V.detach()
        losses = objective.loss(log_q_V, logits_V)
        loss = batch.average_positions(losses)
        surrogate, measured, present = self._constraint_values({"train": (batch, logits_V)}, self.values)
        if other is not None:
            measured, present = self._measure_elsewhere(other, measured, present)
        norm = self._backpropagate(self._lagrangian(loss, surrogate, measured, present))
        source = None
        if norm is None:
            source = self._find_source(batch, logits_V, log_q_V, losses, surrogate, measured)
        elif pool is not None:
            source = self._move_rule(pool, batch, logits_V.detach())
        return self._move_student(source, norm)

    def _backpropagate(self, total: Tensor) -> float | None:
        """Leave the gradient where the optimizer looks for it; return its norm, None where something is not finite."""
        clear_gradients(self.problem.optimizer)
        total.backward()  # type: ignore[no-untyped-call]
        norm = gradient_norm(self.parameters, total.detach())
        return norm if math.isfinite(norm) else None

    def _move_student(self, source: str | None, norm: float | None) -> str | None:
        """Move the student, unless something was not finite; take everything back where something is then."""
        problem = self.problem
        if source is None and norm is not None:
            source = step_or_rollback(problem.optimizer, problem.student, norm)
        if source is not None:
            self.engine.undo()
            problem.optimizer.zero_grad()
            return source
        if problem.scheduler is not None:
            problem.scheduler.step()
        return None

    def _find_source(self, batch: Batch, logits_V: Tensor, log_q_V: Tensor, losses: Tensor, *values_M: Tensor) -> str:
        """Say which of what a step rests on is not finite, first cause first."""
        student, objective = self.problem.student, self.problem.objective
        if not bool(torch.isfinite(batch.average_positions(losses))):
            return objective.non_finite_source or find_loss_source(student, logits_V, losses, batch.index, log_q_V)
        source = find_value_source(self.problem.constraints, *values_M)
        return source or find_gradient_source(student, self._read_terms(batch, log_q_V))

    def _read_terms(self, batch: Batch, log_q_V: Tensor) -> dict[str, Tensor]:
        """Return what a step adds up, read once more: the loss, and each constraint by its surrogate."""
        objective, rules = self.problem.objective, self.problem.constraints
        logits_V = objective.logits(batch)
        surrogate, _, _ = self._constraint_rows(
            {"train": (batch, logits_V)}, self.values
        )  # stacked, one NaN would reach all
        named = {f"constraint '{rule.name}'": g for rule, g in zip(rules, surrogate, strict=True)}
        return {"the distillation loss": batch.average_positions(objective.loss(log_q_V, logits_V)), **named}

    def _move_rule(self, pool: PooledTeachers, batch: Batch, logits_V: Tensor) -> str | None:
        """Move the rule by what this step shows, the student still as it was; say what was not finite."""
        problem = self.problem
        rate = float(problem.optimizer.param_groups[self._group]["lr"])
        step = StudentStep(pool.signals, pool.weights_K, problem.student, batch.inputs, rate)
        source = problem.learning.gradients(
            step, lambda: batch.average_positions(problem.objective.loss(pool.log_q_V, logits_V))
        )
        return source or problem.learning.step()

    def _lagrangian(
        self, loss: Tensor, surrogate_M: Tensor, measured_M: Tensor | None, present_M: Tensor | None
    ) -> Tensor:
        """Move the multipliers by what was measured; return what to minimize, which has the surrogates' gradients.

        measured_M: None where it is surrogate_M; present_M: None where all are.
        """
        layout = self.layout
        if not len(layout.equalities):
            return self.engine.step(loss, surrogate_M, measured=measured_M, present=present_M)
        g_M, h_E = layout.split_by_kind(surrogate_M)
        measured_g_M, measured_h_E = (None, None) if measured_M is None else layout.split_by_kind(measured_M)
        present = None if present_M is None else torch.cat(layout.split_by_kind(present_M))
        return self.engine.step(loss, g_M, h_E, measured=measured_g_M, measured_equality=measured_h_E, present=present)

    @torch.no_grad()
    def _measure_elsewhere(self, batch: Batch, measured_M: Tensor, present_M: Tensor) -> tuple[Tensor, Tensor]:
        """Return g as measured on other training examples, and whether both batches say something of it."""
        logits = {"train": (batch, self.problem.objective.logits(batch))}
        drawn = [m for m, rule in enumerate(self.problem.constraints) if rule.split == "train"]
        _, other, known = self._constraint_rows(logits, self.others, only=drawn)
        if drawn:
            measured_M, present_M = measured_M.clone(), present_M.clone()
            measured_M[drawn] = torch.stack(other).to(measured_M)
            present_M[drawn] &= torch.stack(known)
        return measured_M, present_M

    def _constraint_values(self, logits: dict[str, Any], values: Sequence[BatchValue]) -> tuple[Tensor, Tensor, Tensor]:
        """Return g of the surrogates, g as measured, and which constraints this step's data speak of, each (M,)."""
        surrogate, measured, present = self._constraint_rows(logits, values)
        if not surrogate:
            none = torch.zeros(0, device=self.problem.device)
            return none, none, none.bool()
        return torch.stack(surrogate), torch.stack(measured), torch.stack(present)

    def _constraint_rows(
        self, logits: dict[str, Any], values: Sequence[BatchValue], only: Sequence[int] | None = None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        surrogates, measures, present = [], [], []
        for m in range(len(values)) if only is None else only:
            rule, value, raised = self.problem.constraints[m], values[m], self._raised[m]
            if rule.split not in logits:
                batch = self.data.splits[rule.split].batch()
                logits[rule.split] = (batch, self.problem.objective.logits(batch))
            batch, logits_V = logits[rule.split]
            share = len(batch) / len(self.data.train) if rule.split == "train" else 1.0
            surrogate, measured, known = value.read(rule.sums(log_softmax(logits_V), batch), share)
            surrogates.append(surrogate)
            measures.append(measured + raised if raised else measured)
            present.append(known)
        return surrogates, measures, present
