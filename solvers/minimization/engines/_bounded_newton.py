"""Problems with bounds only: Newton's method in a trust region, with negative curvature, within bounds.

    minimize  g . d + 1/2 d . H d    over    |D d| <= radius,   lower <= x + d <= upper

D evens out variables of different curvature (Moré 1978).  Over the free variables the subproblem is solved exactly, by
eigenvalues, so that a saddle is walked down along its negative curvature; variables that would leave their bounds are
then held there, and the rest is solved again.  H comes from second derivatives, or from differences of gradients that
are updated in between (SR1).  It ends where neither gradient nor curvature promise more than rounding.

Source: Moré and Sorensen 1983; Conn, Gould and Toint, Trust-Region Methods, 2000.
Axes: n variables, F free ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...second_order import scale_by_curvature
from ..problem._scaled_point import ScaledPoint
from ..problem._scaled_problem import Floats, Mask, ScaledProblem


@dataclass(frozen=True)
class BoundedNewtonSettings:
    """Numbers of the trust region; ``test_minimize_bounded.py`` and ``benchmarks.minimize`` notice them.

    Attributes:
        variables: Variables up to which eigenvalues cost less than the gradients that they save.
        steps: Steps at most.
        difference_steps: Steps at most where second derivatives are differences of gradients.
        first_radii: First radii that are tried, one after the other, in units of |D max(|x|, 1)|.
        accept: Share of the predicted decrease that a step has to reach.
        poor: Share below which the radius shrinks.
        good: Share above which it may grow.
        shrink: Factor on the length of a poor step.
        grow: Errors of the ratio of actual and predicted decrease, and the factors on the radius up to them.
        keep_scale: Share of a variable's largest curvature so far that still counts for its scale.
        slight: Curvature of a variable, in units of its gradient, that counts at least.
        patience: Poor predictions, in units of n, after which differences are taken anew: they cost n gradients.
        decrease: Predicted decrease, in units of |f|, that is rounding.
        range_decrease: The same in units of how far f has fallen: where f falls to 0, digits of |f| have no end.
        least_radius: Radius, in units of the first, at which nothing is left to find.
        polishing: Steps at most that lower a gradient which is left by units.
        no_radius: A trust radius that is none.
        polished: Stationarity in the user's units that needs none.
        nearly: Factor on the tolerance within which a gradient is small where no step lowers f any more.
        plateau: Share of its curvature at the start below which a variable no longer matters.
        noise: Rounding of a gradient, in units of eps |H| |x|, up to which a gradient counts as none.
    """

    variables: int = 300
    steps: int = 1000
    difference_steps: int = 500
    first_radii: tuple[float, ...] = (0.1, 1.0, 0.01)
    accept: float = 1e-4
    poor: float = 0.25
    good: float = 0.75
    shrink: float = 0.25
    grow: tuple[tuple[float, float], ...] = ((1e-6, 1e6), (1e-2, 10.0), (math.inf, 2.5))
    keep_scale: float = 0.5
    slight: float = 1e-3
    patience: float = 0.5
    decrease: float = 1e-13
    range_decrease: float = 1e-17
    least_radius: float = 1e-14
    polishing: int = 4
    no_radius: float = 1e100
    polished: float = 1e-6
    nearly: float = 100.0
    plateau: float = 1e-18
    noise: float = 4.0


SETTINGS = BoundedNewtonSettings()
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class BoundedResult:
    """Where it ended.

    Attributes:
        point: The point.
        ended: Whether neither gradient nor curvature promise a decrease.
        unbounded: Whether it stopped far down.
        noise: Largest part of the gradient that may be rounding.
    """

    point: ScaledPoint
    ended: bool
    unbounded: bool = False
    noise: float = 0.0


class _Curvature:
    """Second derivatives: exact ones at each point, or differences, updated by SR1 until they mispredict."""

    def __init__(self, problem: ScaledProblem) -> None:
        self.problem, self.none_C = problem, np.zeros(0)
        self.hessian_nn, self.fresh, self.poor = np.zeros((0, 0)), False, 0

    def at(self, point: ScaledPoint, *, renew: bool = False) -> Floats:
        """Return H at a point; ``renew``: no longer an updated one.  Raises RuntimeError where there is none."""
        problem = self.problem
        if not problem.by_differences:
            self.hessian_nn, self.fresh = problem.second.hessian(point, self.none_C), True
        if problem.by_differences and (renew or not self.hessian_nn.size):
            self.hessian_nn, self.fresh, self.poor = problem.hessian(point.x_n, self.none_C), True, 0
        if not np.isfinite(self.hessian_nn).all():
            raise RuntimeError("second derivatives are not finite here")
        return self.hessian_nn

    def update(self, old: ScaledPoint, new: ScaledPoint) -> None:
        """Learn from a step, by the symmetric update of rank one."""
        if not self.problem.by_differences:
            return
        step_n = new.x_n - old.x_n
        off_n = new.gradient_n - old.gradient_n - self.hessian_nn @ step_n
        product = float(off_n @ step_n)
        if abs(product) > 1e-8 * float(np.linalg.norm(off_n)) * float(np.linalg.norm(step_n)):
            self.hessian_nn = self.hessian_nn + np.outer(off_n, off_n) / product
        self.fresh = False


def minimize_within_bounds(
    problem: ScaledProblem, point: ScaledPoint, tolerance: float, first_radius: float, least_f: float
) -> BoundedResult:
    """Minimize the objective within bounds, from a point; no rows.

    Args:
        problem: A problem without rows.
        point: Where to start.
        tolerance: On the scaled gradient, in each variable's own size.
        first_radius: First radius, in units of |D max(|x|, 1)|.
        least_f: Scaled objective at which it stops.

    Returns:
        Where it ended.

    Raises:
        RuntimeError: There are no second derivatives, or none that are finite.
    """
    curvature, first_f = _Curvature(problem), point.f
    hessian_nn = curvature.at(point)
    scale_n = _scales(hessian_nn, point, np.zeros_like(point.x_n))
    radius = least_radius = first_radius * float(np.linalg.norm(scale_n * np.maximum(np.abs(point.x_n), 1.0)))
    least_radius *= SETTINGS.least_radius
    steps = SETTINGS.difference_steps if problem.by_differences else SETTINGS.steps
    for _ in range(steps):
        step_n = solve_box_trust_region(problem, point, hessian_nn, scale_n, radius)
        predicted = -float(point.gradient_n @ step_n + step_n @ hessian_nn @ step_n / 2)
        noise_n = gradient_noise(hessian_nn, point.x_n)
        if _has_ended(problem, point, predicted, noise_n, tolerance, first_f):
            if curvature.fresh:
                return BoundedResult(point, ended=True, noise=float(noise_n.max()))
            hessian_nn = curvature.at(point, renew=True)
            continue
        new = problem.evaluate_within(point.x_n + step_n)
        length = float(np.linalg.norm(scale_n * step_n))
        ratio = _rate_step(problem, point, new, predicted)
        if new.finite:
            curvature.update(point, new)
        if ratio < SETTINGS.poor:
            radius = SETTINGS.shrink * length
            if not radius > least_radius and curvature.fresh:
                break
        elif ratio > SETTINGS.good and length > 0.8 * radius:
            radius *= next(factor for error, factor in SETTINGS.grow if abs(ratio - 1) <= error)
        if ratio > SETTINGS.accept:
            point = new
            if point.f < least_f:
                return BoundedResult(point, ended=False, unbounded=True)
        curvature.poor += not SETTINGS.good < ratio < 1 / SETTINGS.good
        if ratio > SETTINGS.accept or not curvature.fresh:
            stale = ratio <= SETTINGS.accept or curvature.poor > SETTINGS.patience * len(point.x_n)
            hessian_nn = curvature.at(point, renew=stale and not curvature.fresh)
            scale_n = _scales(hessian_nn, point, scale_n)
    noise_n = gradient_noise(hessian_nn, point.x_n)
    # where f changes by rounding only no step is good; a small gradient is an end all the same, to be verified
    flat = _is_flat(problem, point, noise_n, SETTINGS.nearly * tolerance)
    return BoundedResult(point, ended=flat, noise=float(noise_n.max()))


def polish(problem: ScaledProblem, point: ScaledPoint) -> ScaledPoint:
    """Return a point with a smaller gradient in the user's units, where that is still large: by Newton steps."""
    none_C = np.zeros(0)
    for _ in range(SETTINGS.polishing):
        residual = problem.residuals(point, none_C).stationarity
        if residual <= SETTINGS.polished:
            break
        hessian_nn = problem.second.hessian(point, none_C)
        scale_n = scale_by_curvature(hessian_nn)
        step_n = solve_box_trust_region(problem, point, hessian_nn, scale_n, SETTINGS.no_radius)
        new = problem.evaluate_within(point.x_n + step_n)
        if not new.finite or problem.residuals(new, none_C).stationarity > 0.5 * residual:
            break
        point = new
    return point


