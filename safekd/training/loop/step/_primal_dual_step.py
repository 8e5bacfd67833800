"""One primal-dual step of a student, and of the weighting rule that learns beside it.  Axes: B batch, M constraints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from solvers.primal_dual import MultiplierScales, PrimalDual

from ...._precision import find_unusable_rows, log_softmax
from ....data import Batch
from ....errors import NotFinite
from ....safety import GroupSums
from ..._objective import PooledTeachers
from ..._training_problem import TrainingProblem
from ...diagnosis import find_gradient_source, find_loss_source, find_value_source
from .._fit_inputs import FitData
from ._accumulated_step import AccumulatedStep
from ._batch_averages import BatchTable
from ._fused_step import FusedStepReader
from ._rule_step import RuleStep
from ._step_values import StepValues
from ._student_mover import StudentMover


class PrimalDualStep:
    """Takes the steps of one fit, each from a batch of the training data.

    Most batches go through the student at once, and the multipliers move between its forward and its backward pass.  A
    batch of several microbatches is read twice instead, see ``AccumulatedStep``, and so is another source on which a
    constraint is posed, where it is not in memory.

    Args:
        problem: What is trained.
        engine: Holds multipliers and penalties.
        data: Of the fit.

    Attributes:
        values: The constraints' values.
        mover: Takes the student's steps.
    """

    def __init__(self, problem: TrainingProblem, engine: PrimalDual, data: FitData) -> None:
        self.problem, self.engine, self.data = problem, engine, data
        self.values = StepValues(problem, engine, data)
        self.mover = StudentMover(problem)
        self._rule = RuleStep(problem)
        self._accumulated = AccumulatedStep(problem, engine, data, self.values, self.mover, self._rule)
        self._buffers = list(problem.student.buffers())
        self._shared = problem.ranks.size > 1 or problem.trained.caller is not problem.student
        self._streams = data.streams_beside(problem.constraints)
        self._tables = problem.scaler is None and not len(self.values.layout.equalities)
        size = None if problem.is_full_batch(data.train) else problem.batch_size
        self.fused = FusedStepReader.fit_problem(problem.objective, problem.constraints, data.train, size)

    def step(self, batch: Batch, other: Batch | None = None) -> str | None:
        """Take one primal-dual step, or leave everything as it was before.

        Args:
            batch: Training examples.
            other: Training examples whose values multipliers and penalties see in place of those of ``batch``.

        Returns:
            What was not finite; None where the step was taken.
        """
        before = [value.clone() for value in self._buffers]  # running averages move in the forward pass
        roll_back_rule = self._rule.snapshot()
        self.problem.objective.clear_non_finite_source()
        rows = self.problem.microbatch_size
        try:
            if self._shared or self._streams or (rows is not None and len(batch) > rows):
                source = self._accumulated.step(batch, other)
            elif self.fused is not None and other is None:
                source = self._fused_step(batch)
            else:
                source = self._general_step(batch, other)
        except NotFinite as error:  # of a teacher, before anything moved
            source = error.source
        if source is not None:
            roll_back_rule()
            for value, old in zip(self._buffers, before, strict=True):
                value.copy_(old)
        return source

    def _fused_step(self, batch: Batch) -> str | None:
        """Take the step in fewer operations; where something is not finite, find in the general way what that is."""
        assert self.fused is not None
        objective = self.problem.objective
        logits_V = objective.logits(batch)
        table = self.fused.find_table(batch, logits_V) if self._tables else None
        if table is None:
            total = self.values.move_multipliers(*self.fused.read(batch, logits_V))
            norm = self._backpropagate(total)
        else:
            total, norm = self._go_by_table(table, batch, logits_V)
        if norm is not None:
            return self._move_student(None, norm)
        if self.mover.skips(total):
            self.engine.undo()
            return None
        detached_V = logits_V.detach()
        log_q_V = objective.target(self.data.train, batch, detached_V)
        losses = objective.loss(log_q_V, detached_V)
        surrogate, measured, _ = self._read_constraints(batch, detached_V)
        return self._move_student(self._find_source(batch, logits_V, log_q_V, losses, surrogate, measured), None)

    def _go_by_table(self, table: BatchTable, batch: Batch, logits_V: Tensor) -> tuple[Tensor, float | None]:
        """Move the multipliers and leave the gradient; return the value that was differentiated, and its norm."""
        read = table.read(logits_V, batch)
        weight_M = self.engine.weigh(
            read.loss,
            read.g_M,
            measured=read.measured_M,
            present=read.present_M,
            scales=lambda: self._read_scales(batch, logits_V),
        )
        self.mover.clear()
        logits_V.backward(table.differentiate(read, weight_M, batch, logits_V))  # type: ignore[no-untyped-call]
        total = read.loss + torch.dot(weight_M, read.g_M)
        return total, self.mover.read_norm(total)

    def _read_scales(self, batch: Batch, logits_V: Tensor) -> MultiplierScales:
        assert self.fused is not None
        loss, g_M, _, present_M = self.fused.read(batch, logits_V)
        return self.engine.read_scales(loss, g_M if present_M is None else torch.where(present_M, g_M, 0.0))

    def _general_step(self, batch: Batch, other: Batch | None) -> str | None:
        objective, train = self.problem.objective, self.data.train
        logits_V = objective.logits(batch)
        if not objective.fixed and bool(find_unusable_rows(logits_V).any()):
            return find_loss_source(objective.student, logits_V)  # before a rule that looks at them complains
        pool = None if objective.fixed else objective.pool(train, batch, logits_V)
        log_q_V = objective.target(train, batch, logits_V) if pool is None else pool.log_q_V.detach()
        losses = objective.loss(log_q_V, logits_V)
        values = self._read_constraints(batch, logits_V)
        if other is not None:
            values = self._measure_elsewhere(other, values)
        total = self.values.move_multipliers(batch.average_positions(losses), *values)
        norm = self._backpropagate(total)
        source = None
        if norm is None:
            if self.mover.skips(total):
                self.engine.undo()
                return None
            source = self._find_source(batch, logits_V, log_q_V, losses, *values[:2])
        elif pool is not None:
            source = self._move_rule(pool, batch, logits_V.detach())
        return self._move_student(source, norm)

    def _backpropagate(self, total: Tensor) -> float | None:
        """Leave the gradient where the optimizer looks for it; return its norm, None where something is not finite."""
        self.mover.clear()
        self.mover.backward(total)
        return self.mover.read_norm(total)

    def _move_rule(self, pool: PooledTeachers, batch: Batch, logits_V: Tensor) -> str | None:
        source = self._rule.add(pool, batch, logits_V)
        return source or self._rule.move()

    def _move_student(self, source: str | None, norm: float | None) -> str | None:
        """Move the student, unless something was not finite; take everything back where something is then."""
        if source is None and norm is not None:
            source = self.mover.move(norm)
        if source is not None:
            self.engine.undo()
            self.problem.optimizer.zero_grad()
        return source

    def _find_source(self, batch: Batch, logits_V: Tensor, log_q_V: Tensor, losses: Tensor, *values_M: Tensor) -> str:
        """Say which of what a step rests on is not finite, first cause first."""
        student, objective = self.problem.student, self.problem.objective
        if not bool(torch.isfinite(batch.average_positions(losses))):
            return objective.non_finite_source or find_loss_source(student, logits_V, losses, batch.index, log_q_V)
        source = find_value_source(self.problem.constraints, *values_M)
        return source or find_gradient_source(student, self._read_terms(batch, log_q_V), batch)

    def _read_terms(self, batch: Batch, log_q_V: Tensor) -> dict[str, Tensor]:
        """Return what a step adds up, read once more: the loss, and each constraint by its surrogate."""
        objective, rules = self.problem.objective, self.problem.constraints
        logits_V = objective.logits(batch)
        sums_M = self._add_up(batch, logits_V)  # apart: stacked, one NaN would reach all
        named = {f"constraint '{rule.name}'": sums.surrogate_G.sum() for rule, sums in zip(rules, sums_M, strict=True)}
        return {"the distillation loss": batch.average_positions(objective.loss(log_q_V, logits_V)), **named}

    def _read_constraints(self, batch: Batch, logits_V: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.values.read(self._add_up(batch, logits_V), len(batch) / len(self.data.train))

    def _add_up(self, batch: Batch, logits_V: Tensor) -> list[GroupSums]:
        """Return the sums of each constraint: over the batch, or over the whole of another split."""
        logits = {"train": (batch, logits_V)}
        sums_M = []
        for rule in self.problem.constraints:
            if rule.split not in logits:
                whole = self.data.splits[rule.split].batch()
                logits[rule.split] = (whole, self.problem.objective.logits(whole))
            examples, of_those_V = logits[rule.split]
            sums_M.append(rule.sums(log_softmax(of_those_V), examples))
        return sums_M

    @torch.no_grad()
    def _measure_elsewhere(self, batch: Batch, values: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the values with g as measured on other training examples."""
        log_p_V = log_softmax(self.problem.objective.logits(batch))
        sums_by_row = {
            m: rule.sums(log_p_V, batch) for m, rule in enumerate(self.problem.constraints) if rule.split == "train"
        }
        surrogate_M, measured_M, present_M = values
        share = len(batch) / len(self.data.train)
        return self.values.replace_measured((surrogate_M, measured_M, present_M), sums_by_row, share)
