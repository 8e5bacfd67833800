"""The report on an ensemble: teachers are asked once a question, every number is read off the same positions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..._number_checks import is_finite
from ..._registry import find_operator
from ...data import Group, Split
from ...errors import InvalidInput
from ...pooling import POOLS, PoolFunction
from ...safety import SafetyMeasure, TruthProbability
from ...teachers import Teacher, TeacherEnsemble
from ...weights import Rule, TeacherEvidence
from ._choose_teachers import (
    BASE,
    PoolComparison,
    compare_leaving,
    compare_readings,
    find_droppable,
    list_candidates,
    list_leaving,
    recommend_pool,
)
from ._ensemble_figures import PoolFigures, TeacherFigures, VarianceFigures
from ._ensemble_report import EnsembleReport
from ._error_statistics import ErrorStatistics
from ._loss_bounds import bound_log_loss, measure_jensen_gap
from ._paired_means import PairedMean, compare_means
from ._read_pools import EnsembleReading, PooledReading, PoolJob, make_weigher, read_pools
from ._safety_of_pools import SafetyOfPool, measure_safety


def ensemble_report(
    teachers: TeacherEnsemble | Sequence[Teacher],
    split: Split,
    *,
    weights: Tensor | Sequence[float] | Mapping[str, float] | Rule | None = None,
    pool: PoolFunction | str = "arithmetic",
    safety: SafetyMeasure | None = None,
    evidence: TeacherEvidence | None = None,
    critical_classes: Collection[Group] = (),
    critical_contexts: Collection[Group] = (),
    level: float = 0.05,
) -> EnsembleReport:
    """Tell what an ensemble is worth on a split: errors, pools, safety, whom to leave out and which pool to take.

    Whom to leave out and which pool to take are chosen on these data; confirm them on others.

    Args:
        teachers: A TeacherEnsemble, or K of Teacher.
        split: Labeled data that none of them was trained on.
        weights: One number a teacher, in their order or by name; a weighting rule, called on the signals of the
            teachers and the data; None for all alike.
        pool: A name of ``kd.pooling.POOLS``, or a pool of your own.
        safety: What is read over critical positions; ``TruthProbability()`` of all classes if left out.
        evidence: Measured teachers, for rules.
        critical_classes: Classes where orderings of the rule apply, numbers or names, besides those of ``safety``.
        critical_contexts: Contexts where they apply, likewise.
        level: The probability of a false drop, or a false choice of a pool, that is accepted, in (0, 0.5).

    Returns:
        The report; ``print`` shows it in a screen, ``to_dict`` and ``plot`` write it.

    Raises:
        InvalidInput: Something does not fit together, the split is not in memory, or the pool fails.

    Source: arXiv:2601.09165, arXiv:2601.07058, and Corollary VIII.7 of arXiv:2601.17910, read as ``docs/ensembles.md``
    says.
    """
    if not isinstance(split, Split):
        raise InvalidInput(f"`split` is a {type(split).__name__}; wanted a kd.Split, whose labels are in memory.")
    if not is_finite(level) or not 0 < level < 0.5:
        raise InvalidInput(f"`level` is {level!r}; wanted a probability above 0 and below 0.5, such as 0.05.")
    if safety is not None and not isinstance(safety, SafetyMeasure):
        raise InvalidInput(f"`safety` is {safety!r}; wanted a safety measure, kd.safety.TruthProbability([0]) say.")
    ensemble = teachers if isinstance(teachers, TeacherEnsemble) else TeacherEnsemble(teachers)
    function: PoolFunction = find_operator(pool, POOLS, "pool")
    measure = (TruthProbability() if safety is None else safety).with_names(split.names)
    ensemble.recheck()
    classes = {*critical_classes, *(measure.critical or ())}
    K, weigh = len(ensemble), make_weigher(weights, ensemble, split, evidence, classes, critical_contexts)

    def read(jobs: dict[str, PoolJob]) -> EnsembleReading:
        with torch.no_grad():
            return read_pools(ensemble, split, weigh, jobs, measure)

    everybody, name = tuple(range(K)), _name_pool(pool, function)
    candidates = list_candidates(everybody, name, function)
    reading = read({**list_leaving(everybody, function), **candidates})
    dropped = find_droppable(lambda jobs: read(dict(jobs)), reading, function, K, level)
    of_kept = reading
    if dropped:
        of_kept = read(list_candidates(tuple(k for k in everybody if k not in dropped), name, function))
    compared = {
        one: compare_readings(of_kept.pooled[one], of_kept.pooled[BASE], of_kept.critical_P, of_kept.case_P)
        for one in candidates
        if one in of_kept.pooled
    }
    pools = tuple(_describe_pool(one, of_kept.pooled[one], of_kept, compared[one]) for one in compared)
    return _put_together(
        _Facts(ensemble, split, reading, function, name, measure, level, weights), dropped, pools, compared
    )


class _Facts:
    """What a report is made of."""

    def __init__(
        self,
        ensemble: TeacherEnsemble,
        split: Split,
        reading: EnsembleReading,
        pool: PoolFunction,
        name: str,
        measure: SafetyMeasure,
        level: float,
        weights: object,
    ) -> None:
        self.names, self.split, self.reading, self.pool, self.name = ensemble.names, split, reading, pool, name
        self.measure, self.level, K = measure, level, len(ensemble)
        self.w_K = reading.w_PK.mean(0)
        whole = reading.errors  # of the teachers, and of the pool as the last
        self.errors = ErrorStatistics(whole.bias_KV[:K], whole.covariance_KK[:K, :K], whole.positions)
        self.pool_variance = max(float(whole.covariance_KK[K, K]), 0.0)
        self.pool_bias = float(whole.bias_KV[K].norm())
        rule = callable(weights) and not isinstance(weights, Tensor)
        self.weighed = "with equal weights" if weights is None else "by its rule" if rule else "with given weights"


def _put_together(
    facts: _Facts,
    dropped: Mapping[int, PairedMean],
    pools: tuple[PoolFigures, ...],
    compared: dict[str, PoolComparison],
) -> EnsembleReport:
    reading, errors = facts.reading, facts.errors
    full, loss_PK = reading.pooled["all"], torch.stack([one.loss_P for one in reading.teachers], dim=-1)
    gap_P = measure_jensen_gap(loss_PK, reading.w_PK, full.loss_P)
    variance = VarianceFigures(
        independent=errors.predict_variance(facts.w_K, independent=True),
        correlated=errors.predict_variance(facts.w_K),
        measured=facts.pool_variance,
        effective_teachers=errors.count_effective(facts.w_K),
        bias=facts.pool_bias,
        bias_attenuation=errors.attenuate_bias(facts.w_K),
        brier_of_teachers=errors.average_brier(facts.w_K),
        ambiguity=errors.measure_ambiguity(facts.w_K),
    )
    safety = None
    if bool((at := reading.critical_P).any()):
        value_PK = torch.stack([one.value_P for one in reading.teachers], dim=-1)
        safety = measure_safety(facts.measure, facts.pool, value_PK[at], reading.w_PK[at], full.value_P[at])
    teachers = _list_teacher_figures(facts, dropped)
    chosen = recommend_pool(compared, facts.level)
    pooled = compare_readings(full, reading.pooled.get(BASE, full), reading.critical_P, reading.case_P)
    cases = len(np.unique(reading.case_P.numpy()))
    return EnsembleReport(
        split=facts.split.name,
        examples=len(facts.split),
        positions=errors.positions,
        cases=cases,
        pool=facts.name,
        weights=facts.weighed,
        level=facts.level,
        teachers=teachers,
        pooled=_describe_pool(facts.name, full, reading, pooled),
        pools=pools,
        correlations=tuple(map(tuple, errors.compute_correlation().tolist())),
        covariances=tuple(map(tuple, errors.covariance_KK.tolist())),
        variance=variance,
        jensen_gap=compare_means(gap_P.nan_to_num(nan=0.0), reading.case_P),
        least_gap=float(gap_P.nan_to_num(nan=0.0).min()),
        loss_bound=bound_log_loss(facts.pool, loss_PK, reading.w_PK),
        safety=safety,
        drop=tuple(facts.names[k] for k in dropped),
        recommended_pool=chosen,
        advice=tuple(_advise_on_teachers(facts, teachers, dropped, chosen, compared, variance, safety)),
    )


def _list_teacher_figures(facts: _Facts, dropped: Mapping[int, PairedMean]) -> tuple[TeacherFigures, ...]:
    reading, errors, names = facts.reading, facts.errors, facts.names
    without = compare_leaving(reading, tuple(range(len(names))))
    best_K = errors.minimize_error()
    records = []
    for k, one in enumerate(reading.teachers):
        left = without.get(k)
        records.append(
            TeacherFigures(
                name=names[k],
                weight=float(facts.w_K[k]),
                loss=float(one.loss_P.mean()),
                accuracy=float(one.right_P.mean()),
                safety=_average_critical(one, reading),
                variance=max(float(errors.covariance_KK[k, k]), 0.0),
                bias=float(errors.bias_KV[k].norm()),
                agreement=dict(zip(names, reading.agreement_KK[k].tolist(), strict=True)),
                least_error_weight=float(best_K[k]),
                loss_without=None if left is None else left.loss,
                safety_without=None if left is None else left.safety,
                dropped=k in dropped,
            )
        )
    return tuple(records)


def _describe_pool(name: str, pooled: PooledReading, reading: EnsembleReading, beside: PoolComparison) -> PoolFigures:
    return PoolFigures(
        name=name,
        loss=float(pooled.loss_P.mean()),
        accuracy=float(pooled.right_P.mean()),
        safety=_average_critical(pooled, reading),
        loss_beside=beside.loss,
        safety_beside=beside.safety,
    )


def _average_critical(one: PooledReading, reading: EnsembleReading) -> float:
    return float(one.value_P[reading.critical_P].mean())


def _advise_on_teachers(
    facts: _Facts,
    teachers: tuple[TeacherFigures, ...],
    dropped: Mapping[int, PairedMean],
    chosen: str,
    compared: dict[str, PoolComparison],
    variance: VarianceFigures,
    safety: SafetyOfPool | None,
) -> list[str]:
    lines, K = list[str](), len(teachers)
    for k, change in dropped.items():
        then = ", the others left out" if lines else ""
        lines.append(
            f"Leave out '{facts.names[k]}': without it the loss is {_say_change(change)}{then}. That is of these data; "
            "confirm it on others."
        )
    if K > 1 and not dropped:
        lines.append(f"Nobody to leave out: no teacher makes the pool worse beyond chance (level {facts.level:g}).")
    if chosen == BASE:
        lines.append("Take the arithmetic pool: no other has a lower loss beyond chance, and it keeps its guarantees.")
    else:
        change = compared[chosen].loss
        lines.append(
            f"Take pool='{chosen}': its loss is {_say_change(change)} than the arithmetic pool's. What VIII.7 "
            "promises holds for the arithmetic pool."
        )
    if K > 1:
        count = min(variance.effective_teachers, 1e6)
        lines.append(
            f"The {K} teachers count as {count:.2g} with independent errors; noise of the labels, which they share, is "
            "in that number."
        )
    if safety is not None and safety.exceeding > 0:
        lines.append(
            f"At {safety.exceeding:.1%} of critical labels this pool is less safe than its least safe teacher; the "
            "arithmetic pool never is, for a concave measure."
        )
    return lines


def _say_change(change: PairedMean) -> str:
    return f"{abs(change.mean):.4f} ± {change.error:.4f} nats {'lower' if change.mean < 0 else 'higher'}"


def _name_pool(given: object, pool: PoolFunction) -> str:
    if isinstance(given, str):
        return given
    known = [name for name, one in POOLS.items() if one is pool]
    return known[0] if known else str(getattr(pool, "__name__", repr(pool)))
