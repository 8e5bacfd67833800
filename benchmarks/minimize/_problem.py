"""A test problem: functions of the variables by name, a start, bounds, and the least value that was published.

Axes: n variables, M inequalities g <= 0, E equalities h = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Side = Sequence[float] | float | None


@dataclass(frozen=True)
class TestProblem:
    """name; objective, inequality and equality of x (n,); x0 (n,); bounds; least value known, and of other minima."""

    name: str
    objective: Callable[[Tensor], Tensor]
    x0: Tensor
    inequality: Callable[[Tensor], Tensor] | None
    equality: Callable[[Tensor], Tensor] | None
    lower: Tensor
    upper: Tensor
    least: float
    local: tuple[float, ...] = ()

    @property
    def bounds_only(self) -> bool:
        """Whether there are no rows."""
        return self.inequality is None and self.equality is None


def define(
    name: str,
    objective: Callable[..., Any],
    x0: Sequence[float],
    least: float,
    *,
    g: Callable[..., Any] | None = None,
    h: Callable[..., Any] | None = None,
    low: Side = None,
    high: Side = None,
    vector: bool = False,
    local: Sequence[float] = (),
) -> TestProblem:
    """Return a problem; functions take the variables one by one, or with ``vector`` as one tensor."""
    start = torch.tensor(x0, dtype=torch.float64)

    def call(function: Callable[..., Any], x: Tensor) -> Any:
        return function(x) if vector else function(*x.unbind())

    def rows(function: Callable[..., Any] | None) -> Callable[[Tensor], Tensor] | None:
        if function is None:
            return None
        return lambda x: _stack(call(function, x), x)

    def side(given: Side, default: float) -> Tensor:
        return torch.as_tensor(default if given is None else given, dtype=torch.float64).expand(len(start)).clone()

    return TestProblem(
        name,
        lambda x: call(objective, x),
        start,
        rows(g),
        rows(h),
        side(low, -math.inf),
        side(high, math.inf),
        least,
        tuple(local),
    )


def _stack(values: Any, x: Tensor) -> Tensor:
    if isinstance(values, Tensor) and values.ndim == 1:
        return values
    parts = values if isinstance(values, tuple) else (values,)
    return torch.stack([torch.as_tensor(part, dtype=x.dtype) for part in parts])
