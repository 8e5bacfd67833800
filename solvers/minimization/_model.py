"""Second derivatives, kept where they do not change: those of a quadratic objective with affine rows.

Axes: n variables, C rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ._point import Floats, Point


class Model:
    """The Hessian of the Lagrangian at the last point, handed out again while gradients move as it says.

    hessian: x_n and the weights of the rows to (n, n).
    """

    def __init__(self, hessian: Callable[[Floats, Floats], Floats]) -> None:
        self.hessian, self.hessian_nn = hessian, np.zeros((0, 0))
        self.seen: Point | None = None
        self.quadratic = False

    def at(self, point: Point, weight_C: Floats) -> Floats:
        """Return the second derivatives of ``f + weight . c``; RuntimeError if there are none."""
        self.quadratic = self.seen is not None and self._foretold(self.seen, point)
        if not self.quadratic:
            self.hessian_nn = self.hessian(point.x_n, weight_C)
            self.seen = point
        return self.hessian_nn

    def _foretold(self, old: Point, new: Point) -> bool:
        moved_n, bent = new.x_n - old.x_n, float(np.abs(new.jacobian_Cn - old.jacobian_Cn).max(initial=0.0))
        if not moved_n.any() or bent > 1e-12 * float(np.abs(old.jacobian_Cn).max(initial=0.0)):
            return False
        turned_n = new.gradient_n - old.gradient_n
        size = float(np.linalg.norm(turned_n)) + 1e-3 * float(np.linalg.norm(new.gradient_n))
        return float(np.linalg.norm(turned_n - self.hessian_nn @ moved_n)) <= 1e-9 * size
