"""What is known of each teacher and each pool, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ._paired_means import PairedMean


@dataclass(frozen=True)
class TeacherFigures:
    """One teacher beside the others.

    Attributes:
        name: Of the teacher.
        weight: Its mean weight.
        loss: Mean log-loss, nats.
        accuracy: How often its most probable class is the label.
        safety: Expected safety over critical positions; NaN where there are none.
        variance: Of its error, summed over classes.
        bias: Size of its mean error; the Brier score is ``variance + bias^2``.
        agreement: How often it names the same class as each teacher, by name.
        least_error_weight: Its weight in the linear pool with the least Brier score on these data.
        loss_without: By how much the pool's loss is higher without it; below 0 where the pool is better off.  None for
            a single teacher.
        safety_without: By how much the pool's safety is higher without it; None likewise, and without critical
            positions.
        dropped: Whether the report advises to leave it out.
    """

    name: str
    weight: float
    loss: float
    accuracy: float
    safety: float
    variance: float
    bias: float
    agreement: Mapping[str, float]
    least_error_weight: float
    loss_without: PairedMean | None
    safety_without: PairedMean | None
    dropped: bool


@dataclass(frozen=True)
class PoolFigures:
    """One pool of the teachers that are kept.

    Attributes:
        name: A name of ``kd.pooling.POOLS``, or what the pool calls itself.
        loss: Mean log-loss, nats.
        accuracy: How often its most probable class is the label.
        safety: Expected safety over critical positions; NaN where there are none.
        loss_beside: By how much its loss is above the arithmetic pool's.
        safety_beside: By how much its safety is above the arithmetic pool's; None without critical positions.
    """

    name: str
    loss: float
    accuracy: float
    safety: float
    loss_beside: PairedMean
    safety_beside: PairedMean | None


@dataclass(frozen=True)
class VarianceFigures:
    """Variance of the pool's error, summed over classes.

    Attributes:
        independent: As predicted from the teachers' variances alone, ``sum_k w_k^2 Sigma_kk``, at the mean weights.
        correlated: As predicted with their covariances, ``w' Sigma w``; what a linear pool of fixed weights has.
        measured: Of the pool itself.
        effective_teachers: As how many independent teachers they count.
        bias: Size of the pool's mean error, as measured.
        bias_attenuation: That of the linear pool over the teachers' mean size, at most 1.
        brier_of_teachers: Their weighted mean Brier score.
        ambiguity: How far they are from their linear pool, mean squared distance: by so much is its Brier score lower.
    """

    independent: float
    correlated: float
    measured: float
    effective_teachers: float
    bias: float
    bias_attenuation: float
    brier_of_teachers: float
    ambiguity: float
