"""Pooling: one target distribution from K teachers and their weights.

    arithmetic      sum_k w_k p_k: within the teachers' convex hull, which is what Definition III.7 of the paper asks of
                    a token-weighted ensemble; the default
    geometric       prod_k p_k^w_k / Z: each teacher has a veto; commutes with temperature
    power           (sum_k w_k p_k^r)^(1/r) / Z: between the two for r in (0, 1), and beyond
    log_linear      prod_k p_k^(w_k / T) / Z: the geometric pool at a temperature

``POOLS`` holds them by these names, as trainers and configurations spell them; ``PowerPool`` and ``LogLinearPool`` take
an exponent and a temperature.  ``audit_pool`` looks for what refutes the five axioms of a pool, yours too.
"""

from collections.abc import Mapping

from ._arithmetic_pool import arithmetic_pool
from ._audit_pool import audit_pool
from ._geometric_pool import geometric_pool
from ._log_linear_pool import LogLinearPool
from ._pool_weights import PoolFunction
from ._power_pool import PowerPool

POOLS: Mapping[str, PoolFunction] = {
    "arithmetic": arithmetic_pool,
    "geometric": geometric_pool,
    "power": PowerPool(),
    "log_linear": LogLinearPool(),
}

__all__ = ["POOLS", "LogLinearPool", "PoolFunction", "PowerPool", "arithmetic_pool", "audit_pool", "geometric_pool"]
