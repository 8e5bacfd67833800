"""Our trainer through all steps of a cell, at its defaults, by its public interface alone."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import nn

from safekd import ConstrainedTrainer
from safekd.teachers import StoredTeacher
from safekd.training.trace import TracePoint

from ._judge import TOLERANCE, Judge, Look
from ._problem import Setup
from ._run import Course

_SLACK = 3.0  # times the tolerance up to which "converged" passes for true: two programs add up in different orders


def run_trainer(setup: Setup) -> Course:
    """Let ``ConstrainedTrainer`` train the cell's student, and look at it at the same steps as at the others.

    A run that ends early stands still from then on: its last look is repeated up to the last step.

    Args:
        setup: Cell and seed.

    Returns:
        What was seen.  The last look is at ``result.student``, the best one at ``result.best_feasible``.
    """
    trainer, judge = make_trainer(setup), Judge(setup)
    looks: list[Look] = []
    judged = 0.0

    def look(point: TracePoint) -> None:
        nonlocal judged
        before = time.process_time()
        if point.step:
            looks.append(judge.look(point.step, list(trainer.student.parameters()), torch.tensor(point.multipliers)))
        judged += time.process_time() - before

    per_epoch = -(-len(setup.task.train) // (setup.cell.batch or len(setup.task.train)))
    start = time.process_time()
    result = trainer.fit(setup.task.train, epochs=setup.steps // per_epoch, trace_every=setup.every, on_trace=look)
    spent = time.process_time() - start - judged
    lambda_M = torch.tensor(list(result.multipliers.values()))

    def final(student: nn.Module) -> Look:
        return judge.look(looks[-1].step if looks else 0, list(student.parameters()), lambda_M, last=True)

    best = None if result.best_feasible is None else final(result.best_feasible)
    last = final(result.student)
    rest = range(last.step + setup.every, setup.steps + 1, setup.every)
    looks += [last, *(replace(last, step=step) for step in rest)]
    return Course(tuple(looks), spent, best, str(result.status))


def make_trainer(setup: Setup) -> ConstrainedTrainer:
    """Return the trainer at its defaults: data, constraints, optimizer, batch size and seed are all that it is given.

    Args:
        setup: Cell and seed.

    Returns:
        A fresh trainer on a fresh student.
    """
    student = setup.student()
    return ConstrainedTrainer(
        student,
        [StoredTeacher("pool", setup.task.q_NV)],
        constraints=setup.constraints,
        optimizer=setup.optimizer(list(student.parameters())),
        batch_size=setup.cell.batch,
        seed=setup.seed,
    )


def is_true(says: str, last: Look) -> bool | None:
    """Say whether a verdict on a cell, whose thresholds a known student meets, is true of the last look.

    Args:
        says: The verdict's status.
        last: The student that was handed back with it, with all residuals.

    Returns:
        True or False; None for a word that says nothing about this.
    """
    within = last.residuals.holds(_SLACK * TOLERANCE)
    if says in ("converged", "stationary_unverified"):
        return within
    if says in ("infeasible", "no_multiplier"):
        return False  # the strong reference student meets all thresholds with room to spare
    if says == "budget_spent":
        return not last.solved
    if says == "cap_active":
        return not last.feasible
    return not last.finite if says == "diverged" else None
