"""The Lagrangian, and the one place where its signs are written down.

    minimize f(x)   subject to   g(x) <= 0 (M rows),   h(x) = 0 (E rows)

    L(x, lambda, mu) = f + lambda . g + mu . h,      lambda >= 0,  mu free

A safety threshold ``safety(x) >= s_min`` is the row ``g = s_min - safety``: positive means violated, and its
multiplier lambda is what one more unit of safety costs, in units of f.

The augmented Lagrangian of Powell, Hestenes and Rockafellar (PHR; Rockafellar 1973) adds a quadratic around it:

    L_rho = f + sum_i [relu(lambda_i + rho_i g_i)^2 - lambda_i^2] / (2 rho_i) + mu . h + rho/2 |h|^2

Its gradient in x weighs row i with ``relu(lambda_i + rho_i g_i)``, which stays finite at rho = 0, where it is
lambda_i itself.  With w for the weight of a row, the term of either kind of row is ``(w^2 - lambda^2) / (2 rho)``.
Everything else in the package points here for the convention.

Axes: M inequalities, E equalities, C = M + E rows.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Values = TypeVar("Values", Tensor, Floats)


def inequality_weights(lambda_M: Values, g_M: Values, rho_M: Values | float) -> Values:
    """Return the weight of each inequality's gradient, ``relu(lambda + rho g)``.

    Args:
        lambda_M: Multipliers, shape (M,), in units of f a unit of g, a tensor or an array as ``g_M`` is.
        g_M: Values of the constraints, shape (M,); positive is violated.
        rho_M: Penalties, one number or shape (M,), at least 0, in units of f a squared unit of g; 0 gives the
            multipliers themselves.

    Returns:
        Weights, shape (M,), at least 0, in units of the multipliers.

    Source: Rockafellar 1973.
    """
    weight_M: Values = (lambda_M + rho_M * g_M).clip(min=0)
    return weight_M


def equality_weights(mu_E: Values, h_E: Values, rho_E: Values | float) -> Values:
    """Return the weight of each equality's gradient, ``mu + rho h``.

    Args:
        mu_E: Multipliers of either sign, shape (E,), in units of f a unit of h, a tensor or an array as ``h_E`` is.
        h_E: Values of the constraints, shape (E,).
        rho_E: Penalties, one number or shape (E,), at least 0, in units of f a squared unit of h.

    Returns:
        Weights, shape (E,), of either sign.

    Source: Hestenes 1969.
    """
    weight_E: Values = mu_E + rho_E * h_E
    return weight_E


def bounded_weights(lambda_C: Values, value_C: Values, rho_C: Values, floor_C: Values) -> Values:
    """Return the weights of inequalities and equalities in one go, ``max(lambda + rho c, floor)``.

    Args:
        lambda_C: Multipliers, shape (C,), a tensor or an array as all others are.
        value_C: Values of g and h, shape (C,).
        rho_C: Penalties, or multiplier steps, shape (C,), at least 0.
        floor_C: The least weight of each row, shape (C,): 0 for an inequality, minus infinity for an equality.

    Returns:
        Weights, shape (C,); with the multiplier step for ``rho_C`` they are the multipliers after that step.

    Source: Rockafellar 1973.
    """
    weight_C: Values = lambda_C + rho_C * value_C
    if isinstance(weight_C, Tensor):
        return torch.maximum(weight_C, floor_C)
    return np.maximum(weight_C, floor_C)


def penalty_term(lambda_C: Floats | float, weight_C: Floats | float, rho: float) -> float:
    """Return what rows add to the augmented Lagrangian, ``(weight^2 - lambda^2) / (2 rho)``, summed over the rows.

    Args:
        lambda_C: Multipliers, shape (C,), or that of one row.
        weight_C: Their ``inequality_weights`` or ``equality_weights`` at ``rho``, of the same shape.
        rho: The penalty that the rows share, above 0.

    Returns:
        The sum of their terms, in units of f.

    Source: Rockafellar 1973.
    """
    return float(np.sum(weight_C**2 - lambda_C**2)) / (2 * rho)


def lagrangian(f: Tensor, g_M: Tensor, h_E: Tensor, lambda_M: Tensor, mu_E: Tensor) -> Tensor:
    """Return ``f + lambda . g + mu . h``, with the gradients of f, g and h.

    Args:
        f: Objective, a scalar.
        g_M: Values of the inequalities, shape (M,).
        h_E: Values of the equalities, shape (E,).
        lambda_M: Multipliers of the inequalities, shape (M,).
        mu_E: Multipliers of the equalities, shape (E,).

    Returns:
        The Lagrangian, a scalar.
    """
    return f + (lambda_M.to(g_M) * g_M).sum() + (mu_E.to(h_E) * h_E).sum()
