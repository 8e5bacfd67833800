"""How far a point is from satisfying the four conditions of Karush, Kuhn and Tucker.

Residuals come from the problem's own data (gradients, constraint values, multipliers) and never from what a
solver says of itself.  Signs: ``solvers.lagrangian``.  Axes: M inequalities, E equalities, n variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from .errors import InvalidInput


@dataclass(frozen=True)
class KKTResiduals:
    """The four residuals; zero in all of them is a KKT point.

    Attributes:
        stationarity: ``|grad f + J_g^T lambda + J_h^T mu| / (1 + |grad f|)``, Euclidean norms, without unit.
        primal: Largest violation, ``max(g, 0)`` and ``|h|``, in the constraints' own units.
        dual: Largest negative multiplier, ``max(-lambda, 0)``, in units of f a unit of g.
        complementarity: ``max |min(lambda, -g)|``: a constraint is tight, or its multiplier is 0.
    """

    stationarity: float
    primal: float
    dual: float
    complementarity: float

    def holds(self, tolerance: float = 1e-3, *, stationarity: float | None = None) -> bool:
        """Say whether every residual is small; NaN never is.

        Args:
            tolerance: What each residual may be at most, in its own unit.
            stationarity: What stationarity may be at most, by default ``tolerance``.

        Returns:
            True if all four are.
        """
        limits = dict.fromkeys(asdict(self), tolerance)
        if stationarity is not None:
            limits["stationarity"] = stationarity
        return all(value <= limits[name] for name, value in asdict(self).items())  # a NaN fails <=, unlike max()


def kkt_residuals(
    gradient_n: Tensor,
    *,
    jacobian_Mn: Tensor | None = None,
    g_M: Tensor | None = None,
    lambda_M: Tensor | None = None,
    jacobian_En: Tensor | None = None,
    h_E: Tensor | None = None,
    mu_E: Tensor | None = None,
) -> KKTResiduals:
    """Return the residuals at a point, from its gradients, constraint values and multipliers.

    Inequalities g <= 0 and equalities h = 0 are each given whole or not at all.

    Args:
        gradient_n: Gradient of the objective, shape (n,).
        jacobian_Mn: Gradients of the inequalities, shape (M, n).
        g_M: Values of the inequalities, shape (M,); positive is violated.
        lambda_M: Multipliers of the inequalities, shape (M,).
        jacobian_En: Gradients of the equalities, shape (E, n).
        h_E: Values of the equalities, shape (E,).
        mu_E: Multipliers of the equalities, shape (E,).

    Returns:
        The four residuals, computed in float64.

    Raises:
        InvalidInput: Shapes do not fit, or part of a group is missing.

    Source: Nocedal and Wright, Numerical Optimization, theorem 12.1.

    min x subject to 1 - x <= 0 has x = 1, lambda = 1:

    >>> one = torch.ones(1)
    >>> kkt_residuals(one, jacobian_Mn=-torch.ones(1, 1), g_M=0 * one, lambda_M=one).holds(1e-9)
    True
    """
    if gradient_n.ndim != 1:
        raise InvalidInput(f"The gradient has shape {tuple(gradient_n.shape)}; wanted (n,), all variables in one row.")
    gradient = gradient_n.detach().double()
    jacobian, g, lam = _read_group(gradient, jacobian_Mn, g_M, lambda_M, "inequalities")
    jacobian_h, h, mu = _read_group(gradient, jacobian_En, h_E, mu_E, "equalities")
    stationary = jacobian.T @ lam
    stationary += gradient  # in place: one vector of length n beside what was given
    if mu.numel():
        stationary += jacobian_h.T @ mu
    return residuals_from_norms(float(gradient.norm()), float(stationary.norm()), g, lam, h)


def residuals_from_norms(
    gradient_norm: float, lagrangian_norm: float, g_M: Tensor, lambda_M: Tensor, h_E: Tensor
) -> KKTResiduals:
    """Return the residuals where gradients are too large to be held, or were estimated, and only norms are known.

    Args:
        gradient_norm: Of the objective's gradient.
        lagrangian_norm: Of ``grad f + J_g^T lambda + J_h^T mu``.
        g_M: Values of the inequalities, shape (M,); positive is violated.
        lambda_M: Multipliers of the inequalities, shape (M,).
        h_E: Values of the equalities, shape (E,).

    Returns:
        The four residuals.
    """
    g, lam, h = g_M.detach().double(), lambda_M.detach().double(), h_E.detach().double()
    return KKTResiduals(
        stationarity=lagrangian_norm / (1 + gradient_norm),
        primal=_max_or_zero(torch.cat([g.clamp_min(0), h.abs()])),
        dual=_max_or_zero((-lam).clamp_min(0)),
        complementarity=_max_or_zero(torch.minimum(lam, -g).abs()),
    )


def gradients(values: Sequence[Tensor], variables: Sequence[Tensor]) -> Tensor:
    """Return the gradient of each scalar with respect to all variables, flattened: a Jacobian.

    Args:
        values: Scalars with their graphs, which stay.
        variables: Leaves, any shapes, n numbers in all.

    Returns:
        Gradients as rows, shape (len(values), n), float64; 0 where a value does not depend on a variable.

    Raises:
        InvalidInput: A gradient is sparse.
    """
    rows = torch.zeros(len(values), sum(x.numel() for x in variables), dtype=torch.float64, device=variables[0].device)
    for row_n, value in zip(rows, values, strict=True):
        add_gradient(row_n, value, variables)
    return rows


def add_gradient(total_n: Tensor, value: Tensor, variables: Sequence[Tensor]) -> None:
    """Add the gradient of a scalar to a vector, variable by variable: nothing of that length is held beside it.

    Args:
        total_n: Float64, (n,); changed in place.
        value: A scalar with its graph, which stays.
        variables: Leaves, any shapes, n numbers in all.

    Raises:
        InvalidInput: A gradient is sparse.
    """
    if not value.requires_grad:
        return
    parts = torch.autograd.grad(value, list(variables), retain_graph=True, allow_unused=True)
    if any(part is not None and part.layout != torch.strided for part in parts):
        raise InvalidInput(
            "A gradient is sparse; residuals and multipliers read gradients as one vector. Make embeddings with "
            "sparse=False."
        )
    for sum_x, part in zip(torch.split(total_n, [x.numel() for x in variables]), parts, strict=True):
        if part is not None:
            sum_x += part.reshape(-1)  # widened on the way


def _read_group(
    gradient: Tensor, jacobian: Tensor | None, value: Tensor | None, multiplier: Tensor | None, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    if jacobian is None and value is None and multiplier is None:
        return gradient.new_zeros(0, gradient.numel()), gradient.new_zeros(0), gradient.new_zeros(0)
    if jacobian is None or value is None or multiplier is None:
        parts = {"Jacobian": jacobian, "values": value, "multipliers": multiplier}
        missing = " and ".join(what for what, part in parts.items() if part is None)
        raise InvalidInput(f"The {name} need Jacobian, values and multipliers together; missing: {missing}.")
    shapes = tuple(jacobian.shape), tuple(value.shape), tuple(multiplier.shape)
    rows = value.numel()
    if shapes != ((rows, gradient.numel()), (rows,), (rows,)):
        raise InvalidInput(
            f"The {name} do not fit together: Jacobian {shapes[0]}, values {shapes[1]}, multipliers {shapes[2]}; "
            f"wanted (rows, {gradient.numel()}), (rows,), (rows,)."
        )
    return (
        jacobian.detach().to(gradient),
        value.detach().to(gradient),
        multiplier.detach().to(gradient),
    )


def _max_or_zero(values: Tensor) -> float:
    return float(values.max()) + 0.0 if values.numel() else 0.0  # + 0.0 turns -0.0 into 0.0; max hands a NaN on
