"""A problem as its solver sees it: float64 vectors, scaled, every gradient by automatic differentiation.

Rows and objective are divided by the size of their gradients near the start, so that multiplying one of them by a
thousand changes nothing but its multiplier.  Signs: ``solvers.lagrangian``.
Axes: n variables, M inequalities, E equalities, C = M + E rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...kkt import KKTResiduals, kkt_residuals
from ...lagrangian import equality_weights, inequality_weights, penalty_term
from ._check_derivatives import check_hessian, moves
from ._derivatives import compute_jacobian, difference_gradients, weighted_gradient
from ._limits import SearchLimits
from ._scaled_point import HessianCache, ScaledPoint
from ._user_functions import Bounds, Function, StartNotFinite, UserFunctions, read_variable_bounds
from ._variable_units import choose_units

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ScalingSettings:
    """How gradients are measured for scaling, and second derivatives checked.

    ``tests/solvers/minimization/test_minimize_verdicts.py`` (units, sizes, functions differentiated once) notices them.

    Attributes:
        dense_variables: Variables up to which second derivatives are held in full, (n, n).
        difference_variables: Variables up to which differences of gradients stand in for second derivatives.
        difference_asymmetry: Share of the largest difference by which two that should be equal may differ.
        checked_hessians: How many Hessians are compared with differences of gradients.
        near: How far from a point, in units of 1 + |x|, one looks whether a gradient vanishes only there.
        vanished: Sizes below, in the user's units, are never taken at one point alone.
        vanishing: A gradient counts as vanishing at a point where it is this much larger that near.
    """

    dense_variables: int = 2000
    difference_variables: int = 60
    difference_asymmetry: float = 0.1
    checked_hessians: int = 1
    near: float = 1e-2
    vanished: float = 1e-3
    vanishing: float = 3.0


SETTINGS = ScalingSettings()


class ScaledProblem:
    """``min f  s.t.  g <= 0, h = 0, lower <= x <= upper``, evaluated at flat float64 vectors.

    Each variable is in a unit of its own: ``x = unit * x_n``; with ``own_units=False`` in the user's.
    evaluations counts points at which the functions were called, hessians those of second derivatives in full.
    Raises InvalidInput if values at x0 have the wrong shape or are not finite.
    """

    def __init__(
        self,
        objective: Function,
        x0: Tensor,
        inequality: Function | None,
        equality: Function | None,
        bounds: Bounds,
        *,
        own_units: bool = True,
        warm: bool = False,
    ) -> None:
        self.functions = UserFunctions(objective, inequality, equality, x0)
        self.limits = SearchLimits()
        self.hessians, self.smooth, self.by_differences = 0, True, False
        self.hides_curvature: bool | None = None
        self.second = HessianCache(self.hessian)
        self.near: ScaledPoint | None = None
        self.lower_n, self.upper_n = read_variable_bounds(bounds, x0)
        start_n = self.clip(x0.detach().double().cpu().numpy().ravel())
        f, g_M, h_E = self.functions.evaluate_start(self.to_tensor(start_n))
        self.M, self.f_scale, self.c_scale_C = len(g_M), 1.0, np.ones(len(g_M) + len(h_E))
        self.unit_n = self.functions.unit_n
        point = self.evaluate(start_n)
        if not point.finite:
            raise StartNotFinite(
                f"At x0 the objective is {float(f.detach()):g}, rows {[float(c) for c in torch.cat([g_M, h_E])]}; "
                "they and their gradients must be finite. Start elsewhere."
            )
        self.start = point
        if own_units:
            point = self._take_units(point)
        self.f_scale, self.c_scale_C = self.measure_sizes(point, here=warm)
        self.start, near = point.divide(self.f_scale, self.c_scale_C), self.near
        self.near = None if near is None else near.divide(self.f_scale, self.c_scale_C)

    def _take_units(self, point: ScaledPoint) -> ScaledPoint:
        """Measure each variable in a unit of its own from now on; return the point in these units."""
        no_rows_C = np.zeros(len(self.c_scale_C))
        unit_n = choose_units(
            point.x_n, self.lower_n, self.upper_n, point.gradient_n, lambda: self.hessian(point.x_n, no_rows_C)
        )
        self.unit_n = self.functions.unit_n = unit_n
        self.lower_n, self.upper_n = self.lower_n / unit_n, self.upper_n / unit_n
        x_n, gradient_n, jacobian_Cn = point.x_n / unit_n, point.gradient_n * unit_n, point.jacobian_Cn * unit_n
        return ScaledPoint(x_n, point.f, gradient_n, point.c_C, jacobian_Cn)

    def evaluate(self, x_n: Floats) -> ScaledPoint:
        """Evaluate everything, scaled."""
        self.limits.spend()
        x = self.to_tensor(x_n).requires_grad_()
        f, g_M, h_E = self.functions(x)
        gradient_n = weighted_gradient([f], [f.new_ones(())], x).reshape(-1).double().cpu().numpy()
        c_C = torch.cat([g_M, h_E])
        jacobian_Cn = compute_jacobian(c_C, x).cpu().numpy()
        unscaled = ScaledPoint(x_n.copy(), float(f.detach()), gradient_n, _to_array(c_C), jacobian_Cn)
        point = unscaled.divide(self.f_scale, self.c_scale_C)
        self.limits.remember(x_n, unscaled.f, self.violations(point.c_C))
        return point

    def evaluate_within(self, x_n: Floats) -> ScaledPoint:
        """Evaluate everything at the nearest point within the bounds."""
        return self.evaluate(self.clip(x_n))

    def evaluate_values(self, x_n: Floats) -> tuple[float, Floats]:
        """Return f and the rows, scaled, without gradients."""
        self.limits.spend()
        with torch.no_grad():
            f, g_M, h_E = self.functions(self.to_tensor(x_n))
        c_C = _to_array(torch.cat([g_M, h_E])) / self.c_scale_C
        self.limits.remember(x_n, float(f), self.violations(c_C))
        return float(f) / self.f_scale, c_C

    def row_weights(self, lambda_C: Floats, c_C: Floats, rho: float) -> Floats:
        """Return the weights of the rows' gradients, which are the multipliers after a step of length rho."""
        M = self.M
        parts = inequality_weights(lambda_C[:M], c_C[:M], rho), equality_weights(lambda_C[M:], c_C[M:], rho)
        return np.concatenate(parts)

    def augmented_lagrangian(self, point: ScaledPoint, lambda_C: Floats, rho: float) -> float:
        """Return the augmented Lagrangian, the merit function of the method, at a point that was evaluated."""
        return point.f + penalty_term(lambda_C, self.row_weights(lambda_C, point.c_C, rho), rho)

    def evaluate_augmented(self, x_n: Floats, lambda_C: Floats, rho: float) -> tuple[float, Floats]:
        """Return the augmented Lagrangian and its gradient: one pass forward, one back, whatever the number of rows."""
        self.limits.spend()
        x = self.to_tensor(x_n).requires_grad_()
        f, g_M, h_E = self.functions(x)
        c_C = torch.cat([g_M, h_E])
        scaled_C = _to_array(c_C) / self.c_scale_C
        self.limits.remember(x_n, float(f.detach()), self.violations(scaled_C))
        weight_C = self.row_weights(lambda_C, scaled_C, rho)
        factors = [f.new_tensor(1 / self.f_scale, dtype=torch.float64), torch.from_numpy(weight_C / self.c_scale_C)]
        gradient_n = weighted_gradient([f, c_C], factors, x)
        value = float(f.detach()) / self.f_scale + penalty_term(lambda_C, weight_C, rho)
        return value, _to_array(gradient_n)

    def hessian(self, x_n: Floats, weight_C: Floats, *, f_weight: float = 1.0) -> Floats:
        """Return the second derivatives of ``f_weight f + weight . c``, scaled, (n, n).

        Raises RuntimeError if the functions cannot be differentiated twice.
        """
        self.hessians += 1
        if self.hides_curvature is None:
            self.hides_curvature = self._hides_curvature(x_n)
            if self.hides_curvature:
                self.by_differences = self.second.rough = True
        if self.by_differences:
            if len(x_n) > SETTINGS.difference_variables:
                raise RuntimeError("the functions can be differentiated once")
            return self._hessian_by_differences(x_n, weight_C, f_weight)
        try:
            return self._hessian_by_autograd(x_n, weight_C, f_weight)
        except RuntimeError:
            if len(x_n) > SETTINGS.difference_variables:
                raise
        self.by_differences = self.second.rough = True  # what failed once is not asked again
        return self._hessian_by_differences(x_n, weight_C, f_weight)

    def _hessian_by_autograd(self, x_n: Floats, weight_C: Floats, f_weight: float) -> Floats:
        x, gradient_n = self._weighted_gradient(x_n, weight_C, f_weight, create_graph=True)
        hessian_nn: Floats = compute_jacobian(gradient_n, x).cpu().numpy()
        hessian_nn = (hessian_nn + hessian_nn.T) / 2
        if self.hessians <= SETTINGS.checked_hessians:

            def gradient(at_n: Floats) -> Floats:
                self.limits.spend()
                return _to_array(self._weighted_gradient(at_n, weight_C, f_weight, create_graph=False)[1])

            # gradients of f and of the rows cancel, their rounding stays; scaled ones were 1 at the start
            canceled = f_weight + float(np.abs(weight_C).sum()) if weight_C.any() else 0.0
            check_hessian(
                hessian_nn, x_n, _to_array(gradient_n), gradient, self.clip, self.functions.rounding, canceled
            )
        return hessian_nn

    def _hides_curvature(self, x_n: Floats) -> bool | None:
        """Say whether f or the rows have gradients without a graph that move all the same: differentiable once.

        None where no second point is known so far.
        """
        x = self.to_tensor(x_n).requires_grad_()
        f, g_M, h_E = self.functions(x)
        parts = [f.reshape(1) / self.f_scale, torch.cat([g_M, h_E]) / torch.from_numpy(self.c_scale_C)]
        graphs = [weighted_gradient([p], [torch.ones_like(p)], x, create_graph=True).requires_grad for p in parts]
        if all(graphs):
            return False
        other = self.near or (None if np.array_equal(x_n, self.start.x_n) else self.start)
        if other is None or not other.finite:
            return None
        here = [compute_jacobian(part, x).cpu().numpy() for part in parts]
        there = [other.gradient_n[None], other.jacobian_Cn]
        return any(moves(a, b) for a, b, graph in zip(here, there, graphs, strict=True) if not graph)

    def _hessian_by_differences(self, x_n: Floats, weight_C: Floats, f_weight: float) -> Floats:
        """Return differences of gradients, one a variable; RuntimeError where they do not fit together: a kink."""

        def gradient(at_n: Floats) -> Floats:
            self.limits.spend()
            return _to_array(self._weighted_gradient(at_n, weight_C, f_weight, create_graph=False)[1])

        step = self.functions.rounding**0.5
        return difference_gradients(gradient, x_n, self.lower_n, self.upper_n, step, SETTINGS.difference_asymmetry)

    def _weighted_gradient(
        self, x_n: Floats, weight_C: Floats, f_weight: float, *, create_graph: bool
    ) -> tuple[Tensor, Tensor]:
        """Return x and the gradient there of ``f_weight f + weight . c``, scaled."""
        x = self.to_tensor(x_n).requires_grad_()
        f, g_M, h_E = self.functions(x)
        factors = [f.new_tensor(f_weight / self.f_scale), torch.from_numpy(weight_C / self.c_scale_C)]
        return x, weighted_gradient([f, torch.cat([g_M, h_E])], factors, x, create_graph=create_graph).reshape(-1)

    @property
    def evaluations(self) -> int:
        """How often the functions were called."""
        return self.limits.used

    @property
    def has_second_derivatives(self) -> bool:
        """Whether second derivatives can be had in full, as far as is known."""
        return self.smooth and len(self.lower_n) <= SETTINGS.dense_variables

    def rescale(self, f_scale: float, c_scale_C: Floats) -> None:
        """Divide by other sizes from now on; points and multipliers from before do not fit any more."""
        f_factor, c_factor_C = self.f_scale / f_scale, self.c_scale_C / c_scale_C
        self.f_scale, self.c_scale_C, self.second = f_scale, c_scale_C, HessianCache(self.hessian)
        self.start = self.start.multiply(f_factor, c_factor_C)
        self.near = None
        self.second.rough = self.by_differences

    def measure_sizes(self, point: ScaledPoint, *, here: bool = False) -> tuple[float, Floats]:
        """Return the size of the gradient of f (largest entry) and of each row (length), unscaled, around a point.

        A gradient that vanishes at the point, as the sizes a hundredth from there tell, is taken from further out.
        ``here``: one that does not is taken for the size, which saves a point; the verdict measures again.
        """
        sizes, draw = self.gradient_sizes(point), np.random.default_rng(0).uniform(-1, 1, len(point.x_n))
        vanishing = np.zeros(len(sizes), dtype=bool)
        if not here or not (sizes > SETTINGS.vanished).all():
            near = self._sizes_elsewhere(point.x_n + SETTINGS.near * (1 + np.abs(point.x_n)) * draw, sizes)
            vanishing = near > SETTINGS.vanishing * sizes
            sizes = np.maximum(sizes, near)
            vanishing |= sizes == 0
        if vanishing.any():
            far = self._sizes_elsewhere(point.x_n + (1 + np.abs(point.x_n)) * draw, sizes)
            # what grows faster than x^2 is not followed
            far = np.where(near > 0, np.minimum(far, near / SETTINGS.near), far)
            sizes = np.where(vanishing, np.maximum(sizes, far), sizes)
        c_C = np.abs(point.c_C * self.c_scale_C)
        flat = np.concatenate([[1.0], np.where(c_C > 0, c_C, 1.0)])  # rows that do not depend on x count by their value
        sizes = np.where(sizes > 0, sizes, flat)
        return float(sizes[0]), sizes[1:]

    def _sizes_elsewhere(self, x_n: Floats, otherwise: Floats) -> Floats:
        point = self.evaluate_within(x_n)
        if self.near is None:
            self.near = point
        return self.gradient_sizes(point) if point.finite else otherwise

    def gradient_sizes(self, point: ScaledPoint) -> Floats:
        """Return the sizes of the gradients of f and of the rows at a point, (1 + C,), unscaled."""
        c_sizes_C = np.linalg.norm(point.jacobian_Cn, axis=1) * self.c_scale_C
        return np.concatenate([[float(np.abs(point.gradient_n).max()) * self.f_scale], c_sizes_C])

    def unscale_multipliers(self, lambda_C: Floats) -> Floats:
        """Return multipliers in units of f a unit of constraint."""
        unscaled_C: Floats = lambda_C * self.f_scale / self.c_scale_C
        return unscaled_C

    def scale_multipliers(self, unscaled_C: Floats) -> Floats:
        """Return multipliers of the scaled problem from those in the user's units."""
        lambda_C: Floats = unscaled_C * self.c_scale_C / self.f_scale
        return lambda_C

    def residuals(self, point: ScaledPoint, lambda_C: Floats, *, scaled: bool = False) -> KKTResiduals:
        """Return the residuals of the problem as stated, or scaled; active bounds get the multiplier they need."""
        if not scaled:
            point, lambda_C = point.multiply(self.f_scale, self.c_scale_C), self.unscale_multipliers(lambda_C)
            gradient_n, jacobian_Cn = point.gradient_n / self.unit_n, point.jacobian_Cn / self.unit_n
            point = ScaledPoint(point.x_n, point.f, gradient_n, point.c_C, jacobian_Cn)
        gradient_n = point.lagrangian_gradient(lambda_C)
        M, as_tensor = self.M, torch.from_numpy
        # all bounds that hold x back, as one more row: its gradient is what they take from the Lagrangian's
        held_1n = (self.project_gradient(gradient_n, point.x_n) - gradient_n)[None]
        return kkt_residuals(
            as_tensor(point.gradient_n),
            jacobian_Mn=as_tensor(point.jacobian_Cn[:M]),
            g_M=as_tensor(point.c_C[:M]),
            lambda_M=as_tensor(lambda_C[:M]),
            jacobian_En=as_tensor(np.concatenate([point.jacobian_Cn[M:], held_1n])),
            h_E=as_tensor(np.append(point.c_C[M:], 0.0)),
            mu_E=as_tensor(np.append(lambda_C[M:], 1.0)),
        )

    def project_gradient(self, gradient_n: Floats, x_n: Floats) -> Floats:
        """Return the part of a gradient that bounds do not hold back."""
        projected_n: Floats = np.where(self.free_variables(gradient_n, x_n), gradient_n, 0.0)
        return projected_n

    def free_variables(self, gradient_n: Floats, x_n: Floats) -> Mask:
        """Say which variables can go down a gradient without leaving their bounds at once."""
        low_n, high_n = self.on_bounds(x_n)
        free_n: Mask = ~((low_n & (gradient_n > 0)) | (high_n & (gradient_n < 0)))
        return free_n

    def on_bounds(self, x_n: Floats) -> tuple[Mask, Mask]:
        """Say which variables are on their lower, on their upper bound."""
        return x_n <= self.lower_n, x_n >= self.upper_n

    def clip(self, x_n: Floats) -> Floats:
        """Return the nearest point within the bounds."""
        inside_n: Floats = np.clip(x_n, self.lower_n, self.upper_n)
        return inside_n

    def violations(self, c_C: Floats) -> Floats:
        """Return what each scaled row is missed by: ``max(g, 0)`` and ``h``."""
        return np.concatenate([c_C[: self.M].clip(min=0), c_C[self.M :]])

    def largest_violation(self, point: ScaledPoint) -> float:
        """Return the largest violation of the scaled rows at a point."""
        return float(np.abs(self.violations(point.c_C)).max(initial=0.0))

    def to_tensor(self, x_n: Floats) -> Tensor:
        """Return x as the problem's functions take it."""
        return self.functions.to_tensor(x_n)


def _to_array(values: Tensor) -> Floats:
    array: Floats = values.detach().reshape(-1).double().cpu().numpy()
    return array
