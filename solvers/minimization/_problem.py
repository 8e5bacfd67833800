"""A problem as its solver sees it: float64 vectors, scaled, every gradient by automatic differentiation.

Rows and objective are divided by the size of their gradients at the start, so that multiplying one of them by a
thousand changes nothing but its multiplier.  Axes: n variables, M inequalities, E equalities, C = M + E rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InvalidInput
from ..kkt import KKTResiduals, gradients, kkt_residuals

Floats = npt.NDArray[np.float64]
Function = Callable[[Tensor], Tensor]
_FLAT = 1e-8  # a gradient smaller than this says nothing of a row's size


@dataclass(frozen=True)
class Point:
    """Values and gradients at x_n, scaled: f, its gradient, rows c_C (inequalities first) and their Jacobian."""

    x_n: Floats
    f: float
    gradient_n: Floats
    c_C: Floats
    jacobian_Cn: Floats

    @property
    def finite(self) -> bool:
        """Whether all of it is."""
        parts = (self.gradient_n, self.c_C, self.jacobian_Cn)
        return bool(np.isfinite(self.f)) and all(bool(np.isfinite(part).all()) for part in parts)


class Problem:
    """``min f  s.t.  g <= 0, h = 0, lower <= x <= upper``, evaluated at flat float64 vectors.

    Raises InvalidInput if values at x0 have the wrong shape or are not finite.
    """

    def __init__(
        self,
        objective: Function,
        x0: Tensor,
        inequality: Function | None,
        equality: Function | None,
        bounds: tuple[Tensor | float | None, Tensor | float | None] | None,
    ) -> None:
        if not x0.is_floating_point() or x0.numel() == 0:
            raise InvalidInput(f"`x0` has dtype {x0.dtype} and {x0.numel()} numbers; wanted at least one float.")
        self.objective, self.inequality, self.equality = objective, inequality, equality
        self.like, self.evaluations = x0.detach(), 0
        self.lower_n, self.upper_n = self._bounds(bounds)
        start_n = np.clip(x0.detach().double().cpu().numpy().ravel(), self.lower_n, self.upper_n)
        self.f_scale, self.c_scale_C, self.M = 1.0, np.ones(0), 0
        self.start = self._first(start_n)

    def at(self, x_n: Floats) -> Point:
        """Evaluate everything, scaled."""
        self.evaluations += 1
        x = self._tensor(x_n).requires_grad_()
        f, g_M, h_E = self.values(x)
        rows = gradients([f, *g_M, *h_E], [x]).cpu().numpy()
        c_C = torch.cat([g_M, h_E]).detach().double().cpu().numpy()
        return Point(
            x_n.copy(),
            float(f.detach()) / self.f_scale,
            rows[0] / self.f_scale,
            c_C / self.c_scale_C,
            rows[1:] / self.c_scale_C[:, None],
        )

    def values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return f, g (M,) and h (E,) as the problem states them, with gradients."""
        f = self.objective(x)
        if not isinstance(f, Tensor) or f.numel() != 1:
            found = tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__
            raise InvalidInput(f"The objective gave {found}; wanted a tensor with one number.")
        return f.reshape(()), self._rows("inequality", self.inequality, x), self._rows("equality", self.equality, x)

    def tensor(self, x_n: Floats) -> Tensor:
        """Return x as the problem's functions take it, float64."""
        return self._tensor(x_n)

    def user_multipliers(self, lambda_C: Floats) -> Floats:
        """Return multipliers in units of f a unit of constraint."""
        found: Floats = lambda_C * self.f_scale / self.c_scale_C
        return found

    def residuals(self, point: Point, lambda_C: Floats, *, scaled: bool = False) -> KKTResiduals:
        """Return the residuals of the problem as stated, or scaled; active bounds get the multiplier they need."""
        gradient_n, c_C, jacobian_Cn, price_C = point.gradient_n, point.c_C, point.jacobian_Cn, lambda_C
        if not scaled:
            gradient_n, c_C = gradient_n * self.f_scale, c_C * self.c_scale_C
            jacobian_Cn, price_C = jacobian_Cn * self.c_scale_C[:, None], self.user_multipliers(lambda_C)
        slope_n = gradient_n + jacobian_Cn.T @ price_C
        low, high = (np.flatnonzero(at) for at in self.on_bounds(point.x_n))
        eye_nn = np.eye(len(slope_n))
        rows = [jacobian_Cn[: self.M], -eye_nn[low], eye_nn[high]]
        values = [c_C[: self.M], self.lower_n[low] - point.x_n[low], point.x_n[high] - self.upper_n[high]]
        prices = [price_C[: self.M], slope_n[low].clip(min=0), (-slope_n[high]).clip(min=0)]
        as_tensor = torch.from_numpy
        return kkt_residuals(
            as_tensor(gradient_n),
            jacobian_Mn=as_tensor(np.concatenate(rows)),
            g_M=as_tensor(np.concatenate(values)),
            lambda_M=as_tensor(np.concatenate(prices)),
            jacobian_En=as_tensor(jacobian_Cn[self.M :]),
            h_E=as_tensor(c_C[self.M :]),
            mu_E=as_tensor(price_C[self.M :]),
        )

    def on_bounds(self, x_n: Floats) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Say which variables stand on their lower, on their upper bound."""
        return x_n <= self.lower_n, x_n >= self.upper_n

    def _first(self, start_n: Floats) -> Point:
        x = self._tensor(start_n).requires_grad_()
        f, g_M, h_E = self.values(x)
        self.M = len(g_M)
        self.c_scale_C = np.ones(len(g_M) + len(h_E))
        point = self.at(start_n)
        if not point.finite:
            raise InvalidInput(
                f"At x0 the objective is {float(f.detach()):g}, rows {[float(c) for c in torch.cat([g_M, h_E])]}; "
                "they and their gradients must be finite. Start elsewhere."
            )
        size = float(np.abs(point.gradient_n).max())
        sizes_C = np.linalg.norm(point.jacobian_Cn, axis=1)
        self.f_scale = size if size > _FLAT else 1.0
        self.c_scale_C = np.where(sizes_C > _FLAT, sizes_C, 1.0)
        return self.at(start_n)

    def _bounds(self, bounds: tuple[Tensor | float | None, Tensor | float | None] | None) -> tuple[Floats, Floats]:
        low, high = bounds if bounds is not None else (None, None)
        sides = []
        for value, default in ((low, -np.inf), (high, np.inf)):
            given = torch.as_tensor(default if value is None else value, dtype=torch.float64).detach().cpu()
            try:
                sides.append(given.broadcast_to(self.like.shape).numpy().ravel().copy())
            except RuntimeError as cause:
                raise InvalidInput(
                    f"A bound has shape {tuple(given.shape)}, x0 {tuple(self.like.shape)}; wanted one number, or as "
                    "many as x0 has."
                ) from cause
        crossed = ~(sides[0] <= sides[1])
        if crossed.any():
            i = int(crossed.argmax())
            raise InvalidInput(
                f"Bounds of variable {i} are {sides[0][i]:g} and {sides[1][i]:g}; wanted lower <= upper."
            )
        return sides[0], sides[1]

    def _rows(self, name: str, function: Function | None, x: Tensor) -> Tensor:
        if function is None:
            return x.new_zeros(0)
        rows = function(x)
        if not isinstance(rows, Tensor) or rows.ndim > 1:
            found = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise InvalidInput(f"`{name}` gave {found}; wanted a tensor of one row of values.")
        return rows.reshape(-1)

    def _tensor(self, x_n: Floats) -> Tensor:
        return torch.from_numpy(x_n.copy()).reshape(self.like.shape).to(self.like.device)
