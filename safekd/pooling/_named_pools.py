"""Pools by the names that trainers and configurations spell."""

from __future__ import annotations

from collections.abc import Mapping

from ._arithmetic_pool import arithmetic_pool
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
