"""Measuring teachers: the numbers behind performance-based rules and safety orderings."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data import Split
from ..safety import SafetyMeasure
from ..weights import Evidence
from ._ensemble import TeacherEnsemble


def measure(ensemble: TeacherEnsemble, split: Split, safety: SafetyMeasure, contexts: int | None = None) -> Evidence:
    """Measure each teacher's loss a task and safety a context on ``split``, which should not be training data.

    safety: what is averaged over critical examples.  contexts: how many there are; None counts those present and
    named.  A context without a critical example takes the average over all contexts, and count_C says 0.
    Returns Evidence with task_loss_MK, safety_CK, count_C.
    """
    batch = split.batch()
    log_p_KV = ensemble.on(split, batch.index)
    labels_K = batch.labels.unsqueeze(-1).expand(log_p_KV.shape[:-1])
    loss_K = -log_p_KV.gather(-1, labels_K.unsqueeze(-1)).squeeze(-1)
    value_K = safety.measured(log_p_KV, labels_K).to(log_p_KV)
    critical = safety.is_critical(batch.labels)
    if contexts is None:
        contexts = max(int(batch.context.max()) + 1, len(split.context_names))
    everywhere = torch.ones_like(critical)
    tasks = int(batch.task.max()) + 1
    task_loss_MK, _ = _averages(loss_K, _per_position(batch.task, critical), everywhere, tasks)
    safety_CK, count_C = _averages(value_K, _per_position(batch.context, critical), critical, contexts)
    return Evidence(task_loss_MK, safety_CK, count_C, split.name)


def _averages(value_K: Tensor, group: Tensor, counted: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Average over each group's counted positions, (groups, K), and their number; an empty group takes the overall."""
    overall_K = value_K[counted].mean(0) if bool(counted.any()) else value_K.new_ones(value_K.shape[-1])
    inside = [counted & (group == g) for g in range(groups)]
    rows = [value_K[here].mean(0) if bool(here.any()) else overall_K for here in inside]
    return torch.stack(rows), torch.tensor([int(here.sum()) for here in inside])


def _per_position(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim)).expand_as(like)