def gradient_noise(hessian_nn: Floats, x_n: Floats) -> Floats:
    """Return the rounding of a gradient, entry by entry: that of x, as H hands it on."""
    noise_n: Floats = SETTINGS.noise * _EPS * (np.abs(hessian_nn) @ np.abs(x_n))
    return noise_n


def _scales(hessian_nn: Floats, point: ScaledPoint, before_n: Floats) -> Floats:
    """Return D: the root of each variable's curvature, of its gradient a unit of length where that is next to none."""
    steepness_n = SETTINGS.slight * np.abs(point.gradient_n) / np.maximum(np.abs(point.x_n), 1.0)
    scale_n = np.maximum(scale_by_curvature(hessian_nn), np.sqrt(steepness_n))
    scales_n: Floats = np.maximum(scale_n, SETTINGS.keep_scale * before_n)
    return scales_n


def _has_ended(
    problem: ScaledProblem, point: ScaledPoint, predicted: float, noise_n: Floats, tolerance: float, first_f: float
) -> bool:
    """Say whether gradient and model promise no more than rounding."""
    if not _is_flat(problem, point, noise_n, tolerance):
        return False
    fallen = max(first_f - point.f, 0.0)
    return predicted <= SETTINGS.decrease * abs(point.f) + SETTINGS.range_decrease * fallen + 1e-300


