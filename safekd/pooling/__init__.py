"""Pooling: one target distribution from K teachers and their weights.

    arithmetic      sum_k w_k p_k: within the teachers' convex hull, which is what Definition III.7 of the paper asks of
                    a token-weighted ensemble; the default
    geometric       prod_k p_k^w_k / Z: each teacher has a veto; commutes with temperature
    power           (sum_k w_k p_k^r)^(1/r) / Z: between the two for r in (0, 1), and beyond
    log_linear      prod_k p_k^(w_k / T) / Z: the geometric pool at a temperature

``POOLS`` holds them by these names, as trainers and configurations spell them; ``PowerPool`` and ``LogLinearPool`` take
an exponent and a temperature.  ``SoftenedPool`` softens each teacher first, by a temperature of its own, which may move
over a run.  ``audit_pool`` looks for what refutes the five axioms of a pool, yours too.

``pool_tables`` pools teachers that are known by their most probable classes, at a cost that does not grow with the
vocabulary; ``bound_table_error`` bounds what that loses.
"""

from ._arithmetic_pool import arithmetic_pool
from ._audit_pool import audit_pool
from ._geometric_pool import geometric_pool
from ._log_linear_pool import LogLinearPool
from ._named_pools import POOLS
from ._pool_tables import PooledTable, bound_table_error, pool_tables
from ._pool_weights import PoolFunction
from ._power_pool import PowerPool
from ._softened_pool import SoftenedPool, follow_schedule

__all__ = [
    "POOLS",
    "LogLinearPool",
    "PoolFunction",
    "PooledTable",
    "PowerPool",
    "SoftenedPool",
    "arithmetic_pool",
    "audit_pool",
    "bound_table_error",
    "follow_schedule",
    "geometric_pool",
    "pool_tables",
]
