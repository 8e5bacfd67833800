"""What the caller hands in: functions, a start, bounds, multipliers; refused in words where they cannot be used.

Axes: n variables, M inequalities, E equalities.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import InvalidInput

Floats = npt.NDArray[np.float64]
Function = Callable[[Tensor], Tensor]
Bounds = tuple[Tensor | float | None, Tensor | float | None] | None


class StartNotFinite(InvalidInput):
    """Values or gradients at x0 are not finite; another start may do."""


class UserFunctions:
    """Objective, inequalities and equalities of a tensor shaped as x0, its entries in units of ``unit_n`` each.

    They are called with float64; if they mix x with tensors of x0's own dtype and torch refuses that, with that dtype.
    """

    def __init__(self, objective: Function, inequality: Function | None, equality: Function | None, x0: Tensor) -> None:
        if not isinstance(x0, Tensor):
            raise InvalidInput(f"`x0` is a {type(x0).__name__}; wanted a tensor, e.g. torch.zeros(3).")
        if not x0.is_floating_point() or x0.numel() == 0:
            raise InvalidInput(f"`x0` has dtype {x0.dtype} and {x0.numel()} numbers; wanted at least one float.")
        self.objective, self.inequality, self.equality = objective, inequality, equality
        self.x0, self.dtype = x0.detach(), torch.float64
        self.unit_n: Floats = np.ones(x0.numel())

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return f, g (M,) and h (E,) as the problem states them, float64, with gradients; x is in units of its own."""
        inner = (x if (self.unit_n == 1).all() else x * self.to_tensor(self.unit_n)).to(self.dtype)
        f = self.objective(inner)
        if not isinstance(f, Tensor) or f.numel() != 1:
            given = tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__
            raise InvalidInput(f"The objective gave {given}; wanted a tensor with one number.")
        g_M = _evaluate_rows("inequality", self.inequality, inner)
        return f.reshape(()).double(), g_M, _evaluate_rows("equality", self.equality, inner)

    def evaluate_start(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the values at the start, and keep the dtype that the functions take: float64, else x0's own."""
        try:
            return self(x)
        except RuntimeError:
            if self.x0.dtype == torch.float64:
                raise
        self.dtype = self.x0.dtype
        return self(x)

    def to_tensor(self, x_n: Floats) -> Tensor:
        """Return x as a tensor of x0's shape and device, float64."""
        return torch.from_numpy(x_n.copy()).reshape(self.x0.shape).to(self.x0.device)

    @property
    def rounding(self) -> float:
        """The relative rounding error of the functions."""
        return torch.finfo(self.dtype).eps


def read_variable_bounds(bounds: Bounds, x0: Tensor) -> tuple[Floats, Floats]:
    """Return lower and upper bounds, one number a variable.  Raises InvalidInput for shapes and for crossed bounds."""
    low, high = bounds if bounds is not None else (None, None)
    sides = []
    for value, default in ((low, -np.inf), (high, np.inf)):
        given = torch.as_tensor(default if value is None else value, dtype=torch.float64).detach().cpu()
        try:
            sides.append(given.broadcast_to(x0.shape).numpy().ravel().copy())
        except RuntimeError as cause:
            raise InvalidInput(
                f"A bound has shape {tuple(given.shape)}, x0 {tuple(x0.shape)}; wanted one number, or as many as x0 "
                "has."
            ) from cause
    crossed = ~(sides[0] <= sides[1])
    if crossed.any():
        i = int(crossed.argmax())
        raise InvalidInput(f"Bounds of variable {i} are {sides[0][i]:g} and {sides[1][i]:g}; wanted lower <= upper.")
    return sides[0], sides[1]


def read_multipliers(multipliers: Tensor | None, equality_multipliers: Tensor | None, M: int, E: int) -> Floats | None:
    """Return the multipliers to start from, (M + E,), in the user's units; None if none were given.

    Raises InvalidInput for a wrong number of them, for what is not finite, and for negative ones of inequalities.
    """
    if multipliers is None and equality_multipliers is None:
        return None
    parts = []
    for name, given, rows in (("multipliers", multipliers, M), ("equality_multipliers", equality_multipliers, E)):
        part = torch.zeros(rows) if given is None else torch.as_tensor(given).detach()
        if part.numel() != rows:
            raise InvalidInput(f"`{name}` has {part.numel()} numbers; wanted {rows}, one for each row.")
        if not bool(torch.isfinite(part).all()) or (name == "multipliers" and bool((part < 0).any())):
            raise InvalidInput(f"`{name}` holds {part.tolist()}; wanted finite numbers, of inequalities none below 0.")
        parts.append(part.double().cpu().numpy().reshape(-1))
    return np.concatenate(parts)


def check_numbers(tolerance: float, steps: int, penalty: float) -> None:
    """Raise InvalidInput for a tolerance, a number of steps or a penalty that cannot be used."""
    if not (tolerance > 0 and math.isfinite(tolerance)) or steps < 1:
        raise InvalidInput(f"`tolerance` is {tolerance!r} and `steps` {steps!r}; wanted above 0, and at least 1.")
    if not (penalty > 0 and math.isfinite(penalty)):
        raise InvalidInput(f"`penalty` is {penalty!r}; wanted a finite number above 0.")


def check_limits(max_evaluations: int | None, time_limit: float | None) -> None:
    """Raise InvalidInput for limits that leave nothing to do."""
    for name, limit, least in (
        ("max_evaluations", max_evaluations, "at least 1"),
        ("time_limit", time_limit, "above 0"),
    ):
        if limit is not None and not limit > 0:
            raise InvalidInput(f"`{name}` is {limit!r}; wanted {least}, or None for no limit.")


def _evaluate_rows(name: str, function: Function | None, x: Tensor) -> Tensor:
    if function is None:
        return torch.zeros(0, dtype=torch.float64, device=x.device)
    rows = function(x)
    if not isinstance(rows, Tensor) or rows.ndim > 1:
        given = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
        raise InvalidInput(f"`{name}` gave {given}; wanted a tensor of one row of values.")
    return rows.reshape(-1).double()
