"""What is compared: classes, start, optimizer, batch, measure, and whether distillation alone meets the threshold."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import safekd as kd

OPTIMIZERS: dict[str, Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]] = {
    "Adam 1e-2": lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
    "Adam 1e-3": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    "SGD 0.5": lambda parameters: torch.optim.SGD(parameters, lr=0.5),
}
CLASSES = (2, 10, 22, 100, 1000)
STARTS = ("fresh", "pretrained")
MEASURES = ("recall", "top 3")
TEACHERS = ("right", "biased")
THRESHOLD = 0.9


@dataclass(frozen=True)
class Cell:
    """One comparison.

    Args:
        classes: V.
        start: "fresh", or "pretrained" by distillation without constraints, 200 steps of Adam.
        optimizer: One of OPTIMIZERS.
        batch: Examples a step, None for all.
        measure: One of MEASURES, read on the first three classes (one, for two classes).
        teacher: "right" about classes that lie apart, so that the constraint is redundant; "biased" against the
            critical ones, which overlap with others, so that it binds.
    """

    classes: int
    start: str
    optimizer: str
    batch: int | None
    measure: str
    teacher: str

    @property
    def critical(self) -> list[int]:
        """Classes on which the measure is read."""
        return list(range(min(3, self.classes - 1)))

    @property
    def constraint(self) -> kd.SafetyConstraint:
        """At least nine tenths."""
        measures = {"recall": kd.safety.Recall(self.critical), "top 3": kd.safety.TopK(3, self.critical)}
        return kd.SafetyConstraint("counted", measures[self.measure], THRESHOLD)


_MOST_WHOLE = 100  # classes up to which full batches take part: of a thousand, one student takes minutes


def list_cells(classes: Sequence[int]) -> list[Cell]:
    """Return all cells with these numbers of classes; the first three of two are no constraint."""
    every = itertools.product(classes, STARTS, OPTIMIZERS, (None, 128), MEASURES, TEACHERS)
    cells = [Cell(*values) for values in every]
    cells = [cell for cell in cells if cell.measure == "recall" or cell.classes > 3]
    return [cell for cell in cells if cell.batch is not None or cell.classes <= _MOST_WHOLE]


@dataclass(frozen=True)
class Task:
    """Normal clouds around random centers, and what the teacher says of them.

    Args:
        x_ND, y_N: Examples and labels, to train on.
        q_NV: The teacher's probabilities.
        new_x_ND, new_y_N: As many of the same kind, to judge by.
    """

    x_ND: Tensor
    y_N: Tensor
    q_NV: Tensor
    new_x_ND: Tensor
    new_y_N: Tensor


def make_task(cell: Cell, seed: int) -> Task:
    """Draw the examples of a cell: 2,000, or four a class where that is more."""
    generator = torch.Generator().manual_seed(seed)
    spread, bias = (1.0, 0.0) if cell.teacher == "right" else (2.5, 4.0)
    D = 16 if cell.classes <= 22 else 64
    center_VD = 2 * torch.randn(cell.classes, D, generator=generator)
    y_N = torch.arange(cell.classes).repeat_interleave(max(4, 2000 // cell.classes))
    x_ND, new_x_ND = (center_VD[y_N] + spread * torch.randn(len(y_N), D, generator=generator) for _ in range(2))
    log_NV = -(torch.cdist(x_ND, center_VD) ** 2) / (2 * spread**2)
    log_NV[:, cell.critical] -= bias
    return Task(x_ND, y_N, log_NV.softmax(-1), new_x_ND, y_N)


def make_student(cell: Cell, task: Task, seed: int) -> nn.Module:
    """Return a network with one hidden layer."""
    torch.manual_seed(seed)
    D, width = task.x_ND.shape[1], 32 if cell.classes <= 22 else 128
    return nn.Sequential(nn.Linear(D, width), nn.Tanh(), nn.Linear(width, cell.classes))
