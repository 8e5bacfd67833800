"""Contenders that solve a problem in one call: ``solvers.minimize``, scipy's trust-constr and SLSQP.

Each runs at its defaults, with exact gradients, from the same start, on flat vectors of float64.  An evaluation is one
call for f, g, h and their gradients at a new point.  Axes: n variables, M inequalities, E equalities.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from solvers import minimize

from ._judge import _jacobian
from ._problems import Problem


@dataclass(frozen=True)
class Answer:
    """x_n, lambda (M,), mu (E,), evaluations, seconds, and what the solver says of it."""

    x_n: Tensor
    lambda_M: Tensor
    mu_E: Tensor
    evaluations: int
    seconds: float
    says: str


@dataclass(frozen=True)
class Solver:
    """Who, how it is called, and its settings in words."""

    name: str
    solve: Callable[[Problem], Answer]
    settings: str


def _minimize(problem: Problem) -> Answer:
    bounds = None if problem.lower is None and problem.upper is None else (problem.lower, problem.upper)
    x0 = problem.start()[0].detach()
    start = time.process_time()
    solution = minimize(
        lambda x: problem.evaluate([x])[0],
        x0,
        inequality=(lambda x: problem.evaluate([x])[1]) if problem.M else None,
        equality=(lambda x: problem.evaluate([x])[2]) if problem.E else None,
        bounds=bounds,
    )
    seconds = time.process_time() - start
    return Answer(
        solution.x,
        solution.multipliers,
        solution.equality_multipliers,
        solution.evaluations,
        seconds,
        f"{solution.status}",
    )


class _Cached:
    """Values and gradients at the last point asked for: scipy asks for each by itself."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.calls, self.last_n = problem, 0, None
        self.values: tuple[Any, ...] = ()

    def at(self, x_n: np.ndarray) -> tuple[Any, ...]:
        if self.last_n is None or not np.array_equal(x_n, self.last_n):
            self.calls += 1
            x = torch.from_numpy(x_n.copy()).requires_grad_()
            f, g_M, h_E = self.problem.evaluate([x])
            rows = torch.cat([g_M, h_E])
            gradients = _jacobian(torch.cat([f.reshape(1), rows]), [x]).numpy()
            self.values = float(f.detach()), gradients[0], rows.detach().numpy(), gradients[1:]
            self.last_n = x_n.copy()
        return self.values


def _scipy(method: str) -> Callable[[Problem], Answer]:
    def solve(problem: Problem) -> Answer:
        cached, M = _Cached(problem), problem.M
        x0_n = problem.start()[0].detach().numpy()
        bounds = None
        if problem.lower is not None or problem.upper is not None:
            sides = (
                (-np.inf if problem.lower is None else problem.lower.numpy()),
                (np.inf if problem.upper is None else problem.upper.numpy()),
            )
            bounds = optimize.Bounds(*(np.broadcast_to(side, x0_n.shape) for side in sides))
        rows = _trust_rows(cached, problem) if method == "trust-constr" else _slsqp_rows(cached, problem)
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on linear rows
            result = optimize.minimize(
                lambda x_n: cached.at(x_n)[0],
                x0_n,
                jac=lambda x_n: cached.at(x_n)[1],
                method=method,
                bounds=bounds,
                constraints=rows,
            )
        seconds = time.process_time() - start
        if method == "trust-constr":
            multiplier_C = np.concatenate([*result.v[: len(rows)], np.zeros(0)])
            lambda_M, mu_E = multiplier_C[:M], multiplier_C[M:]
        else:  # equalities come first, and its Lagrangian subtracts
            lambda_M, mu_E = result.multipliers[problem.E :], -result.multipliers[: problem.E]
        as_tensor = torch.as_tensor
        return Answer(
            as_tensor(result.x), as_tensor(lambda_M), as_tensor(mu_E), cached.calls, seconds, str(result.message)
        )

    return solve


def _trust_rows(cached: _Cached, problem: Problem) -> list[Any]:
    M, C = problem.M, problem.M + problem.E
    sides = np.where(np.arange(C) < M, -np.inf, 0.0)
    return [
        optimize.NonlinearConstraint(
            lambda x_n: cached.at(x_n)[2], sides, np.zeros(C), jac=lambda x_n: cached.at(x_n)[3]
        )
    ]


def _slsqp_rows(cached: _Cached, problem: Problem) -> list[Any]:
    M = problem.M
    rows: list[Any] = []
    if problem.E:
        rows.append({"type": "eq", "fun": lambda x: cached.at(x)[2][M:], "jac": lambda x: cached.at(x)[3][M:]})
    if M:
        rows.append({"type": "ineq", "fun": lambda x: -cached.at(x)[2][:M], "jac": lambda x: -cached.at(x)[3][:M]})
    return rows


# students have thousands of weights in float32: for steps, not for these
SOLVERS = [
    Solver("ours, minimize", _minimize, "defaults: residuals of 1e-8"),
    Solver("scipy, trust-constr", _scipy("trust-constr"), "defaults, exact gradients, BFGS for curvature"),
    Solver("scipy, SLSQP", _scipy("SLSQP"), "defaults, exact gradients"),
]
