"""What is known of a scaled problem at one point.  Axes: n variables, M inequalities, E equalities, C = M + E rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Point:
    """Values and gradients at x_n, scaled: f, its gradient, rows c_C (inequalities first) and their Jacobian."""

    x_n: Floats
    f: float
    gradient_n: Floats
    c_C: Floats
    jacobian_Cn: Floats

    def divided(self, f_scale: float, c_scale_C: Floats) -> Point:
        """Return the same point of the problem divided by these sizes."""
        gradient_n, jacobian_Cn = self.gradient_n / f_scale, self.jacobian_Cn / c_scale_C[:, None]
        return Point(self.x_n, self.f / f_scale, gradient_n, self.c_C / c_scale_C, jacobian_Cn)

    @property
    def finite(self) -> bool:
        """Whether all of it is."""
        parts = (self.gradient_n, self.c_C, self.jacobian_Cn)
        return bool(np.isfinite(self.f)) and all(bool(np.isfinite(part).all()) for part in parts)


def weights(lambda_C: Floats, c_C: Floats, rho: float, M: int) -> Floats:
    """Return multipliers after a step, the weights of the rows' gradients: ``relu(lambda + rho g)``, ``mu + rho h``."""
    moved_C = lambda_C + rho * c_C
    moved_C[:M] = moved_C[:M].clip(min=0)
    return moved_C
