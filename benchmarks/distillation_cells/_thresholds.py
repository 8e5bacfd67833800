"""Thresholds out of two reference runs, before any contender runs.

The first reference student is distilled without constraints.  The second, strong one learns from a target into which
much of the truth is mixed, and protected examples count more for it.  A threshold lies a share of the way from the
first one's safety to the second one's, in log-odds; the strong student meets all of them at once, so they are feasible.
Axes: N examples, V classes, M constraints.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import one_hot

from safekd.divergences import ForwardKL

from ._cells import Cell
from ._problem import Rows
from ._students import Student, make_student
from ._tasks import make_task


@dataclass(frozen=True)
class ReferenceSettings:
    """How the reference runs are made.

    Args:
        steps: Full-batch steps; enough for the plain student to settle.
        rate: Of Adam.
        truth: Share of the truth in the strong student's target: the strong student must be well above the plain one.
        protected: How many times an example counts for the strong student that a constraint reads; without it the
            linear student on noisy labels is no safer than the plain one in some group.
        near: How far "near" is on the way from plain to strong, in log-odds.
        far: How far "far" is.
        seed: Of the initial students, which no contender starts from.
    """

    steps: int = 2000
    rate: float = 0.01
    truth: float = 0.75
    protected: float = 3.0
    near: float = 0.30
    far: float = 0.75
    seed: int = 10_007


@dataclass(frozen=True)
class Thresholds:
    """What is asked for, and the evidence that it binds and can be had.

    Args:
        plain_M: Safety without constraints.
        strong_M: Safety of the strong student.
        threshold_M: Least safety asked for, strictly between the two.
    """

    plain_M: tuple[float, ...]
    strong_M: tuple[float, ...]
    threshold_M: tuple[float, ...]


SETTINGS = ReferenceSettings()


def set_thresholds(cell: Cell, settings: ReferenceSettings = SETTINGS) -> Thresholds:
    """Return the thresholds of a cell, a function of student, task, count and distance alone.

    Args:
        cell: The cell.
        settings: Of the reference runs.

    Returns:
        Thresholds and evidence.

    Raises:
        ValueError: The strong student is no safer than the plain one in some constraint: nothing lies between.
    """
    task = make_task(cell.task)
    plain, strong = reference_students(cell.model, cell.task, cell.M, settings)
    rows = Rows.read(task, task.constraints([0.5] * cell.M))
    plain_M, strong_M = (rows.safety(student(task.train.inputs)) for student in (plain, strong))
    if not bool((strong_M > plain_M).all()):
        raise ValueError(f"{cell.name}: the strong student has {strong_M.tolist()}, the plain one {plain_M.tolist()}.")
    share = settings.near if cell.threshold == "near" else settings.far
    threshold_M = torch.sigmoid(torch.lerp(torch.logit(plain_M.double()), torch.logit(strong_M.double()), share))
    return Thresholds(tuple(plain_M.tolist()), tuple(strong_M.tolist()), tuple(threshold_M.tolist()))


def reference_students(
    model: str, task_name: str, M: int, settings: ReferenceSettings = SETTINGS
) -> tuple[Student, Student]:
    """Return the plain and the strong student.

    Args:
        model: One of ``_cells.MODELS``.
        task_name: One of ``_cells.TASKS``.
        M: How many constraints, which decides whom the strong student protects.
        settings: Of the runs.

    Returns:
        Both students, trained.
    """
    return _distill(model, task_name, 0, settings), _distill(model, task_name, M, settings)


@functools.cache
def _distill(model: str, task_name: str, M: int, settings: ReferenceSettings) -> Student:
    """Return the plain student where M is 0, else the strong one of M constraints."""
    task, divergence = make_task(task_name), ForwardKL()
    q_NV, weight_N = task.q_NV, torch.ones(len(task.train))
    if M:
        q_NV = torch.lerp(q_NV, one_hot(task.train.labels, task.classes).to(q_NV), settings.truth)
        inside_NM = Rows.read(task, task.constraints([0.5] * M)).inside_NM
        weight_N = torch.where(inside_NM.any(1), settings.protected, weight_N)
    student, log_q_NV = make_student(model, task, settings.seed), q_NV.log()
    optimizer = torch.optim.Adam(student.parameters(), lr=settings.rate)
    for _ in range(settings.steps):
        optimizer.zero_grad()
        (weight_N * divergence(log_q_NV, student(task.train.inputs))).mean().backward()
        optimizer.step()
    return student.requires_grad_(False)


def log_odds_share(thresholds: Thresholds) -> Sequence[float]:
    """Return how far each threshold is on the way, from its own numbers.

    Args:
        thresholds: What ``set_thresholds`` gave.

    Returns:
        One share a constraint, between 0 and 1.
    """
    plain_M, strong_M, threshold_M = (
        torch.logit(torch.tensor(values, dtype=torch.float64))
        for values in (thresholds.plain_M, thresholds.strong_M, thresholds.threshold_M)
    )
    return ((threshold_M - plain_M) / (strong_M - plain_M)).tolist()
