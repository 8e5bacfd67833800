"""Values and derivatives at a point, scaled; second derivatives are kept while they stay the same.

Axes: n variables, C rows, inequalities first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._user_functions import Floats

REUSED = 1e-6  # motion, in units of 1 + |x|, over which differences of gradients are handed out again


@dataclass(frozen=True)
class ScaledPoint:
    """Values and gradients at a point, scaled.

    Attributes:
        x_n: The point, shape (n,).
        f: Objective.
        gradient_n: Its gradient, shape (n,).
        c_C: Rows, inequalities first, shape (C,).
        jacobian_Cn: Their gradients, shape (C, n).
    """

    x_n: Floats
    f: float
    gradient_n: Floats
    c_C: Floats
    jacobian_Cn: Floats

    def divide(self, f_scale: float, c_scale_C: Floats) -> ScaledPoint:
        """Return the same point of the problem divided by these sizes."""
        gradient_n, jacobian_Cn = self.gradient_n / f_scale, self.jacobian_Cn / c_scale_C[:, None]
        return ScaledPoint(self.x_n, self.f / f_scale, gradient_n, self.c_C / c_scale_C, jacobian_Cn)

    def multiply(self, f_scale: float, c_scale_C: Floats) -> ScaledPoint:
        """Return the same point of the problem multiplied by these sizes."""
        gradient_n, jacobian_Cn = self.gradient_n * f_scale, self.jacobian_Cn * c_scale_C[:, None]
        return ScaledPoint(self.x_n, self.f * f_scale, gradient_n, self.c_C * c_scale_C, jacobian_Cn)

    def lagrangian_gradient(self, weight_C: Floats) -> Floats:
        """Return ``grad f + J' weight``."""
        gradient_n: Floats = self.gradient_n + self.jacobian_Cn.T @ weight_C
        return gradient_n

    @property
    def finite(self) -> bool:
        """Whether all of it is."""
        parts = (self.gradient_n, self.c_C, self.jacobian_Cn)
        return bool(np.isfinite(self.f)) and all(bool(np.isfinite(part).all()) for part in parts)

    @property
    def length(self) -> float:
        """``1 + |x|``, largest entry: the unit of steps."""
        return 1 + float(np.abs(self.x_n).max())


class HessianCache:
    """The Hessian of the Lagrangian at the last point, handed out again while gradients move as it says.

    That is so for a quadratic objective with affine rows.  compute: x_n and the weights of the rows to (n, n).
    """

    def __init__(self, compute: Callable[[Floats, Floats], Floats]) -> None:
        self.compute, self.hessian_nn = compute, np.zeros((0, 0))
        self.last: ScaledPoint | None = None
        self.last_C = np.zeros(0)
        self.quadratic = self.rough = False

    def hessian(self, point: ScaledPoint, weight_C: Floats) -> Floats:
        """Return the second derivatives of ``f + weight . c``; RuntimeError if there are none."""
        self.quadratic = self.last is not None and self._predicts(self.last, point)
        if not self.quadratic and not self._is_near(point, weight_C):
            self.hessian_nn = self.compute(point.x_n, weight_C)
            self.last, self.last_C = point, weight_C
        return self.hessian_nn

    def _is_near(self, point: ScaledPoint, weight_C: Floats) -> bool:
        """Say whether differences, which cost n gradients, are as good as they get already."""
        if not self.rough or self.last is None:
            return False
        moved_n, turned_C = np.abs(point.x_n - self.last.x_n), np.abs(weight_C - self.last_C)
        near = REUSED * (1 + np.abs(point.x_n))
        return bool((moved_n <= near).all() and (turned_C <= REUSED * (1 + np.abs(weight_C))).all())

    def _predicts(self, old: ScaledPoint, new: ScaledPoint) -> bool:
        step_n, bent = new.x_n - old.x_n, float(np.abs(new.jacobian_Cn - old.jacobian_Cn).max(initial=0.0))
        if not step_n.any() or bent > 1e-12 * float(np.abs(old.jacobian_Cn).max(initial=0.0)):
            return False
        change_n, predicted_n = new.gradient_n - old.gradient_n, self.hessian_nn @ step_n
        # entry by entry: a steep variable hides how others curve
        parts_n = np.abs(self.hessian_nn) @ (np.abs(old.x_n) + np.abs(new.x_n))
        rounding_n = 10 * float(np.finfo(np.float64).eps) * (parts_n + np.abs(new.gradient_n))
        return bool((np.abs(change_n - predicted_n) <= 1e-9 * np.abs(change_n) + rounding_n).all())
