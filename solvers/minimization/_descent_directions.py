"""Is a point that satisfies the KKT conditions a minimum?  Second derivatives and a look around say so.

The second-order check is that of ``solvers.second_order``.  Directions that count are those along which the rows with
a multiplier stay tight and the tight rows without one do not break: the critical cone.  Where curvature is too small
to tell, as that of x^3 at 0, a few steps are tried.
Axes: n variables, A rows that are tight and have a multiplier, W tight rows without one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from ..second_order import SETTINGS as SECOND_ORDER
from ..second_order import is_convex_along, normalize_rows, reduced_curvature, scale_by_curvature, span_tangent
from .problem._scaled_point import ScaledPoint
from .problem._scaled_problem import SETTINGS as SCALING
from .problem._scaled_problem import Floats, ScaledProblem


@dataclass(frozen=True)
class DescentSettings:
    """What counts as active and as flat; ``test_minimize_verdicts.py`` (false minima) notices them.

    Attributes:
        active: Value of a scaled row, and multiplier, up to which it counts as zero.
        flat: Curvature, in units of gradient a length of 1 + |x|, that tells nothing of x^3: one has to try.
        guesses: Directions of a subspace that are projected onto the tight rows, twice: basis vectors and mixtures.
        tried: Flat directions along which steps are tried.
        steps: Lengths of these steps, in units of 1 + |x|.
        last_digits: Changes of x, in units of rounding, that show how exact second derivatives are.
        curved: Share of the largest scaled curvature beyond which Newton's step is trusted.
        decrease: Decrease that Newton's step may still promise, in units of |f|.
        range_decrease: The same in units of how far f has fallen: where f falls to 0, |f| is no measure.
        on_the_way: Shares of a step at which what is found at its end must be on its way.
        gradual: Share of the decrease that is reached there at least.
        least_length: A unit direction that keeps less than this, once projected, is not allowed by the rows.
    """

    active: float = 1e-6
    flat: float = 1e-3
    guesses: int = 20
    tried: int = 4
    steps: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    last_digits: float = 4.0
    curved: float = 1e-12
    decrease: float = 1e-7
    range_decrease: float = 1e-10
    on_the_way: tuple[float, ...] = (0.9, 0.5, 0.1, 1e-2, 1e-3)
    gradual: float = 0.3
    least_length: float = 1e-3


SETTINGS = DescentSettings()


def find_descent_direction(problem: ScaledProblem, point: ScaledPoint, lambda_C: Floats) -> Floats | None:
    """Return a unit direction, allowed by the rows, in which the Lagrangian falls; None if none is seen.

    Raises RuntimeError if the functions cannot be differentiated twice here, ValueError for more variables than
    second derivatives are held of.
    """
    n = len(point.x_n)
    if n > SCALING.dense_variables:
        raise ValueError(f"{n} variables")
    hessian_nn = problem.second.hessian(point, lambda_C)
    if not np.isfinite(hessian_nn).all():
        raise RuntimeError("second derivatives are not finite here")
    held_An, free_Wn = _tight_gradients(problem, point, lambda_C)
    flat = SETTINGS.flat / point.length
    if is_convex_along(hessian_nn, held_An, flat):
        return None
    scale_n = _even_out(hessian_nn)
    scaled_nn = hessian_nn / np.outer(scale_n, scale_n)
    tangent_nt = span_tangent(normalize_rows(held_An / scale_n))
    if not tangent_nt.shape[1]:
        return None
    curvature_t, vectors_tt = reduced_curvature(scaled_nn, tangent_nt)
    directions_nt = tangent_nt @ vectors_tt
    draw, error_nn = np.random.default_rng(0), np.zeros_like(hessian_nn)
    if curvature_t[0] < 0:
        error_nn = _curvature_error(problem, point, lambda_C, hessian_nn, scale_n, tangent_nt)
    falling_nt = directions_nt[:, curvature_t < -_along(error_nn, directions_nt)]
    for scaled_n in _allowed_directions(falling_nt, free_Wn / scale_n, draw):
        direction_n = _unit(scaled_n / scale_n)
        falls = scaled_n @ scaled_nn @ scaled_n < -float(_along(error_nn, scaled_n[:, None])[0])
        if falls and _curves_down_enough(point, lambda_C, hessian_nn, direction_n):
            return direction_n
    newton_n = _newton_descent(problem, point, lambda_C, hessian_nn, scale_n, curvature_t, directions_nt)
    if newton_n is not None and not (len(free_Wn) and (free_Wn @ newton_n > 0).any()):
        return newton_n
    basis_nt = span_tangent(held_An)
    along_t, turned_tt = reduced_curvature(hessian_nn, basis_nt)
    flat_nt = basis_nt @ turned_tt[:, np.abs(along_t) <= flat]
    return _first_descent(problem, point, lambda_C, _allowed_directions(flat_nt, free_Wn, draw))


def _curves_down_enough(point: ScaledPoint, lambda_C: Floats, hessian_nn: Floats, direction_n: Floats) -> bool:
    """Say whether curvature outweighs what gradient is left along a direction, as of a bound that hardly holds."""
    length = SETTINGS.steps[-1] * point.length
    first_order = float(point.lagrangian_gradient(lambda_C) @ direction_n)
    return first_order + float(direction_n @ hessian_nn @ direction_n) * length / 2 < 0


def _even_out(hessian_nn: Floats) -> Floats:
    """Return scales of the variables; those without curvature get the largest, or rows would look alike in them."""
    scale_n = scale_by_curvature(hessian_nn)
    largest = float(scale_n.max())
    return np.where(scale_n <= 2 * SECOND_ORDER.least_scale * largest, largest, scale_n)


def _unit(direction_n: Floats) -> Floats:
    unit_n: Floats = direction_n / np.linalg.norm(direction_n)
    return unit_n


def _along(error_nn: Floats, directions_nt: Floats) -> Floats:
    """Return the largest error of curvature along each direction, from that of each entry of H."""
    sizes_nt = np.abs(directions_nt)
    along_t: Floats = np.einsum("it,ij,jt->t", sizes_nt, error_nn, sizes_nt)
    return along_t


def _curvature_error(
    problem: ScaledProblem,
    point: ScaledPoint,
    lambda_C: Floats,
    hessian_nn: Floats,
    scale_n: Floats,
    tangent_nt: Floats,
) -> Floats:
    """Return what of scaled curvatures along a tangent space may be error, entry by entry.

    It is how H changes when x changes in its last digits, and what cancels in H.  Where curvature is far below that of
    H as a whole, its share of H tells nothing; its own error does.
    """
    product_nn = np.outer(scale_n, scale_n)
    largest, eye_nn = float(np.abs(hessian_nn / product_nn).max()), np.eye(len(scale_n))
    if problem.by_differences:
        return SECOND_ORDER.difference_rounding * largest * eye_nn
    eps = problem.functions.rounding
    turned_n = problem.clip(
        point.x_n * (1 + SETTINGS.last_digits * eps * np.random.default_rng(0).choice((-1, 1), len(point.x_n)))
    )
    other_nn = problem.hessian(turned_n, lambda_C)
    change_nn = (other_nn - hessian_nn) / product_nn
    change = float(np.linalg.norm(tangent_nt.T @ change_nn @ tangent_nt, 2)) if np.isfinite(other_nn).all() else 0.0
    canceled_nn = _cancellation(problem, point, lambda_C, hessian_nn) / product_nn
    return SECOND_ORDER.error_factor * (canceled_nn + (change + len(scale_n) * eps * largest) * eye_nn)


def _cancellation(problem: ScaledProblem, point: ScaledPoint, lambda_C: Floats, hessian_nn: Floats) -> Floats:
    """Return the error of H where curvature of objective and rows cancel: that of both, and of the multipliers.

    Multipliers are as exact as the gradient that they leave, and the less so the nearer rows are to depending on each
    other.
    """
    if not lambda_C.any():
        return np.zeros_like(hessian_nn)
    rows_nn = hessian_nn - problem.hessian(point.x_n, np.zeros_like(lambda_C))
    rows_nn = np.where(np.isfinite(rows_nn), rows_nn, 0.0)
    rounding, used_C = problem.functions.rounding, lambda_C != 0
    left_n = np.abs(problem.project_gradient(point.lagrangian_gradient(lambda_C), point.x_n))
    left_n += rounding * (np.abs(point.gradient_n) + np.abs(point.jacobian_Cn).T @ np.abs(lambda_C))
    size_A = np.linalg.svd(point.jacobian_Cn[used_C], compute_uv=False)
    share = float(np.linalg.norm(left_n)) / float(size_A[size_A > SECOND_ORDER.rank * size_A[0]].min(initial=np.inf))
    share /= float(np.abs(lambda_C).max())
    error_nn: Floats = rounding * (np.abs(hessian_nn) + 2 * np.abs(rows_nn)) + share * np.abs(rows_nn)
    return error_nn


def _newton_descent(
    problem: ScaledProblem,
    point: ScaledPoint,
    lambda_C: Floats,
    hessian_nn: Floats,
    scale_n: Floats,
    curvature_t: Floats,
    directions_nt: Floats,
) -> Floats | None:
    """Return Newton's direction where it promises a decrease that is no rounding: a gradient may be small by its units.

    Along curvature next to none it promises nothing; there one has to try.
    """
    gradient_n = problem.project_gradient(point.lagrangian_gradient(lambda_C), point.x_n)
    noise_n = SETTINGS.last_digits * problem.functions.rounding * (np.abs(hessian_nn) @ np.abs(point.x_n))
    gradient_n = np.where(np.abs(gradient_n) > noise_n, gradient_n, 0.0)
    turned_t = directions_nt.T @ (gradient_n / scale_n)
    # along the rows all of it may have canceled
    largest = float(np.abs(hessian_nn / np.outer(scale_n, scale_n)).max())
    if problem.by_differences:  # curvature may be anything within its error: as much as it may hide counts
        curvature_t = np.maximum(curvature_t, SECOND_ORDER.difference_rounding * largest)
    curved_t = curvature_t > SETTINGS.curved * largest
    step_t = np.where(curved_t, -turned_t / np.where(curved_t, curvature_t, 1.0), 0.0)
    decrease = -float(turned_t @ step_t) / 2
    fallen = abs(problem.start.f - point.f)
    digits = float(np.abs(hessian_nn).max()) * (SETTINGS.last_digits * problem.functions.rounding * point.length) ** 2
    if decrease <= SETTINGS.decrease * abs(point.f) + SETTINGS.range_decrease * fallen + digits:
        return None
    return _unit(directions_nt @ step_t / scale_n)


def is_strict_minimum(problem: ScaledProblem, point: ScaledPoint, lambda_C: Floats) -> bool:
    """Say whether curvature is positive along the tight rows beyond its error, and Newton's step promises no decrease.

    Then a gradient that is left is a matter of units or of rounding.
    """
    if len(point.x_n) > SCALING.dense_variables:
        return False
    try:
        hessian_nn = problem.second.hessian(point, lambda_C)
        if not np.isfinite(hessian_nn).all():
            return False
        scale_n = _even_out(hessian_nn)
        tangent_nt = span_tangent(normalize_rows(_tight_gradients(problem, point, lambda_C)[0] / scale_n))
        if not tangent_nt.shape[1]:
            return True
        curvature_t, vectors_tt = reduced_curvature(hessian_nn / np.outer(scale_n, scale_n), tangent_nt)
        directions_nt = tangent_nt @ vectors_tt
        error_nn = _curvature_error(problem, point, lambda_C, hessian_nn, scale_n, tangent_nt)
        if (curvature_t <= np.maximum(_along(error_nn, directions_nt), 0)).any():
            return False
    except RuntimeError:
        return False
    return _newton_descent(problem, point, lambda_C, hessian_nn, scale_n, curvature_t, directions_nt) is None


def try_descent_directions(problem: ScaledProblem, point: ScaledPoint, lambda_C: Floats) -> Floats | None:
    """Return a direction in which the Lagrangian falls, of some that rows allow; for functions without curvature."""
    held_An, free_Wn = _tight_gradients(problem, point, lambda_C)
    directions = _allowed_directions(span_tangent(held_An), free_Wn, np.random.default_rng(0))
    return _first_descent(problem, point, lambda_C, directions)


def _tight_gradients(problem: ScaledProblem, point: ScaledPoint, lambda_C: Floats) -> tuple[Floats, Floats]:
    """Return the gradients of tight rows and bounds, pointing out: those with a multiplier, and those without."""
    equal_C = np.arange(len(lambda_C)) >= problem.M
    held_C = equal_C | (lambda_C > SETTINGS.active)
    tight_C = held_C | (np.abs(point.c_C) <= SETTINGS.active)
    low_n, high_n = problem.on_bounds(point.x_n)
    gradient_n = point.lagrangian_gradient(lambda_C)
    fixed_n, eye_nn = low_n & high_n, np.eye(len(gradient_n))
    held_n = fixed_n | ((low_n | high_n) & (np.abs(gradient_n) > SETTINGS.active))
    outward_nn = np.where(low_n, -1.0, 1.0)[:, None] * eye_nn
    held_An = np.concatenate([point.jacobian_Cn[held_C], eye_nn[held_n]])
    free_Wn = np.concatenate([point.jacobian_Cn[tight_C & ~held_C], outward_nn[(low_n | high_n) & ~held_n]])
    return held_An, free_Wn


def _allowed_directions(basis_nt: Floats, free_Wn: Floats, draw: np.random.Generator) -> list[Floats]:
    """Return unit directions of a subspace, each way, projected onto ``W d <= 0``."""
    if not basis_nt.shape[1]:
        return []
    count = SETTINGS.guesses
    mixed_tm = draw.standard_normal((basis_nt.shape[1], count)) if basis_nt.shape[1] > 1 else np.zeros((1, 0))
    guesses_nm = np.concatenate([basis_nt[:, :count], basis_nt @ mixed_tm], axis=1)
    directions = []
    for guess_n in np.stack([guesses_nm, -guesses_nm], axis=-1).reshape(len(basis_nt), -1).T:
        unit_n = guess_n / np.linalg.norm(guess_n)
        if len(free_Wn):  # the residual of nnls is the projection onto the polar cone (Moreau)
            unit_n = unit_n - free_Wn.T @ nnls(free_Wn.T, unit_n)[0]
        length = float(np.linalg.norm(unit_n))
        if length > SETTINGS.least_length:
            directions.append(unit_n / length)
    return directions


def _first_descent(
    problem: ScaledProblem, point: ScaledPoint, lambda_C: Floats, directions: list[Floats]
) -> Floats | None:
    """Return the first of some directions along which steps lower the Lagrangian, None if there is none."""
    tried = directions[: SETTINGS.tried]
    return next((d_n for d_n in tried if _decreases_along(problem, point, lambda_C, d_n)), None)


def _decreases_along(problem: ScaledProblem, point: ScaledPoint, lambda_C: Floats, direction_n: Floats) -> bool:
    """Say whether, without curvature, the Lagrangian falls all the same, as x^3 does: by trying."""
    base, slack = float(point.f + lambda_C @ point.c_C), 1e-10 * (1 + abs(point.f))

    def lower_by(step: float) -> tuple[float, float]:
        """Return how far the Lagrangian falls, and the largest violation; the way may end in numbers not finite."""
        f, c_C = problem.evaluate_values(problem.clip(point.x_n + step * direction_n))
        if not np.isfinite(f) or not np.isfinite(c_C).all():
            return -np.inf, np.inf
        return base - f - float(lambda_C @ c_C), float(np.abs(problem.violations(c_C)).max(initial=0.0))

    for length in SETTINGS.steps:
        step = length * point.length
        fallen, violation = lower_by(step)
        if not (fallen > slack + 1e-7 * step and violation <= SETTINGS.active + step**2):
            continue
        # a pole beyond a wall is no way down: it falls from the start on, and no jump does most of it
        on_the_way = [lower_by(share * step)[0] for share in SETTINGS.on_the_way]
        if min(on_the_way) >= -slack and max(on_the_way) > SETTINGS.gradual * fallen:
            return True
    return False
