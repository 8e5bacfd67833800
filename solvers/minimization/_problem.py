"""A problem as its solver sees it: float64 vectors, scaled, every gradient by automatic differentiation.

Rows and objective are divided by the size of their gradients near the start, so that multiplying one of them by a
thousand changes nothing but its multiplier.  Axes: n variables, M inequalities, E equalities, C = M + E rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..kkt import KKTResiduals, kkt_residuals
from ._derivatives import jacobian, weighed_gradient
from ._inputs import Bounds, Function, Functions, StartNotFinite, box
from ._model import Model
from ._point import Floats, Mask, Point, weights

_CHECKED, _ROUGH = 3, 0.1  # how many Hessians are compared with a difference, and how closely
_NEAR = 1e-2  # how far from a point, in units of 1 + |x|, one looks whether a gradient vanishes only there


class Problem:
    """``min f  s.t.  g <= 0, h = 0, lower <= x <= upper``, evaluated at flat float64 vectors.

    evaluations counts points at which the functions were called, hessians those of second derivatives in full.
    Raises InvalidInput if values at x0 have the wrong shape or are not finite.
    """

    def __init__(
        self, objective: Function, x0: Tensor, inequality: Function | None, equality: Function | None, bounds: Bounds
    ) -> None:
        self.functions = Functions(objective, inequality, equality, x0)
        self.evaluations, self.hessians, self.smooth = 0, 0, True
        self.model = Model(self.hessian)
        self.lower_n, self.upper_n = box(bounds, x0)
        start_n = np.clip(x0.detach().double().cpu().numpy().ravel(), self.lower_n, self.upper_n)
        f, g_M, h_E = self.functions.first(self.tensor(start_n))
        self.M, self.f_scale, self.c_scale_C = len(g_M), 1.0, np.ones(len(g_M) + len(h_E))
        point = self.at(start_n)
        if not point.finite:
            raise StartNotFinite(
                f"At x0 the objective is {float(f.detach()):g}, rows {[float(c) for c in torch.cat([g_M, h_E])]}; "
                "they and their gradients must be finite. Start elsewhere."
            )
        self.f_scale, self.c_scale_C = self.sizes(point)
        self.start = point.divided(self.f_scale, self.c_scale_C)

    def at(self, x_n: Floats) -> Point:
        """Evaluate everything, scaled."""
        self.evaluations += 1
        x = self.tensor(x_n).requires_grad_()
        f, g_M, h_E = self.functions(x)
        gradient_n = weighed_gradient([f], [f.new_ones(())], x).reshape(-1).double().cpu().numpy()
        c_C = torch.cat([g_M, h_E])
        jacobian_Cn = jacobian(c_C, x).cpu().numpy()
        return Point(
            x_n.copy(),
            float(f.detach()) / self.f_scale,
            gradient_n / self.f_scale,
            _flat(c_C) / self.c_scale_C,
            jacobian_Cn / self.c_scale_C[:, None],
        )

    def values(self, x_n: Floats) -> tuple[float, Floats]:
        """Return f and the rows, scaled, without gradients."""
        self.evaluations += 1
        with torch.no_grad():
            f, g_M, h_E = self.functions(self.tensor(x_n))
        return float(f) / self.f_scale, _flat(torch.cat([g_M, h_E])) / self.c_scale_C

    def augmented(self, x_n: Floats, lambda_C: Floats, rho: float) -> tuple[float, Floats]:
        """Return the augmented Lagrangian and its gradient: one pass forward, one back, whatever the number of rows."""
        self.evaluations += 1
        x = self.tensor(x_n).requires_grad_()
        f, g_M, h_E = self.functions(x)
        c_C = torch.cat([g_M, h_E])
        scaled_C = _flat(c_C) / self.c_scale_C
        weight_C = weights(lambda_C, scaled_C, rho, self.M)
        pull = [f.new_tensor(1 / self.f_scale, dtype=torch.float64), torch.from_numpy(weight_C / self.c_scale_C)]
        slope_n = weighed_gradient([f, c_C], pull, x)
        value = float(f.detach()) / self.f_scale + float((weight_C**2 - lambda_C**2).sum()) / (2 * rho)
        return value, _flat(slope_n)

    def hessian(self, x_n: Floats, weight_C: Floats, *, f_weight: float = 1.0) -> Floats:
        """Return the second derivatives of ``f_weight f + weight . c``, scaled, (n, n).

        Raises RuntimeError if the functions cannot be differentiated twice.
        """
        self.hessians += 1
        x, slope_n = self._slope(x_n, weight_C, f_weight, again=True)
        found: Floats = jacobian(slope_n, x).cpu().numpy()
        found = (found + found.T) / 2
        if self.hessians <= _CHECKED:
            self._check(found, x_n, _flat(slope_n), weight_C, f_weight)
        return found

    def _slope(self, x_n: Floats, weight_C: Floats, f_weight: float, *, again: bool) -> tuple[Tensor, Tensor]:
        """Return x and the gradient there of ``f_weight f + weight . c``, scaled."""
        x = self.tensor(x_n).requires_grad_()
        f, g_M, h_E = self.functions(x)
        pull = [f.new_tensor(f_weight / self.f_scale), torch.from_numpy(weight_C / self.c_scale_C)]
        return x, weighed_gradient([f, torch.cat([g_M, h_E])], pull, x, again=again).reshape(-1)

    def _check(self, hessian_nn: Floats, x_n: Floats, slope_n: Floats, weight_C: Floats, f_weight: float) -> None:
        """Compare with a difference: a function of one's own that can be differentiated once may hand out zeros."""
        digits, draw = self.functions.digits, np.random.default_rng(0).uniform(-1, 1, len(x_n))
        for part in (1.0, 3e-2, 1e-3):  # what is only bent agrees over shorter steps
            stride = part * digits ** (1 / 3) * (1 + float(np.abs(x_n).max()))
            moved_n = np.clip(x_n + stride * draw, self.lower_n, self.upper_n) - x_n
            turned_n = _flat(self._slope(x_n + moved_n, weight_C, f_weight, again=False)[1]) - slope_n
            foretold_n = hessian_nn @ moved_n
            slack = _ROUGH * float(np.abs(turned_n).max() + np.abs(foretold_n).max()) + 1e-4 * stride
            slack += 100 * digits * float(np.abs(slope_n).max())
            if not float(np.abs(turned_n - foretold_n).max()) > slack:  # a NaN says nothing
                return
        raise RuntimeError("second derivatives are not those of the gradient")

    def rescale(self, f_scale: float, c_scale_C: Floats) -> None:
        """Divide by other sizes from now on; points and multipliers from before do not fit any more."""
        self.f_scale, self.c_scale_C, self.model = f_scale, c_scale_C, Model(self.hessian)

    def sizes(self, point: Point) -> tuple[float, Floats]:
        """Return the size of the gradient of f (largest entry) and of each row (length), unscaled, around a point.

        A gradient that vanishes at the point, as the sizes a hundredth from there tell, is taken from further out.
        """
        here, draw = self._sizes(point), np.random.default_rng(0).uniform(-1, 1, len(point.x_n))
        reach = 1 + float(np.abs(point.x_n).max())
        near = self._sizes_at(point.x_n + _NEAR * reach * draw, here)
        found = np.maximum(here, near)
        if (near > 3 * here).any() or (found == 0).any():
            far = self._sizes_at(point.x_n + reach * draw, found)
            vanishing = (near > 3 * here) | (found == 0)
            far = np.where(near > 0, np.minimum(far, near / _NEAR), far)  # what grows faster than x^2 is not followed
            found = np.where(vanishing, np.maximum(found, far), found)
        c_C = np.abs(point.c_C * self.c_scale_C)
        flat = np.concatenate([[1.0], np.where(c_C > 0, c_C, 1.0)])  # rows that do not depend on x count by their value
        found = np.where(found > 0, found, flat)
        return float(found[0]), found[1:]

    def _sizes_at(self, x_n: Floats, otherwise: Floats) -> Floats:
        point = self.at(np.clip(x_n, self.lower_n, self.upper_n))
        return self._sizes(point) if point.finite else otherwise

    def _sizes(self, point: Point) -> Floats:
        """Return the sizes of the gradients of f and of the rows at a point, (1 + C,), unscaled."""
        c_sizes_C = np.linalg.norm(point.jacobian_Cn, axis=1) * self.c_scale_C
        return np.concatenate([[float(np.abs(point.gradient_n).max()) * self.f_scale], c_sizes_C])

    def user_multipliers(self, lambda_C: Floats) -> Floats:
        """Return multipliers in units of f a unit of constraint."""
        found: Floats = lambda_C * self.f_scale / self.c_scale_C
        return found

    def scaled_multipliers(self, price_C: Floats) -> Floats:
        """Return multipliers of the scaled problem from those in the user's units."""
        found: Floats = price_C * self.c_scale_C / self.f_scale
        return found

    def residuals(self, point: Point, lambda_C: Floats, *, scaled: bool = False) -> KKTResiduals:
        """Return the residuals of the problem as stated, or scaled; active bounds get the multiplier they need."""
        gradient_n, c_C, jacobian_Cn, price_C = point.gradient_n, point.c_C, point.jacobian_Cn, lambda_C
        if not scaled:
            gradient_n, c_C = gradient_n * self.f_scale, c_C * self.c_scale_C
            jacobian_Cn, price_C = jacobian_Cn * self.c_scale_C[:, None], self.user_multipliers(lambda_C)
        slope_n = gradient_n + jacobian_Cn.T @ price_C
        M, as_tensor = self.M, torch.from_numpy
        # all bounds that hold x back, as one more row: its gradient is what they take from the slope
        held_1n = (self.projected(slope_n, point.x_n) - slope_n)[None]
        return kkt_residuals(
            as_tensor(gradient_n),
            jacobian_Mn=as_tensor(jacobian_Cn[:M]),
            g_M=as_tensor(c_C[:M]),
            lambda_M=as_tensor(price_C[:M]),
            jacobian_En=as_tensor(np.concatenate([jacobian_Cn[M:], held_1n])),
            h_E=as_tensor(np.append(c_C[M:], 0.0)),
            mu_E=as_tensor(np.append(price_C[M:], 1.0)),
        )

    def projected(self, slope_n: Floats, x_n: Floats) -> Floats:
        """Return the part of a slope that bounds do not hold up."""
        low_n, high_n = self.on_bounds(x_n)
        free_n: Floats = np.where((low_n & (slope_n > 0)) | (high_n & (slope_n < 0)), 0.0, slope_n)
        return free_n

    def on_bounds(self, x_n: Floats) -> tuple[Mask, Mask]:
        """Say which variables stand on their lower, on their upper bound."""
        return x_n <= self.lower_n, x_n >= self.upper_n

    def missed(self, c_C: Floats) -> Floats:
        """Return what each scaled row is missed by: ``max(g, 0)`` and ``h``."""
        return np.concatenate([c_C[: self.M].clip(min=0), c_C[self.M :]])

    def tensor(self, x_n: Floats) -> Tensor:
        """Return x as the problem's functions take it."""
        return self.functions.tensor(x_n)


def _flat(values: Tensor) -> Floats:
    found: Floats = values.detach().reshape(-1).double().cpu().numpy()
    return found
