"""Small convex quadratics over weights, many at once.

    minimize  1/2 x' H x - c' x   subject to   sum x = 1,  0 <= x <= upper

A primal-dual active set method: entries are guessed to be at 0, at ``upper`` or free, a linear system gives the free
ones and the multiplier of the sum, and what contradicts the guess changes sides.  Where H is positive definite a
handful of guesses is usual, but circles are possible; a problem that is not proved optimal after a few dozen goes to
cvxpy.  Axes: B problems, K weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import InvalidInput, SolverFailure
from .polytope import WeightPolytope
from .projection import project

_FREE, _LOW, _HIGH = 0, 1, 2


@dataclass(frozen=True)
class QuadraticSettings:
    """Numbers of the active set method; ``tests/solvers/test_simplex_qp.py`` notices each of them.

    Attributes:
        guesses: Active sets tried before a problem goes to cvxpy.
        optimal: Decrease a unit of mass that an optimal point may leave, of problems scaled to entries of at most 1.
        convex: What rounding may take from an eigenvalue of zero, relative to the largest entry.
    """

    guesses: int = 40
    optimal: float = 1e-10
    convex: float = 1e-9


SETTINGS = QuadraticSettings()


def minimize_quadratic(H_BKK: Tensor, c_BK: Tensor, *, upper: float = 1.0) -> Tensor:
    """Return the minimizers of many quadratics over weights; where several exist, one of them.

    Args:
        H_BKK: Symmetric positive semidefinite matrices, shape (B, K, K).
        c_BK: Linear parts, shape (B, K), in the same units.
        upper: Largest weight, at least 1/K.

    Returns:
        Weights, shape (B, K), float64.

    Raises:
        InvalidInput: Shapes, values or the bound cannot be used, or an H is not positive semidefinite.
        SolverFailure: No method solves a problem.

    Source: primal-dual active sets, Hintermueller, Ito and Kunisch 2002.
    """
    K = c_BK.shape[-1]
    if H_BKK.shape != (*c_BK.shape, K) or c_BK.ndim != 2:
        raise InvalidInput(f"H of shape {tuple(H_BKK.shape)} does not fit c of shape {tuple(c_BK.shape)}, (B, K).")
    if not (torch.isfinite(H_BKK).all() and torch.isfinite(c_BK).all()):
        raise InvalidInput("A quadratic has entries that are not finite; wanted finite numbers in H and c.")
    if not upper * K >= 1:
        raise InvalidInput(f"`upper` is {upper:g}; {K} weights need at least {1 / K:g} to sum to 1.")
    upper = min(upper, 1.0)
    H_BKK, c_BK = H_BKK.double(), c_BK.double()
    scale_B = H_BKK.abs().amax(dim=(-2, -1)).maximum(c_BK.abs().amax(dim=-1))
    scale_B = torch.where(scale_B > 0, scale_B, 1.0)  # H = 0, c = 0: everything is optimal
    H_BKK, c_BK = H_BKK / scale_B[:, None, None], c_BK / scale_B[:, None]
    curvature_B = torch.linalg.eigvalsh(H_BKK).amin(-1)
    if bool((curvature_B < -SETTINGS.convex).any()):
        b = int(curvature_B.argmin())
        raise InvalidInput(
            f"H of problem {b} has the eigenvalue {float(curvature_B[b] * scale_B[b]):.3g}; it must be positive "
            "semidefinite, such as a matrix of inner products."
        )
    x_BK = _solve_by_active_sets(H_BKK, c_BK, upper)
    for b in (~_are_optimal(x_BK, H_BKK, c_BK, upper)).nonzero()[:, 0].tolist():
        x_BK[b] = _solve_by_cvxpy(H_BKK[b], c_BK[b], upper)
    return x_BK


def _solve_by_active_sets(H_BKK: Tensor, c_BK: Tensor, upper: float) -> Tensor:
    """Guess until nothing changes, from all entries free; return points that meet the bounds and the sum."""
    side_BK = torch.full(c_BK.shape, _FREE, device=c_BK.device)
    x_BK = torch.full_like(c_BK, 1 / c_BK.shape[-1])
    for _ in range(SETTINGS.guesses):
        x_BK, slack_BK = _solve_guess(H_BKK, c_BK, side_BK, upper)
        low_BK = torch.where(side_BK == _LOW, slack_BK < 0, x_BK < 0)
        high_BK = torch.where(side_BK == _HIGH, slack_BK > 0, x_BK > upper)
        new_BK = torch.where(low_BK, _LOW, torch.where(high_BK, _HIGH, _FREE))
        if torch.equal(new_BK, side_BK):
            break
        side_BK = new_BK
    return x_BK.clamp(0, upper)


def _solve_guess(H_BKK: Tensor, c_BK: Tensor, side_BK: Tensor, upper: float) -> tuple[Tensor, Tensor]:
    """Return x and the slack ``c - H x - nu``: zero where free, <= 0 at the lower bound, >= 0 at the upper one."""
    B, K = c_BK.shape
    free_BK = side_BK == _FREE
    fixed_BK = torch.where(side_BK == _HIGH, upper, 0.0).to(c_BK)
    system = c_BK.new_zeros(B, K + 1, K + 1)
    both_BKK = free_BK.unsqueeze(-1) & free_BK.unsqueeze(-2)
    system[:, :K, :K] = torch.where(both_BKK, H_BKK, torch.diag_embed((~free_BK).to(c_BK)))
    system[:, :K, K] = system[:, K, :K] = free_BK.to(c_BK)
    right_BK = torch.where(free_BK, c_BK - (H_BKK @ fixed_BK.unsqueeze(-1)).squeeze(-1), 0.0)
    right = torch.cat([right_BK, (1 - fixed_BK.sum(-1, keepdim=True))], dim=-1)
    # singular where H is, or where nothing is free
    answer = (torch.linalg.pinv(system, hermitian=True) @ right.unsqueeze(-1)).squeeze(-1)
    x_BK = torch.where(free_BK, answer[:, :K], fixed_BK)
    slack_BK = c_BK - (H_BKK @ x_BK.unsqueeze(-1)).squeeze(-1) - answer[:, K:]
    return x_BK, slack_BK


def _are_optimal(x_BK: Tensor, H_BKK: Tensor, c_BK: Tensor, upper: float) -> Tensor:
    """Say which points are optimal, bool (B,): no mass can move to where the gradient is lower."""
    gradient_BK = (H_BKK @ x_BK.unsqueeze(-1)).squeeze(-1) - c_BK
    best_to_raise_B = torch.where(x_BK < upper, gradient_BK, torch.inf).amin(-1)
    worst_to_lower_B = torch.where(x_BK > 0, gradient_BK, -torch.inf).amax(-1)
    return ((x_BK.sum(-1) - 1).abs() <= SETTINGS.optimal) & (worst_to_lower_B - best_to_raise_B <= SETTINGS.optimal)


def _solve_by_cvxpy(H_KK: Tensor, c_K: Tensor, upper: float) -> Tensor:
    import cvxpy as cp  # here, where it is needed at last: it takes a second
    from cvxpy.atoms.affine.sum import sum as cvxpy_sum
    from cvxpy.atoms.affine.wraps import psd_wrap
    from cvxpy.atoms.quad_form import QuadForm

    H, c = H_KK.cpu().numpy(), c_K.cpu().numpy()
    x_K = cp.Variable(len(c))
    curved = 0.5 * QuadForm(x_K, psd_wrap(H))
    problem = cp.Problem(cp.Minimize(curved - c @ x_K), [cvxpy_sum(x_K) == 1, x_K >= 0, x_K <= upper])
    try:
        problem.solve(solver=cp.CLARABEL)  # type: ignore[no-untyped-call]
    except (cp.error.SolverError, ArithmeticError, ValueError) as cause:
        raise SolverFailure(f"No weights were found for a quadratic of {len(c)} weights: {cause}") from cause
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or x_K.value is None:
        raise SolverFailure(f"A quadratic of {len(c)} weights was called '{problem.status}', but it has a solution.")
    # a solver leaves a little of the bounds and the sum
    return torch.as_tensor(project(x_K.value, WeightPolytope(len(c), upper=upper))).to(c_K)
