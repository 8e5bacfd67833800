"""Measuring teachers: the numbers behind performance-based rules and safety orderings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data import Split
from ..errors import InvalidInput
from ..safety import SafetyMeasure
from ..weights import Evidence
from ._ensemble import TeacherEnsemble


def measure(ensemble: TeacherEnsemble, split: Split, safety: SafetyMeasure, contexts: int | None = None) -> Evidence:
    """Measure each teacher's loss a task and safety a context on ``split``, which should not be training data.

    safety: what is averaged over critical examples.  contexts: how many there are; None counts those present and
    named.  A context without a critical example takes the average over all contexts, and count_C says 0.
    Returns Evidence with task_loss_MK, performance_MK (accuracy), safety_CK, count_C.
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
    right_K = (log_p_KV.argmax(-1) == labels_K).to(loss_K)
    task = _per_position(batch.task, critical)
    task_loss_MK, _ = _averages(loss_K, task, everywhere, tasks)
    performance_MK, _ = _averages(right_K, task, everywhere, tasks)
    safety_CK, count_C = _averages(value_K, _per_position(batch.context, critical), critical, contexts)
    return Evidence(task_loss_MK, safety_CK, count_C, split.name, performance_MK=performance_MK)


def domain_distances(split: Split, domains: Sequence[Tensor], contexts: int | None = None) -> Tensor:
    """Return how far each context of ``split`` lies from what each teacher was trained on, (C, K), at least 0.

    domains: for each teacher the inputs it was trained on, (N_k, ...), floating.  The distance is that of the mean
    inputs, in standard deviations of the split, root mean square over features: 1 is as far as its examples scatter.
    A context without an example is as far as the split as a whole.  Goes into ``Evidence.distance_CK``.
    Raises InvalidInput for domains without examples or of another kind of input.
    """
    batch = split.batch()
    x_ND = batch.inputs.flatten(1).double()
    if contexts is None:
        contexts = max(int(batch.context.max()) + 1, len(split.context_names))
    spread_D = x_ND.std(dim=0, unbiased=False)
    spread_D = torch.where(spread_D > 0, spread_D, 1.0)
    means = []
    for k, domain in enumerate(domains):
        if domain.ndim < 2 or not len(domain) or domain.flatten(1).shape[-1] != x_ND.shape[-1]:
            raise InvalidInput(
                f"Domain {k} has shape {tuple(domain.shape)}; wanted at least one example of shape "
                f"{tuple(split.inputs.shape[1:])}, as in split '{split.name}'."
            )
        means.append(domain.flatten(1).double().mean(0))
    inside = [batch.context == c for c in range(contexts)]
    center_CD = torch.stack([(x_ND[here] if bool(here.any()) else x_ND).mean(0) for here in inside])
    gap_CKD = (center_CD.unsqueeze(1) - torch.stack(means)) / spread_D
    return gap_CKD.square().mean(-1).sqrt()


def _averages(value_K: Tensor, group: Tensor, counted: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Average over each group's counted positions, (groups, K), and their number; an empty group takes the overall."""
    overall_K = value_K[counted].mean(0) if bool(counted.any()) else value_K.new_ones(value_K.shape[-1])
    inside = [counted & (group == g) for g in range(groups)]
    rows = [value_K[here].mean(0) if bool(here.any()) else overall_K for here in inside]
    return torch.stack(rows), torch.tensor([int(here.sum()) for here in inside])


def _per_position(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim)).expand_as(like)
