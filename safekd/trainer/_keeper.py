"""Keeps the best iterates of a run."""

from __future__ import annotations

import copy
import math

from torch import Tensor, nn

from ..tracer import TracePoint
from ._objective import FullPass
from ._result import FEASIBLE


class Keeper:
    """Remembers the audited iterate of lowest loss among feasible ones, and the one of smallest violation."""

    def __init__(self) -> None:
        self._best: tuple[float, dict[str, Tensor]] | None = None
        self._most: tuple[tuple[float, float], dict[str, Tensor]] | None = None

    def see(self, student: nn.Module, point: TracePoint) -> None:
        """Consider one audited iterate."""
        here = rank(point)
        if here[0] == math.inf:
            return
        if here[0] == 0 and (self._best is None or point.loss < self._best[0]):
            self._best = (point.loss, _copy(student))
        self.see_restored(student, point)

    def see_restored(self, student: nn.Module, point: TracePoint | FullPass) -> None:
        """Consider a student that left the loss aside: it may be the most feasible, but never the best."""
        here = rank(point)
        if here[0] < math.inf and (self._most is None or here < self._most[0]):
            self._most = (here, _copy(student))

    def best_feasible(self, like: nn.Module) -> nn.Module | None:
        """Return the feasible iterate of lowest loss as a module of its own, or None."""
        return None if self._best is None else _restored(like, self._best[1])

    def most_feasible(self, like: nn.Module) -> nn.Module:
        """Return the iterate of smallest violation as a module of its own."""
        return _restored(like, _copy(like) if self._most is None else self._most[1])


def rank(point: TracePoint | FullPass) -> tuple[float, float]:
    """Return what makes an iterate more feasible than another where it is less: violation, 0 if small, then loss.

    Infinite where anything is not a number.
    """
    violations = [reading.violation for reading in point.readings]
    if not all(map(math.isfinite, [point.loss, *violations])):  # before max, which can lose a NaN
        return math.inf, math.inf
    violation = max(violations, default=0.0)
    return (0.0 if violation <= FEASIBLE else violation), point.loss


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _restored(like: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    module = copy.deepcopy(like)
    module.load_state_dict(state)
    return module
