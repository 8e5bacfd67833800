"""A step in parts: sums and counts over all microbatches first, then multipliers, then gradients part by part.

The weight of a constraint in the student's gradient, ``relu(lambda + rho g)``, rests on g over the whole step, and no
part's graph may stay while the next one is read.  So

    1. every part is read without gradient: sums of losses and of each constraint's groups, and counts
    2. the multipliers move by what these sums say; the derivative of the Lagrangian by each sum is its weight
    3. every part is read again, and ``weights . sums`` of the part goes backward

which costs a forward pass more than one batch at once, and gives the same gradient.  The last part keeps its graph from
1 and is spared that.  Random numbers (dropout) are drawn twice alike.  Axes: M constraints, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from solvers.primal_dual import GradientSums, MultiplierScales, PrimalDual

from ...._precision import find_unusable_rows, log_softmax
from ...._torch_state import RandomState
from ....data import Batch
from ....errors import NotFinite
from ....safety import GroupSums
from ..._rank_pool import RankPool, pool_over_ranks
from ..._training_problem import TrainingProblem
from ...diagnosis import find_gradient_source, find_loss_source, find_value_source
from .._fit_inputs import FitData
from ._rule_step import RuleStep
from ._step_parts import GroupFactors, PartCutter, PartSums, StepPart, StepParts, StepSums, SumReader
from ._step_values import StepValues
from ._student_mover import StudentMover


@dataclass(frozen=True)
class AccumulationSettings:
    """What is kept from the first reading of a part to the second.

    Attributes:
        target_bytes: Of the targets of all parts; where they are more, teachers are asked twice.
    """

    target_bytes: int = 2**28


SETTINGS = AccumulationSettings()


class AccumulatedStep:
    """Takes steps of several microbatches.

    Args:
        problem: What is trained.
        engine: Holds multipliers and penalties.
        data: Of the fit.
        values: The constraints' values.
        mover: Takes the student's steps.
        rule: Takes those of a rule that learns.
    """

    def __init__(
        self,
        problem: TrainingProblem,
        engine: PrimalDual,
        data: FitData,
        values: StepValues,
        mover: StudentMover,
        rule: RuleStep,
    ) -> None:
        self._problem, self._engine, self._data = problem, engine, data
        self._values, self._mover, self._rule = values, mover, rule
        self._cutter, self._reader = PartCutter(problem, data.train, data.splits), SumReader(problem)
        self._buffers = list(problem.student.buffers())
        # the last part of a step, its number before it, and what it says after it, with its graph
        self._last: tuple[int, StepPart, PartSums] | None = None
        self._alone, self._caller = problem.ranks.size == 1, problem.trained.caller
        self._pools: dict[int, RankPool] = {}  # of parts, where the rule looks at what all ranks have
        self._rule_source: str | None = None  # what was not finite in the rule's own step
        self._targets: dict[int, Tensor] = {}  # of parts by their number, from the first reading to the second

    def step(self, batch: Batch, other: Batch | None) -> str | None:
        """Take one step, or leave the student as it was before.

        Args:
            batch: Training examples.
            other: Training examples whose values multipliers see in place of those of ``batch``.

        Returns:
            What was not finite; None where the step was taken.
        """
        problem, parts = self._problem, self._cutter.cut(batch)
        start = RandomState.read(problem.device)
        self._targets.clear()
        self._pools.clear()
        self._mover.clear()
        self._rule_source = None
        if problem.objective.looks_at_batches:
            problem.trained.refresh()
        if not problem.constraints and problem.ranks.size == 1:
            one, positions = torch.ones((), dtype=torch.float64, device=problem.device), max(batch.positions, 1)
            loss = torch.stack([self._go_back(n, part, None, one, {}, positions) for n, part, _ in parts]).sum()
            return self._move(loss, None)
        sums = self._reader.add_up(lambda: self._read_parts(parts, batch, other))
        loss = (sums.loss / sums.positions).requires_grad_()
        groups_M = [sums.groups[m].require_gradient() for m in range(len(problem.constraints))]
        share = sums.examples / len(self._data.train)
        values = self._values.read(groups_M, share)
        if other is not None:
            values = self._values.replace_measured(values, dict(sums.drawn), share)
        factors = GroupFactors(values[0], values[2], groups_M) if groups_M else None
        end = RandomState.read(problem.device)
        total = self._values.move_multipliers(
            loss, *values, lambda: self._read_scales(parts, start, sums.positions, factors)
        )
        if problem.ranks.size > 1 and not bool(torch.isfinite(total.detach())):  # on every rank
            return self._refuse(parts, find_value_source(problem.constraints, *values[:2]))
        weight, *weight_MG = torch.autograd.grad(total, [loss, *(group.surrogate_G for group in groups_M)])
        self._go_back_all(parts, weight, dict(enumerate(weight_MG)), sums.positions, start)
        end.restore()
        return self._move(total, find_value_source(problem.constraints, *values[:2]))

    def _go_back_all(
        self,
        parts: StepParts,
        weight: Tensor,
        weight_by_row: Mapping[int, Tensor],
        positions: int,
        start: RandomState,
    ) -> None:
        """Add up the gradients of all parts, over all processes once the last one is read."""
        kept, self._last = self._last, None
        if kept is not None:
            self._go_back(*kept, weight, weight_by_row, positions, kept[0] == 0)
        start.restore()
        for number, part, last in parts:
            if kept is None:
                self._go_back(number, part, None, weight, weight_by_row, positions, last)
            elif not last:
                self._go_back(number, part, None, weight, weight_by_row, positions, number == kept[0] - 1)

    def _move(self, total: Tensor, value_source: str | None) -> str | None:
        """Move rule and student by the gradients that were added up; take everything back where one is not finite."""
        problem, ranks = self._problem, self._problem.ranks
        problem.trained.add_up_gradients()
        norm, source = self._mover.read_norm(total), None
        if norm is None:
            if value_source is None and self._mover.skips(total):
                self._engine.undo()
                return None
            source = ranks.agree(self._find_source(total, value_source))
        source = source or self._rule_source or ranks.agree(self._rule.move())
        if source is None and norm is not None:
            source = self._mover.move(norm)
        if source is not None:
            return self._take_back(source)
        problem.trained.share_buffers()
        return None

    def _refuse(self, parts: StepParts, value_source: str | None) -> str:
        """Take back a step whose sums are not finite; the process that made them so says why, on all of them."""
        source = self._reader.failure or self._problem.objective.non_finite_source
        self._problem.trained.refresh()
        with torch.no_grad():
            for _, part, _ in parts if source is None else ():
                source = source or self._find_part_source(part)
        source = self._problem.ranks.agree(source)
        return self._take_back(source or value_source or "The distillation loss is not finite")

    def _take_back(self, source: str) -> str:
        self._engine.undo()
        self._problem.optimizer.zero_grad()
        return source

    def _find_part_source(self, part: StepPart) -> str | None:
        """Return why the loss of a part is not finite; None where it is."""
        objective, batch = self._problem.objective, part.batch
        logits_V = objective.logits(batch)
        if bool(find_unusable_rows(logits_V).any()):
            return find_loss_source(objective.student, logits_V)
        if part.name != "train" or not objective.fixed:
            return None
        log_q_V = objective.target(part.source, batch, logits_V)
        losses = objective.loss(log_q_V, logits_V)
        if bool(torch.isfinite(batch.sum_positions(losses))):
            return None
        return objective.non_finite_source or find_loss_source(
            objective.student, logits_V, losses, batch.index, log_q_V
        )

    def _read_parts(self, parts: StepParts, batch: Batch, other: Batch | None) -> StepSums:
        """Return what the parts of this process say; the last one keeps its graph."""
        loss, groups, self._last = self._add_up(parts)
        drawn = {} if other is None else self._add_up(self._cutter.cut(other, train_only=True), keep_last=False)[1]
        return StepSums(loss, max(batch.positions, 1) if self._alone else batch.positions, len(batch), groups, drawn)

    def _add_up(
        self, parts: StepParts, *, keep_last: bool = True
    ) -> tuple[Tensor, dict[int, GroupSums], tuple[int, StepPart, PartSums] | None]:
        """Return the sums over some parts, without gradient, and those of the last part, with its graph."""
        total = torch.zeros((), dtype=torch.float64, device=self._problem.device)
        groups: dict[int, GroupSums] = {}
        kept = None
        for number, part, last in parts:
            keep = keep_last and last
            with torch.set_grad_enabled(keep), self._problem.trained.accumulate(last=keep and number == 0):
                here = self._read(number, part, self._caller if keep_last else None, with_loss=keep_last)
            kept = (number, part, here) if keep else None
            total = total + here.loss.detach()
            for m, sums in here.groups.items():
                groups[m] = groups[m] + sums.detach() if m in groups else sums.detach()
        return total, groups, kept

    def _read(
        self, number: int, part: StepPart, caller: nn.Module | None = None, *, with_loss: bool = True
    ) -> PartSums:
        objective, batch, shown = self._problem.objective, part.batch, None
        logits_V, pool = objective.logits(batch, caller), None
        loss = torch.zeros((), dtype=torch.float64, device=logits_V.device)
        if not with_loss or part.name != "train":
            pass
        elif objective.looks_at_batches and not self._alone:
            shown = self._pool_over_ranks(number, part, logits_V)
            pool, log_q_V = shown.pool, shown.log_target
        elif not part.counts:
            pass
        elif objective.fixed:
            log_q_V = self._find_target(number, part, logits_V)
        else:
            if bool(find_unusable_rows(logits_V).any()):  # before a rule that looks at them complains
                raise NotFinite(find_loss_source(objective.student, logits_V), "finite logits")
            pool = objective.pool(part.source, batch, logits_V)
            log_q_V = pool.log_q_V.detach()
        if not part.counts:  # asked so that every process asks equally often
            return PartSums(0.0 * torch.nan_to_num(logits_V).sum().double(), {}, pool, logits_V, shown)
        if with_loss and part.name == "train":
            loss = batch.sum_positions(objective.loss(log_q_V, logits_V)).double()
        log_p_V = log_softmax(logits_V)
        rules = enumerate(self._problem.constraints)
        groups = {m: rule.sums(log_p_V, batch) for m, rule in rules if rule.split == part.name}
        return PartSums(loss, groups, pool, logits_V, shown)

    def _pool_over_ranks(self, number: int, part: StepPart, logits_V: Tensor) -> RankPool:
        """Return the teachers of what all ranks have of a part; a rule that remembers is asked once a step."""
        if number not in self._pools:
            with torch.enable_grad():
                self._pools[number] = pool_over_ranks(
                    self._problem.objective, part.source, part.batch, logits_V, self._problem.ranks, part.counts
                )
        return self._pools[number]

    def _find_target(self, number: int, part: StepPart, logits_V: Tensor) -> Tensor:
        """Return the targets of a part, asked for once a step where those of all parts are few enough to be kept."""
        if number in self._targets:
            return self._targets[number]
        log_q_V = self._problem.objective.target(part.source, part.batch, logits_V)
        held = sum(target.numel() * target.element_size() for target in self._targets.values())
        if held + log_q_V.numel() * log_q_V.element_size() <= SETTINGS.target_bytes:
            self._targets[number] = log_q_V
        return log_q_V

    def _go_back(
        self,
        number: int,
        part: StepPart,
        read: PartSums | None,
        weight: Tensor,
        weight_by_row: Mapping[int, Tensor],
        positions: int,
        last: bool = True,
    ) -> Tensor:
        """Add the gradient of one part, which is read anew where its graph is gone; return its share of the loss."""
        again, before = read is None and bool(weight_by_row), [value.clone() for value in self._buffers]
        with self._problem.trained.accumulate(last):
            read = self._read(number, part, self._caller) if read is None else read
            loss = read.loss / positions
            terms = [weight * loss] if part.name == "train" or not part.counts else []
            terms += [(weight_by_row[m] * sums.surrogate_G).sum() for m, sums in read.groups.items()]
            self._mover.backward(torch.stack(terms).sum())
        if again:  # running averages have moved once already
            _write_back(self._buffers, before)
        if read.pool is not None:
            shown, logits_V = part.batch, read.logits_V.detach()
            if read.shown is not None:
                shown, logits_V = read.shown.batch, read.shown.logits_V
            source = self._rule.add(read.pool, shown, logits_V, shown.positions / positions)
            self._rule_source = self._rule_source or source
        return loss.detach()

    def _read_scales(
        self, parts: StepParts, start: RandomState, positions: int, factors: GroupFactors | None
    ) -> MultiplierScales:
        """Return the multiplier scales of the whole step, for which each part is read twice more."""
        assert factors is not None
        self._last = None  # one graph at a time
        layout, parameters = self._values.layout, list(self._problem.student.parameters())
        ranks = self._problem.ranks
        self._problem.trained.refresh()
        reduce = None if ranks.size == 1 else ranks.add_up_in_place
        sums = GradientSums(parameters, len(layout.inequalities), len(layout.equalities), reduce=reduce)

        def read_again() -> Iterator[tuple[Tensor, Tensor]]:
            start.restore()
            for number, part, _ in parts:
                before = [value.clone() for value in self._buffers]
                with torch.enable_grad():
                    read = self._read(number, part)
                    rows_M = factors.weigh(read.groups)
                yield read.loss / positions, torch.cat(layout.split_by_kind(rows_M))
                _write_back(self._buffers, before)

        end = RandomState.read(self._problem.device)
        for loss, rows_C in read_again():
            sums.add(loss, rows_C)
        value_C = torch.cat(layout.split_by_kind(factors.value_M))
        scales = sums.read(value_C, (loss for loss, _ in read_again()), largest_distance=self._engine.largest_distance)
        end.restore()
        return scales

    def _find_source(self, total: Tensor, value_source: str | None) -> str:
        """Say which of what a step rests on is not finite."""
        objective = self._problem.objective
        if objective.non_finite_source is not None:
            return objective.non_finite_source
        if value_source is not None:
            return value_source
        if not bool(torch.isfinite(total.detach())):
            return "The distillation loss is not finite"
        return find_gradient_source(self._problem.trained.moved, {})


@torch.no_grad()
def _write_back(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