def _is_flat(problem: ScaledProblem, point: ScaledPoint, noise_n: Floats, tolerance: float) -> bool:
    """Say whether the gradient is within tolerance, or rounding."""
    gradient_n = np.abs(problem.project_gradient(point.gradient_n, point.x_n))
    return bool((gradient_n <= np.maximum(0.1 * tolerance, noise_n)).all())


def _rate_step(problem: ScaledProblem, old: ScaledPoint, new: ScaledPoint, predicted: float) -> float:
    """Return actual by predicted decrease; where both are rounding, whether the gradient fell."""
    if not new.finite:
        return -np.inf
    if predicted <= 100 * _EPS * (abs(old.f) + abs(new.f)):
        before, after = (
            float(np.abs(problem.project_gradient(p.gradient_n, p.x_n)).max(initial=0.0)) for p in (old, new)
        )
        falls = after < before and new.f - old.f <= 100 * _EPS * (abs(old.f) + abs(new.f))
        return 0.5 if falls else -1.0
    return (old.f - new.f) / predicted


def solve_box_trust_region(
    problem: ScaledProblem, point: ScaledPoint, hessian_nn: Floats, scale_n: Floats, radius: float
) -> Floats:
    """Return a step that lowers the quadratic model within trust region and bounds, as far as its gradient at least.

    Args:
        problem: For its bounds.
        point: Where it begins.
        hessian_nn: Second derivatives of the model.
        scale_n: D, above 0.
        radius: Of the trust region.
    """
    low_n, high_n = problem.lower_n - point.x_n, problem.upper_n - point.x_n
    free_n = problem.free_variables(point.gradient_n, point.x_n)
    steps = [_gradient_step(point.gradient_n, hessian_nn, scale_n, radius, free_n, low_n, high_n)]
    steps += _held_steps(point.gradient_n, hessian_nn, scale_n, radius, free_n, low_n, high_n)
    values = [float(point.gradient_n @ step_n + step_n @ hessian_nn @ step_n / 2) for step_n in steps]
    return steps[int(np.argmin(values))]


