"""What one repetition of a task consists of.  Axes: N new critical cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import safekd as kd
from safekd.experiment import build_mlp
from safekd.teachers import CallableTeacher

Teachers = Sequence[CallableTeacher]


@dataclass(frozen=True)
class Draw:
    """One repetition.

    train, judge: what methods may use.  new: critical cases that nothing else saw; mixed: new cases of all kinds.
    trainer: a fresh one, with the constraint or without.  origins: what each new case was made from, (N,), None where
    new cases are independent.
    """

    rule: kd.SafetyConstraint
    train: kd.Split
    judge: kd.Split
    new: kd.Split
    mixed: kd.Split
    trainer: Callable[[bool], kd.ConstrainedTrainer]
    origins: Tensor | None = None


def make_trainer(
    rule: kd.SafetyConstraint, teachers: Teachers, train: kd.Split, classes: int, hidden: Sequence[int], seed: int
) -> Callable[[bool], kd.ConstrainedTrainer]:
    """Return what makes a trainer on a fresh student, the same one every time, with Adam at 0.01."""

    def make(constrained: bool) -> kd.ConstrainedTrainer:
        student = build_mlp(train.inputs.shape[1], hidden, classes, seed)
        return kd.ConstrainedTrainer(
            student,
            list(teachers),
            constraints=[rule] if constrained else [],
            optimizer=torch.optim.Adam(student.parameters(), lr=0.01),
            seed=seed,
        )

    return make


def split(name: str, x_ND: object, y_N: object) -> kd.Split:
    """Return a split of arrays."""
    return kd.Split(name, torch.as_tensor(x_ND, dtype=torch.float32), torch.as_tensor(y_N, dtype=torch.long))
