"""The Lagrangian, and the one place where its signs are written down.

    minimise f(x)   subject to   g(x) <= 0 (M rows),   h(x) = 0 (E rows)

    L(x, lambda, mu) = f + lambda . g + mu . h,      lambda >= 0,  mu free

A safety threshold ``safety(x) >= s_min`` is the row ``g = s_min - safety``: positive means violated, and its
multiplier lambda is the price, in units of f, of one more unit of safety.

The augmented Lagrangian of Powell, Hestenes and Rockafellar (Rockafellar 1973) adds a quadratic around it:

    L_rho = f + sum_i [relu(lambda_i + rho_i g_i)^2 - lambda_i^2] / (2 rho_i) + mu . h + rho/2 |h|^2

Its gradient in x weighs row i with ``relu(lambda_i + rho_i g_i)``, which stays finite at rho = 0, where it is
lambda_i itself.  Everything else in the package points here for the convention.

Axes: M inequalities, E equalities.
"""

from __future__ import annotations

from torch import Tensor


def inequality_weights(lambda_M: Tensor, g_M: Tensor, rho_M: Tensor) -> Tensor:
    """Return the weight of each inequality's gradient, ``relu(lambda + rho g)``, shape (M,).

    ``rho = 0`` gives the multipliers themselves.  Source: Rockafellar 1973.
    """
    return (lambda_M + rho_M * g_M).clamp_min(0)


def equality_weights(mu_E: Tensor, h_E: Tensor, rho_E: Tensor) -> Tensor:
    """Return the weight of each equality's gradient, ``mu + rho h``, shape (E,).  Source: Hestenes 1969."""
    return mu_E + rho_E * h_E


def lagrangian(f: Tensor, g_M: Tensor, h_E: Tensor, lambda_M: Tensor, mu_E: Tensor) -> Tensor:
    """Return ``f + lambda . g + mu . h``, a scalar that carries the gradients of f, g and h."""
    return f + (lambda_M.to(g_M) * g_M).sum() + (mu_E.to(h_E) * h_E).sum()
