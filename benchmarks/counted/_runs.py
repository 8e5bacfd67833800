"""Three students of one cell: without the constraint, under it, and one that shows whether it can be met at all."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import safekd as kd

from ._cells import OPTIMIZERS, THRESHOLD, Cell, Task, make_student, make_task

_PRETRAINING = 200  # steps


@dataclass(frozen=True)
class Row:
    """What the students of a cell reached.

    Args:
        accuracy, free_accuracy: On new data, under the constraint and without it.
        measured, free_measured: What is constrained, on the data that it is posed on.
        reachable: The same of a student of the same start, optimizer and steps that learns the labels of the critical
            classes before all else.
        loss, free_loss: Distillation, nats.
        multiplier: The largest of the run.
        status: The verdict's.
        count: Critical examples, of which one may be missing.
    """

    classes: int
    start: str
    optimizer: str
    batch: str
    measure: str
    teacher: str
    seed: int
    accuracy: float
    free_accuracy: float
    measured: float
    free_measured: float
    reachable: float
    loss: float
    free_loss: float
    multiplier: float
    status: str
    count: int

    @property
    def redundant(self) -> bool:
        """Whether distillation alone meets the threshold."""
        return self.free_measured >= THRESHOLD

    @property
    def attainable(self) -> bool:
        """Whether some student of this cell meets the threshold."""
        return max(self.free_measured, self.reachable) >= THRESHOLD

    @property
    def harmless(self) -> bool:
        """Whether a redundant constraint left accuracy where it was, to one hundredth."""
        return self.accuracy >= self.free_accuracy - 0.01

    @property
    def met(self) -> bool:
        """Whether the constraint is met within one count."""
        return self.measured >= THRESHOLD - 1 / self.count - 1e-12


def run_cell(cell: Cell, seed: int, steps: int) -> Row:
    """Train the three students of a cell."""
    torch.set_num_threads(1)
    task = make_task(cell, seed)
    start = make_student(cell, task, seed)
    if cell.start == "pretrained":
        optimizer, N = torch.optim.Adam(start.parameters(), lr=1e-2), len(task.y_N)
        rows = torch.randint(N, (_PRETRAINING, min(N, 512)), generator=torch.Generator().manual_seed(seed))
        for batch in rows:
            _descend(optimizer, _cross_entropy(start, task.x_ND[batch], task.q_NV[batch]))
    largest = 0.0

    def watch(point: kd.training.trace.TracePoint) -> None:
        nonlocal largest
        largest = max([largest, *map(abs, point.multipliers)])

    results = []
    for constraints in ([], [cell.constraint]):
        student = copy.deepcopy(start)
        trainer = kd.ConstrainedTrainer(
            student,
            [kd.teachers.StoredTeacher("teacher", task.q_NV)],
            optimizer=OPTIMIZERS[cell.optimizer](list(student.parameters())),
            constraints=constraints,
            batch_size=cell.batch,
        )
        epochs = max(1, steps // -(-len(task.y_N) // (cell.batch or len(task.y_N))))
        results.append(trainer.fit(kd.Split("train", task.x_ND, task.y_N), epochs=epochs, on_trace=watch))
    free, bound = results
    reference = _train_on_critical(copy.deepcopy(start), cell, task, steps)
    count = int(torch.isin(task.y_N, torch.tensor(cell.critical)).sum())
    return Row(
        cell.classes,
        cell.start,
        cell.optimizer,
        "full" if cell.batch is None else str(cell.batch),
        cell.measure,
        cell.teacher,
        seed,
        _accuracy(bound.student, task),
        _accuracy(free.student, task),
        _measure(bound.student, cell, task),
        _measure(free.student, cell, task),
        _measure(reference, cell, task),
        bound.point.loss,
        free.point.loss,
        largest,
        bound.status,
        count,
    )


def _train_on_critical(student: nn.Module, cell: Cell, task: Task, steps: int) -> nn.Module:
    """Train on the labels, critical ones ten times as heavy."""
    optimizer = OPTIMIZERS[cell.optimizer](list(student.parameters()))
    weight_N = torch.where(torch.isin(task.y_N, torch.tensor(cell.critical)), 10.0, 1.0)
    one_hot_NV = nn.functional.one_hot(task.y_N, cell.classes) * (weight_N / weight_N.mean()).unsqueeze(-1)
    N, generator = len(task.y_N), torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.arange(N) if cell.batch is None else torch.randperm(N, generator=generator)[: cell.batch]
        _descend(optimizer, _cross_entropy(student, task.x_ND[rows], one_hot_NV[rows]))
    return student


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _cross_entropy(student: nn.Module, x_ND: Tensor, q_NV: Tensor) -> Tensor:
    return -(q_NV * student(x_ND).log_softmax(-1)).sum(-1).mean()


@torch.no_grad()
def _accuracy(student: nn.Module, task: Task) -> float:
    return float((student(task.new_x_ND).argmax(-1) == task.new_y_N).double().mean())


@torch.no_grad()
def _measure(student: nn.Module, cell: Cell, task: Task) -> float:
    (value_n,) = kd.safety.evaluate_groups(student, cell.constraint, kd.Split("train", task.x_ND, task.y_N))
    return float(value_n.mean)
