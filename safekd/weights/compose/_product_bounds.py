"""What the bounds of the parts say about their product, before any repair.

If the weight of teacher k at scale s lies in [a_sk, b_sk], then with A_k = prod_s a_sk and B_k = prod_s b_sk

    A_k / (A_k + sum_{j != k} B_j)   <=   w_k   <=   B_k / (B_k + sum_{j != k} A_j)

since the normalized product x_k / (x_k + sum of the others) rises in x_k and falls in the others.  For three scales
with bounds [a, b] alike that is a^3 / (a^3 + (K - 1) b^3).  It is a bound, not the range: weights that sum to one at
each scale cannot all be at a corner.  Axes: K teachers.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

Vector = tuple[float, ...]
Bounds = tuple[Vector, Vector]


def bound_product(parts: Iterable[Bounds]) -> Bounds:
    """Return the bounds between which the normalized product of the parts lies.

    Args:
        parts: (lower, upper) of each scale, K numbers each; a scale that is left out is uniform and changes nothing.

    Returns:
        (lower, upper), K numbers each.

    Source: derived at the top of the file; for common bounds it is the one after Definition IV.1.

    >>> lower, upper = bound_product([((0.1,) * 3, (0.6,) * 3)] * 3)
    >>> round(lower[0], 4), round(upper[0], 4)
    (0.0023, 0.9908)
    """
    lowers, uppers = zip(*parts, strict=True)
    A_K = [prod(a) for a in zip(*lowers, strict=True)]
    B_K = [prod(b) for b in zip(*uppers, strict=True)]
    return (
        tuple(1.0 if not _others(B_K, k) else a / (a + _others(B_K, k)) for k, a in enumerate(A_K)),
        tuple(0.0 if not b else b / (b + _others(A_K, k)) for k, b in enumerate(B_K)),
    )


def _others(values_K: list[float], k: int) -> float:
    return sum(values_K[:k] + values_K[k + 1 :])
