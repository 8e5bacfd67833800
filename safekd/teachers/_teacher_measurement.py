"""Measuring teachers: the numbers behind performance-based rules and safety orderings.

Axes: N examples, P positions counted, G groups (contexts or classes), K teachers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data import Split, expand_to_positions, require_class_count
from ..errors import InvalidInput
from ..safety import PairedSums, SafetyMeasure
from ..weights import MeasuredOrderings, TeacherEvidence, infer_orderings
from ._teacher_ensemble import TeacherEnsemble


@dataclass(frozen=True)
class MeasurementSettings:
    """How much is held at once; ``tests/safekd/language/teachers/test_token_weights.py`` notices.

    Attributes:
        chunk_bytes: Log-probabilities of all teachers about so many sequences; vocabularies make them large.
    """

    chunk_bytes: int = 2**28


SETTINGS = MeasurementSettings()


def measure_teachers(
    ensemble: TeacherEnsemble,
    split: Split,
    safety: SafetyMeasure,
    contexts: int | None = None,
    *,
    by_class: bool = False,
) -> TeacherEvidence:
    """Measure each teacher's loss a task and safety a context on a split, which should not be training data.

    Of sequences no more are asked about at once than fit into 256 MiB of log-probabilities, by the first one.
    Teachers are also compared on the same examples, where the positions of one example, and the examples of one
    ``cluster`` of the split, are one case, with the sum of their values: they are not independent of each other.

    Args:
        ensemble: The teachers.
        split: The data.
        safety: What is averaged over critical examples, positions that do not count left out.
        contexts: C, how many there are; None counts those present and named.  A context without a critical example
            takes the average over all contexts, and ``count_C`` says 0.
        by_class: Whether to measure safety by class too (``safety_VK``, ``count_V``), which gives the token scale an
            order of its own: signals with this evidence order positions in S by the safety on their class, no longer by
            that in their context.

    Returns:
        Evidence for ``Signals`` and ``infer_orderings``.
    """
    ensemble.recheck()
    everything = torch.arange(len(split), device=split.labels.device)
    batch, safety = split.batch(everything), safety.with_names(split.names)
    parts = [_read_teachers(ensemble, split, index, safety) for index in split.chunks(_count_rows(ensemble, split))]
    loss_K, value_K, right_K = (torch.cat(several) for several in zip(*(values for values, _ in parts), strict=True))
    classes = parts[0][1]
    everywhere = torch.ones_like(batch.labels, dtype=torch.bool) if batch.mask is None else batch.mask
    critical = safety.is_critical(batch.labels) & everywhere
    require_class_count(split, classes, "the ensemble")
    if contexts is None:
        contexts = max(int(batch.context.max()) + 1, len(split.context_names))
    task, tasks = expand_to_positions(batch.task, critical.shape), int(batch.task.max()) + 1
    task_loss_MK, _ = _average_by_group(loss_K, task, everywhere, tasks)
    performance_MK, _ = _average_by_group(right_K, task, everywhere, tasks)
    context = expand_to_positions(batch.context, critical.shape)
    cluster = expand_to_positions(everything if split.cluster is None else split.cluster, critical.shape)
    safety_CK, count_C = _average_by_group(value_K, context, critical, contexts)
    safety_VK, count_V = _average_by_group(value_K, batch.labels, critical, classes) if by_class else (None, None)
    binary, paired_class = safety.binary, None
    if by_class:
        paired_class = _compare_on_examples(value_K, batch.labels, cluster, critical, binary=binary)
    return TeacherEvidence(
        task_loss_MK=task_loss_MK,
        safety_CK=safety_CK,
        count_C=count_C,
        source=split.name,
        performance_MK=performance_MK,
        safety_VK=safety_VK,
        count_V=count_V,
        paired_context=_compare_on_examples(value_K, context, cluster, critical, binary=binary),
        paired_class=paired_class,
    )


def find_significant_orderings(
    ensemble: TeacherEnsemble,
    split: Split,
    safety: SafetyMeasure,
    level: float = 0.05,
    *,
    by: str = "context",
) -> MeasuredOrderings:
    """Measure teachers on a split and return the safety orderings that are significant there; the rest are ties.

    ``infer_orderings`` does the same with evidence that is there already; ``MeasuredOrderings.to_frame()`` shows every
    comparison.

    Args:
        ensemble: The teachers.
        split: The data.
        safety: What is compared, over critical examples.
        level: The probability of a false ordering that is accepted in each context or class, in (0, 0.5).
        by: "context", for ``context_orderings`` of Unified, or "class", for its ``token_orderings``.

    Returns:
        The orderings, and every comparison.

    Raises:
        InvalidInput: Another ``by`` or level.
    """
    if by not in ("context", "class"):
        raise InvalidInput(f"`by` is {by!r}; wanted 'context' or 'class'.")
    evidence = measure_teachers(ensemble, split, safety, by_class=by == "class")
    return infer_orderings(evidence, level, "context" if by == "context" else "token")


def _count_rows(ensemble: TeacherEnsemble, split: Split) -> int:
    """Return how many examples are asked about at once: all of them, but for sequences."""
    if split.labels.ndim == 1:
        return len(split)
    first = ensemble.log_probabilities(split.batch(torch.arange(1, device=split.labels.device)), split.name)
    return max(1, SETTINGS.chunk_bytes // (first.numel() * first.element_size()))


def _read_teachers(
    ensemble: TeacherEnsemble, split: Split, index: Tensor, safety: SafetyMeasure
) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
    """Return loss, safety and whether each teacher is right at each position, (n, ..., K); and how many classes."""
    batch = split.batch(index)
    log_p_KV = ensemble.cached_log_probabilities(split, batch)
    labels_K = batch.labels.unsqueeze(-1).expand(log_p_KV.shape[:-1])
    loss_K = -log_p_KV.gather(-1, labels_K.unsqueeze(-1)).squeeze(-1)
    value_K = safety.measured(log_p_KV, labels_K).to(log_p_KV)
    return (loss_K, value_K, (log_p_KV.argmax(-1) == labels_K).to(loss_K)), log_p_KV.shape[-1]


def _average_by_group(value_K: Tensor, group: Tensor, counted: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Average over each group's counted positions, (G, K), and their number, (G,); an empty group takes the overall."""
    value_PK, group_P = value_K[counted], group[counted]
    overall_K = value_PK.mean(0) if len(value_PK) else value_K.new_ones(value_K.shape[-1])
    inside = group_P < groups
    count_G = torch.bincount(group_P[inside], minlength=groups)
    total_GK = value_K.new_zeros(groups, value_K.shape[-1], dtype=torch.float64)
    total_GK.index_add_(0, group_P[inside], value_PK[inside].double())
    mean_GK = (total_GK / count_G.clamp_min(1).unsqueeze(-1)).to(value_K)
    return torch.where(count_G.unsqueeze(-1) > 0, mean_GK, overall_K), count_G.cpu()


def _compare_on_examples(
    value_K: Tensor, group: Tensor, cluster: Tensor, counted: Tensor, *, binary: bool
) -> PairedSums:
    """Compare teachers in each group on the same positions; those of one cluster are one case."""
    value_PK = value_K[counted].double().clamp(0, 1).cpu().numpy()  # exp(log_softmax) can pass 1 by an ulp
    groups, clusters = group[counted].cpu().numpy(), cluster[counted].cpu().numpy()
    return PairedSums.from_values(value_PK, groups, binary=binary, cluster_N=clusters)
