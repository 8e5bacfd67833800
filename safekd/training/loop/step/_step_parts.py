"""The parts of a step: microbatches of this process, what each adds, and the sums over all parts of all processes.

Axes: M constraints, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ....data import Batch, ExampleSource, RankShare
from ....errors import NotFinite
from ....safety import GroupSums
from ..._constraint_layout import SumLayout
from ..._objective import PooledTeachers
from ..._rank_pool import RankPool
from ..._training_problem import TrainingProblem


@dataclass(frozen=True)
class StepPart:
    """A microbatch of the training data, or of another source on which constraints are posed.

    Attributes:
        source: Where the examples are from.
        name: What the fit calls that source.
        batch: The examples.
        counts: Whether they count; not where a process has nothing to read while others have, and all have to ask the
            student equally often.
    """

    source: ExampleSource
    name: str
    batch: Batch
    counts: bool = True


@dataclass(frozen=True)
class PartSums:
    """What a part adds to the step.

    Attributes:
        loss: Sum of the losses over positions that count, float64; 0 where the part is of another source.
        groups: Sums of each constraint that is posed there, by its number.
        pool: The teachers, weighed, where the targets move.
        logits_V: The student's.
        shown: What the rule was shown, of all processes, where that is more than this part.
    """

    loss: Tensor
    groups: Mapping[int, GroupSums]
    pool: PooledTeachers | None
    logits_V: Tensor
    shown: RankPool | None = None


@dataclass(frozen=True)
class StepSums:
    """What a whole step says, over all parts of all processes.

    Attributes:
        loss: Sum of the losses over positions that count, float64.
        positions: How many those are.
        examples: Of the training data.
        groups: Sums of each constraint, by its number.
        drawn: Sums of each constraint over other training examples, likewise; empty where there are none.
    """

    loss: Tensor
    positions: int
    examples: int
    groups: Mapping[int, GroupSums]
    drawn: Mapping[int, GroupSums]


class StepParts:
    """The parts of one step, in the same order in each reading: of other sources, and then of the training data.

    Other sources are read anew each time, batch by batch: they may be streams of any length.

    Args:
        others: Sources of which a step reads all, by name.
        rows: Of theirs at a time.
        held: The other parts, of training examples last.
    """

    def __init__(self, others: Mapping[str, ExampleSource], rows: int, held: Sequence[StepPart]) -> None:
        self._others, self._rows, self._held = others, rows, held

    def __iter__(self) -> Iterator[tuple[int, StepPart, bool]]:
        """Yield the number of each part, from 0, the part, and whether it is the last."""
        number = 0
        for name, source in self._others.items():
            for batch in source.batches(self._rows):
                yield number, StepPart(source.own, name, batch), False
                number += 1
        for place, part in enumerate(self._held, start=1):
            yield number, part, place == len(self._held)
            number += 1


class PartCutter:
    """Cuts a step into parts, as many on every process as on any other where all have to keep step.

    Args:
        problem: What is trained.
        splits: The sources besides the training data, by name.
        train: The training data.
    """

    def __init__(self, problem: TrainingProblem, train: ExampleSource, splits: Mapping[str, ExampleSource]) -> None:
        self._problem, self._train = problem, train
        elsewhere = sorted({rule.split for rule in problem.constraints} - {"train"})
        self._others = {name: splits[name] for name in elsewhere}
        self._count: tuple[int, int] | None = None  # rows, and in how many parts other sources come then

    def cut(self, batch: Batch, *, train_only: bool = False) -> StepParts:
        """Return the microbatches of a step: of other sources, which count whole, and then of the training examples.

        Args:
            batch: Training examples, of several processes perhaps none.
            train_only: Whether to leave other sources out.
        """
        rows = self._problem.microbatch_size or max(len(batch), 1)
        drawn = [StepPart(self._train.own, "train", some) for some in batch.cut(rows) if len(some)]
        ranks, others = self._problem.ranks, {} if train_only else self._others
        rows_elsewhere = min(rows, self._problem.objective.rows)
        if ranks.size == 1 or train_only:
            return StepParts(others, rows_elsewhere, drawn)
        parts_elsewhere, counts = 0, [(0, 1)]  # there is always a backward pass in which gradients are added up
        if self._problem.trained.keeps_step or self._problem.objective.looks_at_batches:
            parts_elsewhere = self._count_parts(rows_elsewhere)
            counts += ranks.gather((parts_elsewhere, len(drawn)))
        most_elsewhere, most_drawn = (max(several) for several in zip(*counts, strict=True))
        idle = self._make_idle_part()
        padding = [replace(idle, name="")] * (most_elsewhere - parts_elsewhere)
        return StepParts(others, rows_elsewhere, [*padding, *[idle] * (most_drawn - len(drawn)), *drawn])

    def _count_parts(self, rows: int) -> int:
        """Return in how many parts other sources come, which each step reads whole: counted once."""
        if self._count is None or self._count[0] != rows:
            self._count = rows, sum(1 for source in self._others.values() for _ in source.batches(rows))
        return self._count[1]

    def _make_idle_part(self) -> StepPart:
        assert isinstance(self._train, RankShare)
        return StepPart(self._train.own, "train", self._train.idle_batch(), counts=False)


class SumReader:
    """Adds up what parts say, over this process and then over all, in one vector.

    Args:
        problem: What is trained.
    """

    def __init__(self, problem: TrainingProblem) -> None:
        self._ranks, self._M = problem.ranks, len(problem.constraints)
        rules = enumerate(problem.constraints)
        self._drawn = [m for m, rule in rules if rule.split == "train"] if problem.independent_batches else []
        self._layout = SumLayout(3, [*problem.constraints] * (2 if self._drawn else 1))
        self.failure: str | None = None  # what was not finite here before anything could be added up

    def add_up(self, read: Callable[[], StepSums]) -> StepSums:
        """Return the sums over all processes; not numbers where one of them met what is not finite.

        Args:
            read: Gives those of this process.
        """
        if self._ranks.size == 1:
            return read()
        self.failure = None

        def pack() -> Tensor:
            try:
                sums = read()
            except NotFinite as error:  # every process is to stop in the same place
                self.failure = error.source
                return torch.full((self._layout.length,), torch.nan, dtype=torch.float64)
            counts = sums.loss.new_tensor([sums.positions, sums.examples])
            numbers = torch.cat([sums.loss.reshape(1), counts])
            drawn = {self._M + m: groups for m, groups in sums.drawn.items()}
            return self._layout.pack(numbers, {**sums.groups, **drawn})

        numbers, groups = self._layout.unpack(self._ranks.add_up(pack, self._layout.length))
        loss, positions, examples = numbers.unbind()
        known = bool(torch.isfinite(positions))
        return StepSums(
            loss,
            max(int(positions), 1) if known else 1,
            int(examples) if known else 1,
            {m: groups[m] for m in range(self._M)},
            {m: groups[self._M + m] for m in self._drawn},
        )


class GroupFactors:
    """By how much each group's sum of surrogates counts in each constraint's value, as this step reads it.

    Args:
        surrogate_M: g, with its graph to ``surrogate_G`` of each of ``groups_M``.
        present_M: Which constraints the step speaks of; the others have no part in its multiplier scales.
        groups_M: Sums over the step.
    """

    def __init__(self, surrogate_M: Tensor, present_M: Tensor, groups_M: Sequence[GroupSums]) -> None:
        self.value_M, self._present_M = torch.where(present_M, surrogate_M.detach(), 0.0), present_M
        leaves = [sums.surrogate_G for sums in groups_M]
        # each value rests on its own sums alone
        self._factor_MG = torch.autograd.grad(surrogate_M.sum(), leaves, retain_graph=True)

    def weigh(self, groups: Mapping[int, GroupSums]) -> Tensor:
        """Return what the sums of a part add to each value, (M,), 0 where it holds none.

        Args:
            groups: Of the part, by the number of the constraint.
        """
        rows = [
            (factor_G * groups[m].surrogate_G).sum() if m in groups else factor_G.new_zeros(())
            for m, factor_G in enumerate(self._factor_MG)
        ]
        return torch.where(self._present_M, torch.stack(rows), 0.0)
