"""Safety of a pool beside that of its teachers, and what it says of a student.  Axes: P positions, K teachers.

A measure that is concave in the distribution is at least as high on a mixture as on its parts in the mean (Jensen):

    E f(sum_k w_k p_k) >= E sum_k w_k f(p_k)          and at every position  1 - f(q) <= max_k (1 - f(p_k))

By Corollary VIII.7 a student that has reached the pool is as safe as the left side, so at least as safe as the right
one: the expected safety of the weighted teachers.  Both need a pool in the teachers' hull; of any other pool only what
was measured is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...pooling import PoolFunction
from ...safety import SafetyMeasure
from ._loss_bounds import find_exponent


@dataclass(frozen=True)
class SafetyOfPool:
    """How safe a pool is, and what that promises.

    Attributes:
        measure: The safety measure, in words.
        critical: How many positions it is read on.
        pool: Expected safety of the pool over them; NaN where there are none.
        teachers: Expected safety of each teacher.
        weighted: Expected safety of the weighted teachers, ``E sum_k w_k f(p_k)``.
        student_bound: What Corollary VIII.7 promises a student that has reached the pool, the same number; None where
            the measure is not concave or the pool not convex.
        exceeding: Share of critical positions where the pool is less safe than its least safe teacher; 0 is promised
            where ``student_bound`` is given.
        attenuation: Expected unsafety of the pool over that of the least safe teacher at each position; at most 1 where
            ``student_bound`` is given, NaN where no teacher is unsafe.
    """

    measure: str
    critical: int
    pool: float
    teachers: tuple[float, ...]
    weighted: float
    student_bound: float | None
    exceeding: float
    attenuation: float


def measure_safety(
    measure: SafetyMeasure, pool: PoolFunction, value_PK: Tensor, w_PK: Tensor, pooled_P: Tensor
) -> SafetyOfPool:
    """Return the safety of a pool beside that of its teachers.

    Args:
        measure: What was read.
        pool: How teachers were pooled.
        value_PK: Its value on each teacher at each critical position, (P, K).
        w_PK: Weights, (P, K) or (K,).
        pooled_P: Its value on the pool, (P,).

    Raises:
        InvalidInput: Shapes do not fit.
    """
    if value_PK.ndim != 2 or w_PK.shape not in (value_PK.shape, value_PK.shape[1:]) or len(pooled_P) != len(value_PK):
        raise InvalidInput(
            f"Values of shape {tuple(value_PK.shape)}, weights of shape {tuple(w_PK.shape)} and a pool of shape "
            f"{tuple(pooled_P.shape)} do not fit; wanted (P, K), (P, K) or (K,), and (P,)."
        )
    value_PK, pooled_P = value_PK.double(), pooled_P.double()
    weighted = float((w_PK.double() * value_PK).sum(-1).mean())
    worst_P = torch.where(w_PK.expand(value_PK.shape) > 0, 1 - value_PK, 0.0).amax(-1)
    unsafe_P, of_worst = 1 - pooled_P, float(worst_P.mean())
    promised = measure.concave and find_exponent(pool) == 1
    return SafetyOfPool(
        measure=repr(measure),
        critical=len(value_PK),
        pool=float(pooled_P.mean()),
        teachers=tuple(value_PK.mean(0).tolist()),
        weighted=weighted,
        student_bound=weighted if promised else None,
        exceeding=float((unsafe_P > worst_P + 1e-9).double().mean()),
        attenuation=float(unsafe_P.mean()) / of_worst if of_worst > 0 else float("nan"),
    )