def _held_steps(
    gradient_n: Floats, hessian_nn: Floats, scale_n: Floats, radius: float, free_n: Mask, low_n: Floats, high_n: Floats
) -> list[Floats]:
    """Return the steps that are found by holding, one round after the other, what would leave its bounds."""
    step_n, free_n = np.zeros_like(gradient_n), free_n.copy()
    steps = []
    for _ in range(len(gradient_n)):
        if not free_n.any():
            break
        turned_F = (gradient_n + hessian_nn @ np.where(free_n, 0.0, step_n))[free_n]
        scale_F = scale_n[free_n]
        scaled_FF = hessian_nn[np.ix_(free_n, free_n)] / np.outer(scale_F, scale_F)
        for sign in (1.0, -1.0):
            trial_n = step_n.copy()
            trial_n[free_n] = solve_trust_region(scaled_FF, turned_F / scale_F, radius, sign) / scale_F
            steps.append(np.clip(trial_n, low_n, high_n))
            if sign > 0:
                whole_n = trial_n
            if ((trial_n >= low_n) & (trial_n <= high_n)).all():
                break
        out_n = free_n & ((whole_n < low_n) | (whole_n > high_n))
        if not out_n.any():
            break
        steps.append(_shorten(whole_n, low_n, high_n))
        step_n = np.where(out_n, np.clip(whole_n, low_n, high_n), step_n)
        free_n &= ~out_n
    return steps


def _shorten(step_n: Floats, low_n: Floats, high_n: Floats) -> Floats:
    """Return as much of a step as bounds allow without turning it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        room_n = np.where(step_n < 0, low_n / step_n, np.where(step_n > 0, high_n / step_n, np.inf))
    shortened_n: Floats = np.clip(step_n * min(1.0, float(room_n.min())), low_n, high_n)
    return shortened_n


def _gradient_step(
    gradient_n: Floats, hessian_nn: Floats, scale_n: Floats, radius: float, free_n: Mask, low_n: Floats, high_n: Floats
) -> Floats:
    """Return the best of some steps down the projected, scaled gradient (Cauchy point)."""
    down_n = np.where(free_n, -gradient_n / scale_n**2, 0.0)
    length = float(np.linalg.norm(scale_n * down_n))
    if not length > 0:
        return np.zeros_like(gradient_n)
    first_order, second_order = float(gradient_n @ down_n), float(down_n @ hessian_nn @ down_n)
    most = radius / length
    first = min(most, -first_order / second_order) if second_order > 0 else most
    tried = [np.clip(share * first * down_n, low_n, high_n) for share in (1.0, 0.1, 0.01, 1e-4)]
    values = [float(gradient_n @ step_n + step_n @ hessian_nn @ step_n / 2) for step_n in tried]
    return tried[int(np.argmin(values))]


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def solve_trust_region(hessian_FF: Floats, gradient_F: Floats, radius: float, sign: float = 1.0) -> Floats:
    """Return the minimizer of ``g . p + 1/2 p . H p`` over ``|p| <= radius``.

    Args:
        hessian_FF: Second derivatives, symmetric, of any sign.
        gradient_F: g.
        radius: Above 0.
        sign: Which of two minimizers is taken where there are two: at a saddle.

    Source: Moré and Sorensen 1983, by eigenvalues.
    """
    values_F, vectors_FF = np.linalg.eigh(hessian_FF)
    turned_F = vectors_FF.T @ gradient_F
    least, size = float(values_F[0]), max(float(np.abs(values_F).max()), 1e-300)
    if least > 1e-15 * size:
        newton_F = -turned_F / values_F
        if float(np.linalg.norm(newton_F)) <= radius:
            step_F: Floats = vectors_FF @ newton_F
            return step_F
    low = max(0.0, -least)  # the shift lies above
    high = low + float(np.linalg.norm(turned_F)) / radius + 1e-16 * size
    edge = low + 1e-15 * size

    def step(shift: float) -> Floats:
        stepped_F: Floats = np.where(turned_F == 0, 0.0, -turned_F / (values_F + shift))
        return stepped_F

    if float(np.linalg.norm(step(edge))) < radius:
        reached_F = step(edge)
        rest = max(radius**2 - float(reached_F @ reached_F), 0.0) ** 0.5
        if least < 0:  # hard case: the rest goes along the least curvature
            toward = -np.sign(turned_F[0]) if turned_F[0] != 0 else 1.0
            reached_F[0] += sign * toward * rest
        hard_F: Floats = vectors_FF @ reached_F
        return hard_F
    low = edge
    for _ in range(60):
        middle = (low * high) ** 0.5 if high > 4 * low > 0 else (low + high) / 2
        if float(np.linalg.norm(step(middle))) > radius:
            low = middle
        else:
            high = middle
        if high - low <= 1e-3 * high:
            break
    shifted_F: Floats = vectors_FF @ step(high)
    return shifted_F
