"""Pooling: one target distribution from K teachers and their weights.

    arithmetic      sum_k w_k p_k: within the teachers' convex hull, which is what Definition III.7 of the paper asks of
                    a token-weighted ensemble; the default
    geometric       prod_k p_k^w_k / Z: each teacher has a veto

``POOLS`` holds them by these names, as trainers and configurations spell them.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from ._arithmetic_pool import arithmetic_pool
from ._geometric_pool import geometric_pool

POOLS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"arithmetic": arithmetic_pool, "geometric": geometric_pool}

__all__ = ["POOLS", "arithmetic_pool", "geometric_pool"]
