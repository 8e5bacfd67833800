"""One reading of a split: what each teacher and several pools say at each position that counts.

Axes: B examples, P positions that count, K teachers, V classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.short_repr import ShortRepr

from ...data import Batch, Group, Split, expand_to_positions, require_class_count
from ...errors import InvalidInput
from ...pooling import PoolFunction, SoftenedPool
from ...safety import SafetyMeasure
from ...teachers import TeacherEnsemble
from ...weights import Rule, Signals, TeacherEvidence
from ._error_statistics import ErrorStatistics, ErrorSums

Weigh = Callable[[Batch, Tensor], Tensor]


@dataclass(frozen=True)
class ReadingSettings:
    """How much is held at once; ``tests/safekd/theory/ensembles/test_ensemble_report.py`` notices.

    Attributes:
        chunk_bytes: Log-probabilities of all teachers, in float64, about so many examples; a few times that is held.
    """

    chunk_bytes: int = 2**26


SETTINGS = ReadingSettings()


@dataclass(frozen=True)
class PoolJob:
    """A pool that is to be read.

    Attributes:
        pool: How teachers are pooled.
        teachers: Which; the weights of the others are shared out.
        needed: Whether one that cannot be made ends the reading; else it has no readings.
    """

    pool: PoolFunction
    teachers: tuple[int, ...]
    needed: bool = True


@dataclass(frozen=True, repr=False)
class PooledReading(ShortRepr):
    """What one distribution a position says.

    Attributes:
        loss_P: Log-loss, nats.
        right_P: Whether the most probable class is the label, 0 or 1.
        value_P: The safety measure's value.
    """

    loss_P: Tensor
    right_P: Tensor
    value_P: Tensor


@dataclass(frozen=True, repr=False)
class EnsembleReading(ShortRepr):
    """What all teachers and pools say of a split.

    Attributes:
        teachers: One reading a teacher.
        pooled: By what the job is called; without those that could not be made.
        w_PK: Weights.
        critical_P: Which positions the safety measure reads.
        case_P: Which case each position belongs to.
        errors: Of the teachers, and of the first job's pool as the last of them.
        agreement_KK: How often two teachers name the same class.
    """

    teachers: tuple[PooledReading, ...]
    pooled: Mapping[str, PooledReading]
    w_PK: Tensor
    critical_P: Tensor
    case_P: Tensor
    errors: ErrorStatistics
    agreement_KK: Tensor


def make_weigher(
    weights: Tensor | Sequence[float] | Mapping[str, float] | Rule | None,
    ensemble: TeacherEnsemble,
    split: Split,
    evidence: TeacherEvidence | None,
    critical_classes: Collection[Group],
    critical_contexts: Collection[Group],
) -> Weigh:
    """Return the function that weighs the teachers of a batch, (B, ..., K).

    Args:
        weights: One number a teacher, in their order or by name; a rule; or None for all alike.
        ensemble: The teachers.
        split: Where batches are from.
        evidence: For rules.
        critical_classes: Classes where orderings apply.
        critical_contexts: Contexts where they apply.

    Raises:
        InvalidInput: Weights are no weights of these teachers.
    """
    K = len(ensemble)
    if weights is None:
        weights = torch.full((K,), 1 / K, dtype=torch.float64)
    if isinstance(weights, Mapping) and set(weights) == set(ensemble.names):
        weights = [weights[name] for name in ensemble.names]
    if callable(weights) and not isinstance(weights, (Tensor, type)):
        rule = weights
        classes = split.names.numbers("class", critical_classes)
        contexts = split.names.numbers("context", critical_contexts)

        def ask(batch: Batch, log_p_KV: Tensor) -> Tensor:
            signals = Signals(
                log_p=log_p_KV,
                labels=batch.labels,
                task=batch.task,
                context=batch.context,
                evidence=None if evidence is None else evidence.to(batch.labels.device),
                critical_classes=classes,
                critical_contexts=contexts,
                index=batch.index if batch.numbered else None,
                mask=batch.mask,
                split=split.name,
                teachers=ensemble.names,
            )
            return batch.fill_uncounted(rule(signals), 1 / K)

        return ask
    try:
        w_K = torch.as_tensor(weights, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        w_K = torch.empty(0)
    if w_K.shape != (K,) or not bool((w_K >= 0).all() and abs(float(w_K.sum()) - 1) < 1e-3):
        raise InvalidInput(
            f"`weights` is {weights!r}; wanted a number a teacher ({', '.join(ensemble.names)}), at least 0 and "
            "together 1, or a weighting rule."
        )
    return lambda batch, log_p_KV: (w_K / w_K.sum()).to(log_p_KV.device).expand(log_p_KV.shape[:-1])


def read_pools(
    ensemble: TeacherEnsemble, split: Split, weigh: Weigh, jobs: Mapping[str, PoolJob], safety: SafetyMeasure
) -> EnsembleReading:
    """Ask all teachers about a split once, some examples at a time, and read them and several pools.

    Args:
        ensemble: The teachers.
        split: The data.
        weigh: Gives their weights.
        jobs: Pools, by what they are called; errors are added up of the first.
        safety: What is read besides, its classes by number.
    """
    chunks, lost = list[_Chunk](), set[str]()
    sums, same_KK = None, torch.zeros(len(ensemble), len(ensemble), dtype=torch.float64)
    for index in split.chunks(_count_examples(ensemble, split)):
        batch = split.batch(index)
        signals, w_PK, label_P, case_P = _read_positions(ensemble, split, batch, weigh)
        log_p_PKV = signals.log_p
        log_q = {}
        for name, job in jobs.items():
            if name in lost:
                continue
            try:
                log_q[name] = _pool_some(job, signals, w_PK)
            except InvalidInput:
                if job.needed:
                    raise
                lost.add(name)
        first = next(iter(jobs))
        if sums is None:
            sums = ErrorSums(len(ensemble) + 1, log_p_PKV.shape[-1])
        sums.add(torch.cat([log_p_PKV, log_q[first].unsqueeze(1)], dim=1).exp(), label_P)
        said_PK = log_p_PKV.argmax(-1)
        same_KK += (said_PK[:, :, None] == said_PK[:, None]).double().sum(0).cpu()
        teachers = tuple(_read_rows_of(log_p_PKV[:, k], label_P, safety) for k in range(len(ensemble)))
        pooled = {name: _read_rows_of(log_q_PV, label_P, safety) for name, log_q_PV in log_q.items()}
        chunks.append(_Chunk(teachers, pooled, w_PK.cpu(), safety.is_critical(label_P).cpu(), case_P.cpu()))
    assert sums is not None
    return EnsembleReading(
        tuple(_join([chunk.teachers[k] for chunk in chunks]) for k in range(len(ensemble))),
        {name: _join([chunk.pooled[name] for chunk in chunks]) for name in jobs if name not in lost},
        torch.cat([chunk.w_PK for chunk in chunks]),
        torch.cat([chunk.critical_P for chunk in chunks]),
        torch.cat([chunk.case_P for chunk in chunks]),
        errors := sums.finish(),
        same_KK / errors.positions,
    )


@dataclass(frozen=True)
class _Chunk:
    teachers: tuple[PooledReading, ...]
    pooled: Mapping[str, PooledReading]
    w_PK: Tensor
    critical_P: Tensor
    case_P: Tensor


def _count_examples(ensemble: TeacherEnsemble, split: Split) -> int:
    """Return how many examples are asked about at once."""
    first = ensemble.log_probabilities(split.batch(torch.arange(1, device=split.device)), split.name)
    require_class_count(split, first.shape[-1], "the ensemble")
    return max(1, SETTINGS.chunk_bytes // (first.numel() * 8))


def _read_positions(
    ensemble: TeacherEnsemble, split: Split, batch: Batch, weigh: Weigh
) -> tuple[Signals, Tensor, Tensor, Tensor]:
    """Return signals, weights, labels and cases of the positions that count, float64."""
    log_p_KV = ensemble.cached_log_probabilities(split, batch)
    w_K = weigh(batch, log_p_KV)
    if w_K.shape != log_p_KV.shape[:-1]:
        raise InvalidInput(f"The rule gives weights of shape {tuple(w_K.shape)}; wanted {tuple(log_p_KV.shape[:-1])}.")
    place = torch.arange(len(split), device=split.device) if split.cluster is None else split.cluster
    case = expand_to_positions(place[batch.place], batch.labels.shape)
    counted = torch.ones_like(batch.labels, dtype=torch.bool) if batch.mask is None else batch.mask
    task, context = (expand_to_positions(group, batch.labels.shape)[counted] for group in (batch.task, batch.context))
    label_P = batch.labels[counted]
    signals = Signals(
        log_p=log_p_KV[counted].double(), labels=label_P, task=task, context=context, teachers=ensemble.names
    )
    return signals, w_K[counted].detach().double(), label_P, case[counted]


def _pool_some(job: PoolJob, signals: Signals, w_PK: Tensor) -> Tensor:
    """Return the pool of some of the teachers, (P, V); where none of them has a weight, all count alike."""
    chosen = list(job.teachers)
    w_Pk = w_PK[:, chosen]
    total_P1 = w_Pk.sum(-1, keepdim=True)
    w_Pk = torch.where(total_P1 > 0, w_Pk / total_P1, 1 / len(chosen))
    if isinstance(job.pool, SoftenedPool):  # which knows each teacher by its number or name among all
        return job.pool.function(job.pool.soften(signals)[:, chosen], w_Pk).double()
    return job.pool(signals.log_p[:, chosen], w_Pk).double()


def _read_rows_of(log_q_PV: Tensor, label_P: Tensor, safety: SafetyMeasure) -> PooledReading:
    loss_P = -log_q_PV.gather(-1, label_P[:, None])[:, 0]
    right_P = (log_q_PV.argmax(-1) == label_P).double()
    return PooledReading(loss_P.cpu(), right_P.cpu(), safety.measured(log_q_PV, label_P).double().cpu())


def _join(readings: Sequence[PooledReading]) -> PooledReading:
    parts = zip(*((one.loss_P, one.right_P, one.value_P) for one in readings), strict=True)
    return PooledReading(*(torch.cat(several) for several in parts))
