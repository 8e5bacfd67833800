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
from torch import Tensor

from solvers.primal_dual import GradientSums, MultiplierScales, PrimalDual

from ...._precision import find_unusable_rows, log_softmax
from ...._torch_state import RandomState
from ....data import Batch, ExampleSource
from ....errors import NotFinite
from ....safety import GroupSums
from ..._objective import PooledTeachers
from ..._training_problem import TrainingProblem
from ...diagnosis import find_gradient_source, find_loss_source, find_value_source
from .._fit_inputs import FitData
from ._rule_step import RuleStep
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


@dataclass(frozen=True)
class StepPart:
    """A microbatch of the training data, or of another source on which constraints are posed.

    Attributes:
        source: Where the examples are from.
        name: What the fit calls that source.
        batch: The examples.
    """

    source: ExampleSource
    name: str
    batch: Batch


@dataclass(frozen=True)
class PartSums:
    """What a part adds to the step.

    Attributes:
        loss: Sum of the losses over positions that count, float64; 0 where the part is of another source.
        groups: Sums of each constraint that is posed there, by its number.
        pool: The teachers, weighed, where the targets move.
        logits_V: The student's.
    """

    loss: Tensor
    groups: Mapping[int, GroupSums]
    pool: PooledTeachers | None
    logits_V: Tensor


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
        self._buffers = list(problem.student.buffers())
        self._elsewhere = sorted({rule.split for rule in problem.constraints} - {"train"})
        self._last: PartSums | None = None  # the last part of a step, with its graph
        self._targets: dict[int, Tensor] = {}  # of parts by their number, from the first reading to the second

    def step(self, batch: Batch, other: Batch | None) -> str | None:
        """Take one step, or leave the student as it was before.

        Args:
            batch: Training examples.
            other: Training examples whose values multipliers see in place of those of ``batch``.

        Returns:
            What was not finite; None where the step was taken.
        """
        problem, parts, positions = self._problem, self._cut(batch), max(batch.positions, 1)
        start = RandomState.read(problem.device)
        self._targets.clear()
        self._mover.clear()
        if not problem.constraints:
            one = torch.ones((), dtype=torch.float64, device=problem.device)
            loss = torch.stack([self._go_back(n, part, None, one, {}, positions) for n, part in enumerate(parts)]).sum()
            return self._move(loss, None)
        sums, self._last = self._add_up(parts)
        loss = (sums.loss / positions).requires_grad_()
        groups_M = [sums.groups[m].require_gradient() for m in range(len(problem.constraints))]
        share = len(batch) / len(self._data.train)
        values = self._values.read(groups_M, share)
        read = _GroupFactors(values[0], groups_M)
        if other is not None:
            drawn = self._add_up(self._cut(other, train_only=True), keep_last=False)[0].groups
            values = self._values.replace_measured(values, dict(drawn), share)
        end = RandomState.read(problem.device)
        total = self._values.move_multipliers(loss, *values, lambda: self._read_scales(parts, start, positions, read))
        weight, *weight_MG = torch.autograd.grad(total, [loss, *(sums.surrogate_G for sums in groups_M)])
        todo, weight_by_row = list(enumerate(parts)), dict(enumerate(weight_MG))
        if self._last is not None:
            self._go_back(*todo.pop(), self._last, weight, weight_by_row, positions)
            self._last = None
        start.restore()
        for number, part in todo:
            self._go_back(number, part, None, weight, weight_by_row, positions)
        end.restore()
        return self._move(total, find_value_source(problem.constraints, *values[:2]))

    def _move(self, total: Tensor, value_source: str | None) -> str | None:
        """Move rule and student by the gradients that were added up; take everything back where one is not finite."""
        norm, source = self._mover.read_norm(total), None
        if norm is None:
            if value_source is None and self._mover.skips(total):
                self._engine.undo()
                return None
            source = self._find_source(total, value_source)
        source = source or self._rule.move()
        if source is None and norm is not None:
            source = self._mover.move(norm)
        if source is not None:
            self._engine.undo()
            self._problem.optimizer.zero_grad()
        return source

    def _cut(self, batch: Batch, *, train_only: bool = False) -> list[StepPart]:
        """Return the microbatches of a step: of other sources, which count whole, and then of the training examples."""
        rows = self._problem.microbatch_size or len(batch)
        parts = []
        for name in [] if train_only else self._elsewhere:
            source = self._data.splits[name]
            parts += [StepPart(source, name, some) for some in source.batches(rows)]
        return parts + [StepPart(self._data.train, "train", some) for some in batch.cut(rows)]

    def _add_up(self, parts: Sequence[StepPart], *, keep_last: bool = True) -> tuple[PartSums, PartSums | None]:
        """Return the sums over all parts, without gradient, and those of the last part, with its graph."""
        total = torch.zeros((), dtype=torch.float64, device=self._problem.device)
        groups: dict[int, GroupSums] = {}
        last = None
        for number, part in enumerate(parts):
            keep = keep_last and number == len(parts) - 1
            with torch.set_grad_enabled(keep):
                here = self._read(number, part)
            last = here if keep else None
            total = total + here.loss.detach()
            for m, sums in here.groups.items():
                groups[m] = groups[m] + sums.detach() if m in groups else sums.detach()
        return PartSums(total, groups, None, total), last

    def _read(self, number: int, part: StepPart) -> PartSums:
        objective, batch = self._problem.objective, part.batch
        logits_V, pool = objective.logits(batch), None
        loss = torch.zeros((), dtype=torch.float64, device=logits_V.device)
        if part.name == "train":
            if not objective.fixed:
                if bool(find_unusable_rows(logits_V).any()):  # before a rule that looks at them complains
                    raise NotFinite(find_loss_source(objective.student, logits_V), "finite logits")
                pool = objective.pool(part.source, batch, logits_V)
                log_q_V = pool.log_q_V.detach()
            else:
                log_q_V = self._find_target(number, part, logits_V)
            loss = batch.sum_positions(objective.loss(log_q_V, logits_V)).double()
        log_p_V = log_softmax(logits_V)
        rules = enumerate(self._problem.constraints)
        groups = {m: rule.sums(log_p_V, batch) for m, rule in rules if rule.split == part.name}
        return PartSums(loss, groups, pool, logits_V)

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
    ) -> Tensor:
        """Add the gradient of one part, which is read anew where its graph is gone; return its share of the loss."""
        again, before = read is None and bool(weight_by_row), [value.clone() for value in self._buffers]
        read = self._read(number, part) if read is None else read
        loss = read.loss / positions
        terms = [weight * loss] if part.name == "train" else []
        terms += [(weight_by_row[m] * sums.surrogate_G).sum() for m, sums in read.groups.items()]
        self._mover.backward(torch.stack(terms).sum())
        if again:  # running averages have moved once already
            _write_back(self._buffers, before)
        if read.pool is not None:
            source = self._rule.add(read.pool, part.batch, read.logits_V.detach(), part.batch.positions / positions)
            if source is not None:
                raise NotFinite(source, "finite losses and gradients of the weighting rule")
        return loss.detach()

    def _read_scales(
        self, parts: Sequence[StepPart], start: RandomState, positions: int, factors: _GroupFactors
    ) -> MultiplierScales:
        """Return the multiplier scales of the whole step, for which each part is read twice more."""
        self._last = None  # one graph at a time
        layout, parameters = self._values.layout, list(self._problem.student.parameters())
        sums = GradientSums(parameters, len(layout.inequalities), len(layout.equalities))

        def read_again() -> Iterator[tuple[Tensor, Tensor]]:
            start.restore()
            for number, part in enumerate(parts):
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
        return find_gradient_source(self._problem.student, {})


class _GroupFactors:
    """By how much each group's sum of surrogates counts in each constraint's value, as this step reads it.

    surrogate_M: g, with its graph to ``surrogate_G`` of each of ``groups_M``.
    """

    def __init__(self, surrogate_M: Tensor, groups_M: Sequence[GroupSums]) -> None:
        self.value_M = surrogate_M.detach()
        leaves = [sums.surrogate_G for sums in groups_M]
        # each value rests on its own sums alone
        self._factor_MG = torch.autograd.grad(surrogate_M.sum(), leaves, retain_graph=True)

    def weigh(self, groups: Mapping[int, GroupSums]) -> Tensor:
        """Return what the sums of a part add to each value, (M,), 0 where it holds none."""
        rows = [
            (factor_G * groups[m].surrogate_G).sum() if m in groups else factor_G.new_zeros(())
            for m, factor_G in enumerate(self._factor_MG)
        ]
        return torch.stack(rows)


@torch.no_grad()
def _write_back(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
