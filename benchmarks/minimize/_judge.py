"""What an answer is worth, from the problem's own data: never from what a solver says of itself.

Feasible: each row is met within ``FEASIBLE`` times the size of its gradient, bounds within rounding.  Stationary: there
are multipliers, found here by non-negative least squares, that balance the objective's gradient.  Solved: both, and the
objective is that of a minimum that was published, or that is known as another, local one.
Axes: n variables, M inequalities, E equalities, A rows and bounds that are tight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import null_space
from scipy.optimize import nnls
from torch import Tensor

from ._problem import TestProblem
from ._solvers import CountedFunctions

Floats = npt.NDArray[np.float64]
FEASIBLE = 1e-6  # in units of a row's gradient, or of the row where that is below 1
STATIONARY = 1e-2  # what multipliers leave of the objective's gradient, in units of 1 + it; stiff fits end near 3e-3
OBJECTIVE = 1e-6  # in units of |f| + FLOOR
FLOOR = 1e-2  # so that a least value of 0 is reached at 1e-8
PRECISE = 1e-5  # stationarity, in the same units, of a minimum that nobody published
CURVATURE = 1e-7  # share of the largest scaled curvature below which a negative one is rounding
ENDINGS = ("converged", "failed", "infeasible", "unbounded")


@dataclass(frozen=True)
class Judgement:
    """violation: largest, scaled.  stationarity: what multipliers leave.  gap: objective above the nearest minimum.

    solved: whether this is a minimum.  verdict: "right", "wrong" for a false word, "alarm" for a minimum that the
    solver does not call one, "failed" for an honest failure.
    """

    objective: float
    violation: float
    stationarity: float
    gap: float
    solved: bool
    verdict: str


def judge(problem: TestProblem, x: Tensor, says: str) -> Judgement:
    """Return what a point is worth, and whether the word for it, one of ``ENDINGS``, is true."""
    if says not in ENDINGS:
        raise ValueError(f"{says} is no ending; wanted one of {ENDINGS}")
    violation, stationarity, objective = measure(problem, x)
    gap = min(abs(objective - f) / (abs(f) + FLOOR) for f in (problem.least, *problem.local))
    solved = violation <= FEASIBLE and stationarity <= STATIONARY and gap <= OBJECTIVE
    if says == "converged":
        verdict = "right" if solved else "wrong"
    elif says == "failed":
        verdict = "alarm" if solved else "failed"
    else:
        verdict = "wrong" if math.isfinite(problem.least) else "failed"  # where a minimum is known, there is one
    return Judgement(objective, violation, stationarity, gap, solved, verdict)


def measure(problem: TestProblem, x: Tensor) -> tuple[float, float, float]:
    """Return the largest scaled violation, what is left of the gradient, and the objective; infinite if not finite."""
    x = x.detach().double().clone().requires_grad_()
    f = problem.objective(x)
    (gradient,) = torch.autograd.grad(f, x)
    g_M, jacobian_Mn = _differentiate(problem.inequality, x)
    h_E, jacobian_En = _differentiate(problem.equality, x)
    point = x.detach().numpy()
    lower, upper = problem.lower.numpy(), problem.upper.numpy()
    gradient_n = gradient.numpy()
    if not all(np.isfinite(part).all() for part in (gradient_n, g_M, jacobian_Mn, h_E, jacobian_En, point)):
        return math.inf, math.inf, float(f.detach())
    size_M, size_E = (np.abs(part).max(axis=1, initial=1.0) for part in (jacobian_Mn, jacobian_En))
    outside = np.maximum(lower - point, point - upper).clip(min=0) / (1 + np.abs(point))
    violation = max(
        float((g_M / size_M).clip(min=0).max(initial=0.0)),
        float((np.abs(h_E) / size_E).max(initial=0.0)),
        float(outside.max()),
    )
    near = 10 * FEASIBLE
    unit_n = near * (1 + np.abs(point))
    eye_nn = np.eye(len(point))
    rows = [
        jacobian_Mn[g_M / size_M >= -near],
        jacobian_En,
        -jacobian_En,
        -eye_nn[point - lower <= unit_n],
        eye_nn[upper - point <= unit_n],
    ]
    return violation, _stationarity(gradient_n, np.concatenate(rows)), float(f.detach())


def _stationarity(gradient_n: Floats, rows_An: Floats) -> float:
    """Return the least ``|grad f + y A| / (1 + |grad f|)`` over y >= 0."""
    size = 1 + float(np.linalg.norm(gradient_n))
    if not len(rows_An):
        return float(np.linalg.norm(gradient_n)) / size
    return _balance(gradient_n, rows_An)[1] / size


def _balance(gradient_n: Floats, rows_An: Floats) -> tuple[Floats, float]:
    """Return the y >= 0, (A,), at which ``|grad f + y A|`` is least, and that; rows of any length count alike."""
    length_A = np.linalg.norm(rows_An, axis=1).clip(min=1e-300)
    weights_A, left = nnls((rows_An / length_A[:, None]).T, -gradient_n, maxiter=100 * len(rows_An))
    return weights_A / length_A, float(left)


def _differentiate(rows: object, x: Tensor) -> tuple[Floats, Floats]:
    if rows is None:
        return np.zeros(0), np.zeros((0, len(x)))
    values = rows(x)  # type: ignore[operator]
    jacobian = torch.autograd.functional.jacobian(rows, x.detach())  # type: ignore[no-untyped-call, arg-type]
    return values.detach().numpy(), jacobian.numpy().reshape(-1, len(x))


def has_no_descent(problem: TestProblem, x: Tensor) -> bool:
    """Say whether a point is stationary to many digits, and curvature is not negative along what is tight there."""
    x = x.detach().double()
    if measure(problem, x)[1] > PRECISE:
        return False
    counted = CountedFunctions(problem)
    _, gradient_n, c_C, jacobian_Cn = counted.at(x.numpy())
    M, size_C = counted.M, np.abs(jacobian_Cn).max(axis=1, initial=1.0)
    tight_C = (np.arange(len(c_C)) >= M) | (c_C / size_C >= -10 * FEASIBLE)
    unit_n, eye_nn = 10 * FEASIBLE * (1 + np.abs(x.numpy())), np.eye(len(x))
    low_n, high_n = ((x - problem.lower).numpy() <= unit_n), ((problem.upper - x).numpy() <= unit_n)
    rows_An = np.concatenate([jacobian_Cn[tight_C], -jacobian_Cn[M:], -eye_nn[low_n], eye_nn[high_n]])
    weight_C = np.zeros(len(c_C))
    if len(rows_An):
        weights_A, _ = _balance(gradient_n, rows_An)
        bound = int(tight_C.sum())
        weight_C[tight_C] = weights_A[:bound]
        weight_C[M:] -= weights_A[bound : bound + len(c_C) - M]
    hessian_nn = counted.hessian(x.numpy(), weight_C, 1.0)
    scale_n = np.sqrt(np.maximum(np.abs(np.diag(hessian_nn)), 1e-8 * np.abs(hessian_nn).max() + 1e-300))
    scaled_nn = hessian_nn / np.outer(scale_n, scale_n)
    tangent_nt = null_space(rows_An / scale_n) if len(rows_An) else eye_nn
    if not tangent_nt.shape[1]:
        return True
    least = np.linalg.eigvalsh(tangent_nt.T @ scaled_nn @ tangent_nt)[0]
    return bool(least >= -CURVATURE * max(float(np.abs(scaled_nn).max()), 1e-300))
