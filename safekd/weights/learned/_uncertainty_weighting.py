"""Teachers by how well the student can follow them.  Axes: ... positions, K teachers, M tasks."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ...errors import InvalidInput
from ..rules import register_rule, require_number
from ..signals import Signals
from ._learned_rule import StudentStep, require_counts, require_teachers


@register_rule
class UncertaintyWeighting(nn.Module):
    """``softmax(-s)`` with s_k learned for each task by ``sum_k exp(-s_k) L_k + s_k``.

    L_k is the student's divergence from teacher k on the task, ``T^2 KL(p_k^T || p_s^T) + eps``, averaged over its
    positions. The loss has one minimum, s_k = log L_k, so the weights go to ``w_k ~ 1 / L_k``: teachers that the
    student follows well count more.  Weights begin uniform.

    Args:
        n_teachers: K.
        n_tasks: M; with 1 all tasks share one row of weights.
        temperature: T, above 0.
        eps: Above 0, nats; without it s_k falls for ever where the student has caught up with teacher k.

    Source: Kendall, Gal and Cipolla 2018, with teachers in the place of tasks.
    """

    scale: ClassVar[str] = "task"
    continuous: ClassVar[bool] = True

    def __init__(self, n_teachers: int, n_tasks: int = 1, *, temperature: float = 1.0, eps: float = 1e-3) -> None:
        super().__init__()
        require_counts(self, n_teachers=n_teachers, n_tasks=n_tasks)
        require_number(self, "temperature", temperature, above=0)
        require_number(self, "eps", eps, above=0, why="or a teacher that the student equals gets all the weight")
        self.temperature, self.eps = float(temperature), float(eps)
        self.s_MK = nn.Parameter(torch.zeros(n_tasks, n_teachers))

    @property
    def needs(self) -> frozenset[str]:
        """The task, where there is more than one."""
        return frozenset({"task"}) if len(self.s_MK) > 1 else frozenset()

    def forward(self, signals: Signals) -> Tensor:
        """Return weights, (..., K), that sum to one.

        Args:
            signals: The signals of a batch.
        """
        require_teachers(self, self.s_MK.shape[-1], signals)
        w_MK = torch.softmax(-self.s_MK, dim=-1).to(signals.ones())
        return w_MK[self._task_rows(signals)] if len(w_MK) > 1 else w_MK[0].expand(signals.shape)

    def learn(self, step: StudentStep) -> Tensor:
        """Return ``sum_k exp(-s_k) L_k + s_k``, added up over the tasks of the batch.

        Args:
            step: The step that the student is about to take.
        """
        loss_K = step.signals.student_divergence(self.temperature).detach() + self.eps
        if len(self.s_MK) == 1:
            return _weight_losses(self.s_MK[0], step.signals.select_counted(loss_K).mean(0)).sum()
        self._task_rows(step.signals)  # no task beyond those that it was made for
        loss_MK, _ = step.signals.tabulate_by_task(loss_K)
        s_MK = self.s_MK[: len(loss_MK)]
        return torch.where(loss_MK != 0, _weight_losses(s_MK, loss_MK), 0.0).sum()  # eps is in it: 0 is an absent task

    def _task_rows(self, signals: Signals) -> Tensor:
        """Return the task of each position, (...)."""
        _, row = signals.tabulate_by_task(signals.ones())
        top = int(row.max()) if row.numel() else 0
        if top >= len(self.s_MK):
            raise InvalidInput(
                f"A position has task {top}; this UncertaintyWeighting was made for tasks 0 to {len(self.s_MK) - 1}. "
                f"Give it n_tasks={top + 1}."
            )
        return row


def _weight_losses(s: Tensor, loss: Tensor) -> Tensor:
    return torch.exp(-s) * loss.to(s) + s
