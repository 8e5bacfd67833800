"""Whether rows conflict: the violation that no point gets below, and Farkas' weights as its proof.

    minimise t   subject to   rows(x) <= t,   x in a convex set

The multipliers y >= 0 of the rows sum to 1, and no x of the set has  y . rows(x)  below the least t: if that is above
0, the rows cannot hold together.  A linear program, which cvxpy solves; over products of simplices its answer is then
checked in closed form.  Axes: C rows, M inequalities among them, G simplices, V corners of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import numpy.typing as npt
import scipy.sparse

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Conflict:
    """farkas_C: signed weights of rows, magnitudes summing to 1.  least: the violation that no point gets below.

    A negative ``least`` is room: some point meets every row with that much to spare.
    """

    farkas_C: Floats
    least: float


def least_violation(rows_C: Any, M: int, within: Sequence[Any], floor: float) -> Conflict | None:
    """Return the least violation of affine rows and its proof, or None where the solver has no answer.

    rows_C: cvxpy expression; the first M rows ask for ``<= t``, the rest for ``|row| <= t``.  within: cvxpy constraints
    on its variables.  floor: where t stops falling; at that value the weights prove nothing.
    """
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
    farkas_C = np.array(upper.dual_value, dtype=float).reshape(-1)
    if rows_C.shape[0] > M:
        farkas_C[M:] -= np.asarray(lower.dual_value, dtype=float).reshape(-1)
    farkas_C[:M] = farkas_C[:M].clip(min=0)  # the last digits of a solver may lie below
    weight = np.abs(farkas_C).sum()
    return Conflict(farkas_C / weight, float(t.value)) if weight > 0 else None


def least_violation_on_simplices(gain_MGV: Floats, wanted_M: Floats) -> Conflict | None:
    """Return the least violation of ``sum_G gain_MG . p_G >= wanted_M`` over distributions p_G, and its proof.

    The least is what the weights prove in closed form (``proven``), not what the solver says.
    """
    M, G, V = gain_MGV.shape
    p_N = cp.Variable(G * V, nonneg=True)  # one simplex after the other
    rows_M = wanted_M - gain_MGV.reshape(M, -1) @ p_N
    floor = float(-np.abs(gain_MGV).max(-1).sum(-1).max() - np.abs(wanted_M).max() - 1)
    found = least_violation(
        rows_M, M, [scipy.sparse.kron(scipy.sparse.eye_array(G), np.ones((1, V))) @ p_N == 1], floor
    )
    if found is None:
        return None
    farkas_M = found.farkas_C.clip(min=0)
    farkas_M /= farkas_M.sum()
    return Conflict(farkas_M, proven(farkas_M, gain_MGV, wanted_M))


def proven(farkas_M: Floats, gain_MGV: Floats, wanted_M: Floats) -> float:
    """Return the violation that weights prove, by weak duality: some row of any distributions is off by this much.

    ``y . wanted - sum_G max_V (y . gain)`` for y >= 0 summing to 1; minus infinity for other y, which prove nothing.
    """
    if not (farkas_M >= 0).all() or not abs(farkas_M.sum() - 1) <= 1e-9:
        return -np.inf
    return float(farkas_M @ wanted_M - np.tensordot(farkas_M, gain_MGV, 1).max(-1).sum())
