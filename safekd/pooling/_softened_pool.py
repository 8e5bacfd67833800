"""Teachers softened, each by its own temperature, before they are pooled.  Axes: ... positions, K teachers, V."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .._registry import find_operator
from ..divergences import require_temperature
from ..errors import InvalidInput
from ..softening import SOFTENINGS, Schedule, SoftenedSignals, Softening, Temperatures
from ._named_pools import POOLS
from ._pool_weights import PoolFunction


@dataclass(repr=False, eq=False)
class SoftenedPool:
    """Teachers that are softened, each by its own temperature, and then pooled.

    The temperature of the divergence softens the target and the student alike; this one softens teachers alone, so the
    student learns the softer target.

    Attributes:
        temperature: One number for all teachers; one a teacher, as a list, a tensor (K,) or a dictionary by name; or
            ``Temperatures``, by teacher, position, task and context.
        pool: How they are pooled: a name of ``kd.pooling.POOLS``, or a pool.
        softening: How they are softened: a name of ``kd.softening.SOFTENINGS``, or an operator.
        schedule: A factor of all temperatures by the optimizer's step, such as ``TemperatureSchedule(4.0, 1.0, 500)``,
            or a function of your own; targets are then worked out anew each step.  Each trainer counts its own steps,
            and a run that goes on from a checkpoint goes on with them.

    Raises:
        InvalidInput: There is no such pool, or a number is no temperature.
    """

    temperature: float | Sequence[float] | Tensor | Mapping[str, float] | Temperatures = 1.0
    pool: PoolFunction | str = "arithmetic"
    softening: Softening | str = "power"
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        given = self.temperature
        self._temperatures = given if isinstance(given, Temperatures) else Temperatures(teacher=given)
        self._function: PoolFunction = find_operator(self.pool, POOLS, "pool")
        self._softening: Softening = find_operator(self.softening, SOFTENINGS, "softening")
        if self.schedule is not None and not callable(self.schedule):
            raise InvalidInput(
                f"`schedule` is {self.schedule!r}; wanted kd.softening.TemperatureSchedule(4.0, 1.0, steps=500), or a "
                "function from a step to a factor."
            )
        self.step = 0  # how many were taken; no field, so that it is no setting by which runs differ

    @property
    def moving(self) -> bool:
        """Whether targets change from step to step."""
        return self.schedule is not None

    def __call__(self, log_p_KV: Tensor, w_K: Tensor) -> Tensor:
        """Return the logarithm of the pool, where temperatures are by the teacher's number alone.

        Args:
            log_p_KV: Teachers' log-probabilities, (..., K, V).
            w_K: Weights, (..., K), at least 0, sum 1.

        Returns:
            log q, (..., V), float32 or wider.

        Raises:
            InvalidInput: Temperatures need more than that, or as by the pool.
        """
        return self._pool(log_p_KV, w_K, self._temperatures.for_teachers(log_p_KV))

    def pool_signals(self, signals: SoftenedSignals, w_K: Tensor) -> Tensor:
        """Return the logarithm of the pool, temperatures by all that is known of the positions; trainers call this.

        Args:
            signals: ``kd.weights.Signals`` of the positions.
            w_K: Weights, (..., K).

        Returns:
            log q, (..., V).
        """
        return self._pool(signals.log_p, w_K, self._temperatures(signals))

    def soften(self, signals: SoftenedSignals) -> Tensor:
        """Return the softened teachers, (..., K, V).

        Args:
            signals: Of the positions.
        """
        return self._soften(signals.log_p, self._temperatures(signals))

    @property
    def function(self) -> PoolFunction:
        """How softened teachers are pooled."""
        return self._function

    def _pool(self, log_p_KV: Tensor, w_K: Tensor, T_K: Tensor) -> Tensor:
        return self._function(self._soften(log_p_KV, T_K), w_K)

    def _soften(self, log_p_KV: Tensor, T_K: Tensor) -> Tensor:
        if self.schedule is not None:
            factor = require_temperature(self.schedule(self.step))
            T_K = (T_K * factor).clamp(self._temperatures.lowest, self._temperatures.highest)
        return self._softening(log_p_KV, T_K)

    def __repr__(self) -> str:
        schedule = "" if self.schedule is None else f"schedule={self.schedule!r}, "
        pool = getattr(self._function, "__name__", repr(self._function))
        return f"SoftenedPool({schedule}pool={pool}, softening={self._softening!r}, {self._temperatures!r})"


class PoolClock:
    """Counts the steps of a pool with a schedule, in the place of the optimizer's schedule, which it steps too.

    Args:
        pool: The pool.
        scheduler: Of the optimizer's rate, or None.
    """

    # no settings of it: the inner one holds the optimizer, and the pool is described by itself
    __slots__ = ("__dict__", "_inner", "_pool")

    def __init__(self, pool: SoftenedPool, scheduler: Any) -> None:
        self._pool, self._inner = pool, scheduler
        settings = {} if scheduler is None else vars(scheduler)
        self.settings = {name: value for name, value in settings.items() if name != "optimizer"}

    def step(self) -> None:
        """Count a step that was taken."""
        self._pool.step += 1
        if self._inner is not None:
            self._inner.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the count, and the state of the optimizer's schedule."""
        return {"step": self._pool.step, "scheduler": None if self._inner is None else self._inner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Args:
            state: Of ``state_dict``.
        """
        self._pool.step = int(state["step"])
        if self._inner is not None:
            self._inner.load_state_dict(state["scheduler"])

    def __getattr__(self, name: str) -> Any:
        if name == "base_lrs":
            return self._inner.base_lrs if self._inner is not None else []
        raise AttributeError(name)


def follow_schedule(pool: Any, scheduler: Any) -> tuple[Any, Any]:
    """Return a pool and a scheduler for one trainer; a pool with a schedule gets a count of its own.

    Args:
        pool: A pool.
        scheduler: Of the optimizer's rate, or None.

    Returns:
        The same two, unless the pool has a schedule: then a copy that begins at step 0, and what counts for it.
    """
    if not getattr(pool, "moving", False) or not isinstance(pool, SoftenedPool):
        return pool, scheduler
    own = copy.copy(pool)
    own.step = 0
    return own, PoolClock(own, scheduler)
