"""A cell as a problem on the student's parameters, with batches.

    minimize  mean KL(target || student)   subject to   threshold_m - mean p(truth) over group m <= 0

Axes: N examples, B batch, V classes, M constraints.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safekd.divergences import ForwardKL
from safekd.safety import SafetyConstraint

from ..primal_dual._problems import Problem, Sample, Values
from ._cells import Cell
from ._students import Student, make_student
from ._tasks import Task, make_task

LOOKS = 100
_EPOCH_STRIDE = 1_000_003  # seed * this + epoch orders an epoch, as ConstrainedTrainer does; a test compares the two


@dataclass(frozen=True)
class Rows:
    """The constraints' values on any examples of the split.

    Args:
        labels_N: Classes.
        inside_NM: 1 where a constraint reads an example, else 0.
        threshold_M: What is asked for.
    """

    labels_N: Tensor
    inside_NM: Tensor
    threshold_M: Tensor

    @classmethod
    def read(cls, task: Task, constraints: Sequence[SafetyConstraint]) -> Rows:
        """Return the rows of some constraints, whose own ``covers`` says whom they read.

        Args:
            task: Gives the split.
            constraints: M of them.

        Returns:
            The rows.
        """
        batch = task.train.batch()
        inside_NM = torch.stack([rule.covers(batch) for rule in constraints], dim=1).float()
        return cls(batch.labels, inside_NM, torch.tensor([rule.required for rule in constraints]))

    def take(self, index_B: Tensor) -> Rows:
        """Return the rows of some examples.

        Args:
            index_B: Their numbers.

        Returns:
            The same constraints on these examples.
        """
        return Rows(self.labels_N[index_B], self.inside_NM[index_B], self.threshold_M)

    def safety(self, logits_NV: Tensor) -> Tensor:
        """Return each constraint's mean probability of the truth, (M,); not a number where it reads nobody.

        Args:
            logits_NV: The student's.

        Returns:
            Safety, with gradients.
        """
        truth_N = torch.softmax(logits_NV, dim=-1).gather(-1, self.labels_N.unsqueeze(-1)).squeeze(-1)
        return (truth_N @ self.inside_NM) / self.inside_NM.sum(0)


@dataclass(frozen=True)
class Setup:
    """A cell made ready for one seed.

    Args:
        cell: The cell.
        seed: Of the initial student and of the batch order.
        task: Its data.
        constraints: M of them, at the cell's thresholds.
        steps: How many a run takes.
        every: Steps between two looks of the judge.
    """

    cell: Cell
    seed: int
    task: Task
    constraints: Sequence[SafetyConstraint]
    steps: int
    every: int

    def student(self) -> Student:
        """Return a fresh student, the same each time."""
        return make_student(self.cell.model, self.task, self.seed)

    def optimizer(self, x: Sequence[Tensor]) -> torch.optim.Optimizer:
        """Return the cell's optimizer.

        Args:
            x: The parameters that it moves.

        Returns:
            A fresh optimizer.
        """
        make, rate = OPTIMIZERS[self.cell.optimizer]
        return make(x, rate)

    @functools.cached_property
    def rows(self) -> Rows:
        """The constraints on the whole split."""
        return Rows.read(self.task, self.constraints)

    def problem(self) -> Problem:
        """Return the problem that contenders step on."""
        forward_pass, inputs_ND = self.student().forward_pass, self.task.train.inputs
        log_q_NV, divergence = self.task.q_NV.log(), ForwardKL()
        none = inputs_ND.new_zeros(0)

        def whole(x: Sequence[Tensor]) -> Values:
            logits_NV = forward_pass(x, inputs_ND)
            return divergence(log_q_NV, logits_NV).mean(), self.rows.threshold_M - self.rows.safety(logits_NV), none

        def on(index_B: Tensor) -> Sample:
            rows, log_q_BV, inputs_BD = self.rows.take(index_B), log_q_NV[index_B], inputs_ND[index_B]
            present_M = rows.inside_NM.any(0)

            def evaluate(x: Sequence[Tensor]) -> Values:
                logits_BV = forward_pass(x, inputs_BD)
                g_M = batch_values(rows, logits_BV, present_M)
                return divergence(log_q_BV, logits_BV).mean(), g_M, none

            return Sample(evaluate, present_M)

        def samples() -> Iterator[Sample]:
            return map(on, batches(len(inputs_ND), self.cell.batch or len(inputs_ND), self.seed))

        return Problem(
            self.cell.name,
            "cells",
            start=lambda: list(self.student().parameters()),
            evaluate=whole,
            M=len(self.constraints),
            E=0,
            steps=self.steps,
            every=self.every,
            optimizer=self.optimizer,
            rate=OPTIMIZERS[self.cell.optimizer][1],
            samples=None if self.cell.batch is None else samples,
        )


def batch_values(rows: Rows, logits_BV: Tensor, present_M: Tensor) -> Tensor:
    """Return g on a batch, 0 without a gradient where the batch holds nobody whom a constraint reads.

    Args:
        rows: The constraints on the batch.
        logits_BV: The student's.
        present_M: Where it holds somebody.

    Returns:
        g, (M,).
    """
    if bool(present_M.all()):
        return rows.threshold_M - rows.safety(logits_BV)
    full = Rows(rows.labels_N, torch.where(present_M, rows.inside_NM, 1.0), rows.threshold_M)  # no 0/0 on the way
    return torch.where(present_M, rows.threshold_M - full.safety(logits_BV), 0.0)


def batches(examples: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield the numbers of each step's examples, without end, in the order in which the trainer takes them.

    Args:
        examples: N.
        size: B; the last batch of an epoch may be smaller.
        seed: Of the order.

    Yields:
        Numbers, (B,).
    """
    epoch = 0
    while True:
        epoch += 1
        order_N = torch.randperm(examples, generator=torch.Generator().manual_seed(seed * _EPOCH_STRIDE + epoch))
        yield from torch.split(order_N, size)


Make = Callable[[Sequence[Tensor], float], torch.optim.Optimizer]
OPTIMIZERS: dict[str, tuple[Make, float]] = {
    "Adam 1e-2": (lambda x, rate: torch.optim.Adam(x, lr=rate), 1e-2),
    "Adam 1e-3": (lambda x, rate: torch.optim.Adam(x, lr=rate), 1e-3),
    "SGD 0.1": (lambda x, rate: torch.optim.SGD(x, lr=rate), 0.1),
    "AdamW 3e-3": (lambda x, rate: torch.optim.AdamW(x, lr=rate, weight_decay=0.0), 3e-3),
}


def count_steps(cell: Cell, quick: bool = False) -> int:
    """Return how many steps a run of the cell takes.

    Args:
        cell: The cell.
        quick: Whether it is only to show that it works.

    Returns:
        Steps, a multiple of ``LOOKS`` unless quick, and of the batches of an epoch.
    """
    if quick:
        return 40
    return 1000 if cell.model == "transformer" else 2000


def set_up_cell(cell: Cell, seed: int, threshold_M: Sequence[float], steps: int) -> Setup:
    """Return the cell made ready.

    Args:
        cell: The cell.
        seed: Of student and batch order.
        threshold_M: What the constraints ask for.
        steps: How many a run takes.

    Returns:
        The setup.
    """
    task = make_task(cell.task)
    return Setup(cell, seed, task, task.constraints(threshold_M), steps, max(1, steps // LOOKS))
