"""Infeasibility and its proof: the violation that no point gets below, with Farkas' weights of the rows.

    minimize t   subject to   rows(x) <= t,   x in a convex set

The multipliers y >= 0 of the rows sum to 1, and no x of the set has  y . rows(x)  below the least t: if that is above
0, the rows cannot hold together.  A linear program, which cvxpy solves; over products of simplices its answer is then
checked in closed form.  Away from convex rows only a local statement is left: a point at which the gradient of the
violation itself vanishes (``violation_gradient_norm``).

Axes: C rows, M inequalities among them, n variables, G simplices, V corners of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from .short_repr import ShortRepr

Floats = npt.NDArray[np.float64]

_SUM_ERROR = 1e-9  # rounding of a sum of weights that is 1


@dataclass(frozen=True)
class InfeasibilitySettings:
    """When a violated point counts as one that cannot be improved nearby.

    Attributes:
        flat_gradient: Largest ``violation_gradient_norm`` of such a point, in units of violation a unit of length, of
            rows whose gradients have a size near 1.  At 0 rounding would leave every violated run undecided
            (``tests/safekd/training/diagnosis/test_verdicts.py``, ``tests/solvers/minimization``).
    """

    flat_gradient: float = 1e-3


SETTINGS = InfeasibilitySettings()


@dataclass(frozen=True, repr=False)
class FarkasProof(ShortRepr):
    """Weights of rows, and what they prove.

    Attributes:
        weights_C: Weights of the rows, shape (C,), of either sign for equalities; magnitudes sum to 1.
        least_violation: The violation that no point gets below, in units of the rows.  Negative is room: some point
            meets every row with that much to spare.
    """

    weights_C: Floats
    least_violation: float


def solve_least_violation(rows_C: Any, M: int, within: Sequence[Any], floor: float) -> FarkasProof | None:
    """Return the least violation of affine rows and its proof, by a linear program.

    Args:
        rows_C: Affine cvxpy expression, shape (C,); the first M rows ask for ``<= t``, the rest for ``|row| <= t``.
        M: How many rows are inequalities.
        within: cvxpy constraints on its variables.
        floor: Where t stops falling, in units of the rows; at that value the weights prove nothing.

    Returns:
        The proof, or None where the solver has no answer.

    Source: Farkas 1902; Boyd and Vandenberghe, Convex Optimization, section 5.8.
    """
    import cvxpy as cp  # in the functions that solve: it takes a second, and most runs need none of them

    t = cp.Variable()
    upper: Any = rows_C <= t
    lower: Any = -rows_C[M:] <= t
    rules: list[Any] = [upper, t >= floor, *within]
    if rows_C.shape[0] > M:
        rules.append(lower)
    program = cp.Problem(cp.Minimize(t), rules)
    try:
        program.solve(solver=cp.CLARABEL)  # type: ignore[no-untyped-call]
    except (cp.error.SolverError, ArithmeticError, ValueError):
        return None
    if program.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or t.value is None:
        return None
    weights_C = np.array(upper.dual_value, dtype=float).reshape(-1)
    if rows_C.shape[0] > M:
        weights_C[M:] -= np.asarray(lower.dual_value, dtype=float).reshape(-1)
    weights_C[:M] = weights_C[:M].clip(min=0)  # the last digits of a solver may lie below
    total = np.abs(weights_C).sum()
    return FarkasProof(weights_C / total, float(t.value)) if total > 0 else None


def prove_linearized_infeasible(
    value_C: Floats, jacobian_Cn: Floats, M: int, x_n: Floats, lower_n: Floats, upper_n: Floats, slack: float
) -> FarkasProof | None:
    """Prove that no step meets the rows made linear at a point, ``g + J d <= 0`` and ``h + J d = 0``, within bounds.

    Where the weighed sum of the rows is convex, its linear form lies below it, and the proof holds everywhere.

    Args:
        value_C: Values of the rows, inequalities first, shape (C,).
        jacobian_Cn: Their gradients, shape (C, n).
        M: How many rows are inequalities.
        x_n: The point, shape (n,).
        lower_n: Least values of the variables, shape (n,), minus infinity for none.
        upper_n: Largest values of the variables, shape (n,), infinity for none.
        slack: Violation that counts as none, in units of the rows.

    Returns:
        The proof, or None where a step meets the rows within ``slack``.
    """
    import cvxpy as cp

    step_n = cp.Variable(len(x_n))
    moved_n = x_n + step_n
    low_n, high_n = np.isfinite(lower_n), np.isfinite(upper_n)
    within = [moved_n[low_n] >= lower_n[low_n]] if low_n.any() else []
    within += [moved_n[high_n] <= upper_n[high_n]] if high_n.any() else []
    proof = solve_least_violation(value_C + jacobian_Cn @ step_n, M, within, floor=0.0)
    return proof if proof is not None and proof.least_violation > slack else None


def solve_least_violation_on_simplices(gain_MGV: Floats, wanted_M: Floats) -> FarkasProof | None:
    """Return the least violation of ``sum_G gain_MG . p_G >= wanted_M`` over distributions p_G, and its proof.

    Args:
        gain_MGV: What a unit of probability at each corner gives each row, shape (M, G, V).
        wanted_M: What each row asks for, shape (M,), in the same units.

    Returns:
        The proof, its ``least_violation`` from ``compute_farkas_bound``, not from the solver; None where the solver
        has no answer.
    """
    import cvxpy as cp

    M, G, V = gain_MGV.shape
    p_N = cp.Variable(G * V, nonneg=True)  # one simplex after the other
    rows_M = wanted_M - gain_MGV.reshape(M, -1) @ p_N
    floor = float(-np.abs(gain_MGV).max(-1).sum(-1).max() - np.abs(wanted_M).max() - 1)
    sums = scipy.sparse.kron(scipy.sparse.eye_array(G), np.ones((1, V))) @ p_N
    proof = solve_least_violation(rows_M, M, [sums == 1], floor)
    if proof is None:
        return None
    weights_M = proof.weights_C.clip(min=0)
    weights_M /= weights_M.sum()
    return FarkasProof(weights_M, compute_farkas_bound(weights_M, gain_MGV, wanted_M))


def compute_farkas_bound(weights_M: Floats, gain_MGV: Floats, wanted_M: Floats) -> float:
    """Return the violation that weights prove, by weak duality: some row of any distributions is off by this much.

    Args:
        weights_M: Weights y of the rows, shape (M,); they prove something where y >= 0 and sum to 1.
        gain_MGV: What a unit of probability at each corner gives each row, shape (M, G, V).
        wanted_M: What each row asks for, shape (M,), in the same units.

    Returns:
        ``y . wanted - sum_G max_V (y . gain)``; minus infinity for weights that prove nothing.

    Source: Boyd and Vandenberghe, Convex Optimization, section 5.8.
    """
    if not (weights_M >= 0).all() or not abs(weights_M.sum() - 1) <= _SUM_ERROR:
        return -np.inf
    return float(weights_M @ wanted_M - np.tensordot(weights_M, gain_MGV, 1).max(-1).sum())


def violation_gradient_norm(gradient_n: Floats, violation_C: Floats) -> float:
    """Return how fast the Euclidean norm of the violations falls at best, ``|J' v| / |v|``.

    A violated point with a small one cannot be improved nearby: evidence of infeasibility that is local.

    Args:
        gradient_n: Gradient of ``|v|^2 / 2``, that is J' v, without the part that bounds hold back, shape (n,).
        violation_C: What each row is missed by, shape (C,).

    Returns:
        The norm, in units of violation a unit of length; 0 where nothing is violated.
    """
    size = float(np.linalg.norm(violation_C))
    return float(np.linalg.norm(gradient_n)) / size if size > 0 else 0.0
