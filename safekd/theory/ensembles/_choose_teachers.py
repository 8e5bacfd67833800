"""Whom to leave out, and which pool to take: greedy, by paired comparisons on the same cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...pooling import POOLS, PoolFunction
from ._paired_means import PairedMean, compare_means
from ._read_pools import EnsembleReading, PooledReading, PoolJob

Read = Callable[[Mapping[str, PoolJob]], EnsembleReading]
BASE = "arithmetic"
CANDIDATES = (BASE, "geometric", "power")


@dataclass(frozen=True)
class PoolComparison:
    """A pool beside another one.

    Attributes:
        loss: By how much its loss is higher.
        safety: By how much its safety is; None without critical positions.
    """

    loss: PairedMean
    safety: PairedMean | None

    def is_better(self, level: float) -> bool:
        """Say whether its loss is lower beyond chance, and its safety not lower beyond chance.

        Args:
            level: The probability of a false yes.
        """
        unsafe = self.safety is not None and self.safety.is_below_zero(level)
        return self.loss.is_below_zero(level) and not unsafe


def compare_readings(one: PooledReading, other: PooledReading, critical_P: Tensor, case_P: Tensor) -> PoolComparison:
    """Compare two pools on the same positions.

    Args:
        one: The pool.
        other: What it is beside.
        critical_P: Where safety is read.
        case_P: Which case each position belongs to.
    """
    safety = None
    if bool(critical_P.any()):
        safety = compare_means((one.value_P - other.value_P)[critical_P], case_P[critical_P])
    return PoolComparison(compare_means(_subtract(one.loss_P, other.loss_P), case_P), safety)


def _subtract(one_P: Tensor, other_P: Tensor) -> Tensor:
    """Return a difference of losses; none where both are infinite."""
    return (one_P - other_P).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)


def list_leaving(kept: tuple[int, ...], pool: PoolFunction) -> dict[str, PoolJob]:
    """Return the pool of some teachers, and those without each of them.

    Args:
        kept: Their numbers.
        pool: How they are pooled.
    """
    jobs = {"all": PoolJob(pool, kept)}
    if len(kept) > 1:
        jobs |= {f"without {k}": PoolJob(pool, tuple(j for j in kept if j != k)) for k in kept}
    return jobs


def compare_leaving(reading: EnsembleReading, kept: tuple[int, ...]) -> dict[int, PoolComparison]:
    """Return what the pool gains or loses by leaving each teacher out.

    Args:
        reading: Of the jobs of ``list_leaving``.
        kept: Numbers of the teachers.
    """
    full, pooled = reading.pooled["all"], reading.pooled
    return {
        k: compare_readings(pooled[f"without {k}"], full, reading.critical_P, reading.case_P)
        for k in kept
        if f"without {k}" in pooled
    }


def find_droppable(
    read: Read, reading: EnsembleReading, pool: PoolFunction, teachers: int, level: float
) -> dict[int, PairedMean]:
    """Return the teachers without whom the pool is better, in the order in which they are left out, and by how much.

    Each time the one whose leaving helps most, if it helps beyond chance, corrected for how many were compared, and
    does not make the pool less safe beyond chance; then the rest are compared anew.

    Args:
        read: Reads pools.
        reading: Of the jobs of ``list_leaving`` for all teachers.
        pool: How they are pooled.
        teachers: K.
        level: The probability of a false drop that is accepted each time.
    """
    kept, dropped = tuple(range(teachers)), dict[int, PairedMean]()
    while len(kept) > 1:
        compared = compare_leaving(reading, kept)
        better = {k: one for k, one in compared.items() if one.is_better(level / len(kept))}
        if not better:
            break
        worst = min(better, key=lambda k: better[k].loss.mean)
        dropped[worst] = better[worst].loss
        kept = tuple(k for k in kept if k != worst)
        if len(kept) > 1:
            reading = read(list_leaving(kept, pool))
    return dropped


def list_candidates(kept: tuple[int, ...], name: str, pool: PoolFunction) -> dict[str, PoolJob]:
    """Return the pools that are compared, the arithmetic one first.

    Args:
        kept: Numbers of the teachers.
        name: Of the pool in use.
        pool: Itself.
    """
    jobs = {one: PoolJob(POOLS[one], kept, needed=one == BASE) for one in CANDIDATES}
    return jobs if pool in [job.pool for job in jobs.values()] else {**jobs, name: PoolJob(pool, kept)}


def recommend_pool(compared: Mapping[str, PoolComparison], level: float) -> str:
    """Return the pool with the least loss, if it beats the arithmetic one beyond chance; else that one.

    Args:
        compared: Each beside the arithmetic one.
        level: The probability of a false choice that is accepted.
    """
    others = {name: one for name, one in compared.items() if name != BASE}
    better = {name: one for name, one in others.items() if one.is_better(level / max(len(others), 1))}
    return min(better, key=lambda name: better[name].loss.mean) if better else BASE
