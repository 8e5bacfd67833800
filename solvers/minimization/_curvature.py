"""Is a point that satisfies the KKT conditions a minimum?  Second derivatives and a look around say so.

Zero residuals are necessary, not sufficient: the maximiser of a linear function on a circle has them too.  Directions
that count are those along which the rows with a price stay tight and the tight rows without one do not break.
Axes: n variables, A rows that are tight and have a price, W tight rows without one.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, null_space
from scipy.optimize import nnls

from ._point import Floats, Point
from ._problem import Problem

MOST = 2000  # variables: beyond, second derivatives in full do not fit
_ACTIVE = 1e-6
_NONE = 1e-7  # curvature below this part of the largest is rounding
_FLAT = 1e-3  # curvature below this, in units of gradient a length of 1 + |x|, tells nothing of x^3: one has to try
_GUESSES, _TRIED = 20, 12
_STRIDES = (1e-3, 1e-2, 1e-1)


def falling_direction(problem: Problem, point: Point, lambda_C: Floats) -> Floats | None:
    """Return a unit direction, allowed by the rows, in which the Lagrangian falls; None if none is seen.

    Raises RuntimeError if the functions cannot be differentiated twice here, ValueError for more than ``MOST``
    variables.
    """
    n = len(point.x_n)
    if n > MOST:
        raise ValueError(f"{n} variables")
    hessian_nn = problem.model.at(point, lambda_C)
    if not np.isfinite(hessian_nn).all():
        raise RuntimeError("second derivatives are not finite here")
    priced_An, free_Wn = _tight(problem, point, lambda_C)
    none = _NONE * float(np.abs(hessian_nn).max())
    flat = max(none, _FLAT / (1 + float(np.abs(point.x_n).max())))
    if _curved_up(hessian_nn, priced_An, flat):
        return None
    tangent_nt = null_space(priced_An, rcond=1e-8) if len(priced_An) else np.eye(n)
    if not tangent_nt.shape[1]:
        return None
    curvature_t, vectors_tt = np.linalg.eigh(tangent_nt.T @ hessian_nn @ tangent_nt)
    falling_nt = tangent_nt @ vectors_tt[:, curvature_t < -none]
    draw = np.random.default_rng(0)
    for direction_n in _allowed(falling_nt, free_Wn, draw):
        if direction_n @ hessian_nn @ direction_n < -none:
            return direction_n
    flat_nt = tangent_nt @ vectors_tt[:, np.abs(curvature_t) <= flat]
    for direction_n in _allowed(flat_nt, free_Wn, draw)[:_TRIED]:
        if _falls_along(problem, point, lambda_C, direction_n):
            return direction_n
    return None


def falling_by_trial(problem: Problem, point: Point, lambda_C: Floats) -> Floats | None:
    """Return a direction in which the Lagrangian falls, of some that rows allow; for functions without curvature."""
    priced_An, free_Wn = _tight(problem, point, lambda_C)
    tangent_nt = null_space(priced_An, rcond=1e-8) if len(priced_An) else np.eye(len(point.x_n))
    for direction_n in _allowed(tangent_nt, free_Wn, np.random.default_rng(0))[:_TRIED]:
        if _falls_along(problem, point, lambda_C, direction_n):
            return direction_n
    return None


def _tight(problem: Problem, point: Point, lambda_C: Floats) -> tuple[Floats, Floats]:
    """Return the gradients of tight rows and bounds, pointing out: those with a price, and those without."""
    equal_C = np.arange(len(lambda_C)) >= problem.M
    tight_C = equal_C | (np.abs(point.c_C) <= _ACTIVE) | (lambda_C > _ACTIVE)
    priced_C = equal_C | (lambda_C > _ACTIVE)
    low_n, high_n = problem.on_bounds(point.x_n)
    slope_n = point.gradient_n + point.jacobian_Cn.T @ lambda_C
    fixed_n, eye_nn = low_n & high_n, np.eye(len(slope_n))
    held_n = fixed_n | ((low_n | high_n) & (np.abs(slope_n) > _ACTIVE))
    outward_nn = np.where(low_n, -1.0, 1.0)[:, None] * eye_nn
    priced_An = np.concatenate([point.jacobian_Cn[priced_C], eye_nn[held_n]])
    free_Wn = np.concatenate([point.jacobian_Cn[tight_C & ~priced_C], outward_nn[(low_n | high_n) & ~held_n]])
    return priced_An, free_Wn


def _curved_up(hessian_nn: Floats, priced_An: Floats, flat: float) -> bool:
    """Whether H + weight A'A is positive definite for some weight: then H is, along the rows (Debreu 1952)."""
    size = max(float(np.abs(hessian_nn).max()), flat)
    for weight in (0.0, 1e2, 1e6) if len(priced_An) else (0.0,):
        lifted_nn = hessian_nn + weight * size * (priced_An.T @ priced_An) - flat * np.eye(len(hessian_nn))
        try:
            cho_factor(lifted_nn)
        except LinAlgError:
            continue
        return True
    return False


def _allowed(basis_nt: Floats, free_Wn: Floats, draw: np.random.Generator) -> list[Floats]:
    """Return unit directions of a subspace, each way, projected onto ``W d <= 0``."""
    if not basis_nt.shape[1]:
        return []
    mixed_tm = draw.standard_normal((basis_nt.shape[1], _GUESSES)) if basis_nt.shape[1] > 1 else np.zeros((1, 0))
    guesses_nm = np.concatenate([basis_nt[:, :_GUESSES], basis_nt @ mixed_tm], axis=1)
    found = []
    for guess_n in np.stack([guesses_nm, -guesses_nm], axis=-1).reshape(len(basis_nt), -1).T:
        unit_n = guess_n / np.linalg.norm(guess_n)
        if len(free_Wn):  # the residual of nnls is the projection onto the polar cone (Moreau)
            unit_n = unit_n - free_Wn.T @ nnls(free_Wn.T, unit_n)[0]
        length = float(np.linalg.norm(unit_n))
        if length > 1e-3:
            found.append(unit_n / length)
    return found


def _falls_along(problem: Problem, point: Point, lambda_C: Floats, direction_n: Floats) -> bool:
    """Whether, without curvature, the Lagrangian falls all the same, as x^3 does: by trying."""
    base, slack = float(point.f + lambda_C @ point.c_C), 1e-10 * (1 + abs(point.f))
    for stride in _STRIDES:
        step = stride * (1 + float(np.abs(point.x_n).max()))
        new_n = np.clip(point.x_n + step * direction_n, problem.lower_n, problem.upper_n)
        f, c_C = problem.values(new_n)
        if not np.isfinite(f) or not np.isfinite(c_C).all():
            continue
        broken = float(np.abs(problem.missed(c_C)).max(initial=0.0))
        if f + float(lambda_C @ c_C) < base - slack - 1e-7 * step and broken <= _ACTIVE + step**2:
            return True
    return False
