"""Contenders: ``solvers.minimize``, Ipopt, scipy's SLSQP and trust-constr, from the same start, at their
defaults but for SLSQP's ftol, 1e-10: its default of 1e-6 ends far from most minima.

Derivatives are exact.  ``once``: first derivatives only, as functions have them that torch differentiates once; then
Ipopt runs with its limited-memory Hessian, trust-constr with BFGS.  An evaluation is a new point at which anything was
asked.  Axes: n variables, M inequalities, E equalities.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import optimize
from torch import Tensor

from solvers import minimize

from ._problem import TestProblem

Floats = npt.NDArray[np.float64]
SAYS = {
    "converged": "converged",
    "infeasible": "infeasible",
    "unbounded": "unbounded",
    "diverged": "unbounded",
}  # of solvers.statuses; all others are failures


@dataclass(frozen=True)
class Answer:
    """x (n,); what the solver says of it, a word of ``_judge.ENDINGS``; new points, Hessians, what it said in full."""

    x: Tensor
    says: str
    evaluations: int
    hessians: int
    message: str


class CountedFunctions:
    """A problem's functions on flat arrays, counting new points; one pass serves whatever is asked at the last one."""

    def __init__(self, problem: TestProblem) -> None:
        self.problem, self.seen, self.hessians = problem, set[bytes](), 0
        self.last: bytes = b""
        self.values: tuple[float, Floats, Floats, Floats] = (0.0, np.zeros(0), np.zeros(0), np.zeros(0))
        self.M = 0 if problem.inequality is None else len(problem.inequality(problem.x0))
        self.E = 0 if problem.equality is None else len(problem.equality(problem.x0))

    def note(self, x: Tensor) -> None:
        """Count a point, once."""
        self.seen.add(x.detach().numpy().tobytes())

    def at(self, x_n: Floats) -> tuple[float, Floats, Floats, Floats]:
        """Return f, its gradient, rows (g, h) and their Jacobian."""
        x_n = np.asarray(x_n, dtype=np.float64)
        if x_n.tobytes() != self.last:
            x = torch.from_numpy(x_n.copy()).requires_grad_()
            self.note(x)
            f = self.problem.objective(x)
            gradient = torch.autograd.grad(f, x)[0] if f.requires_grad else torch.zeros_like(x)
            rows = self.rows(x)
            jacobian = [torch.autograd.grad(row, x, retain_graph=True)[0] for row in rows]
            J = torch.stack(jacobian).numpy() if jacobian else np.zeros((0, len(x_n)))
            values = rows.detach().numpy()
            self.last, self.values = x_n.tobytes(), (float(f.detach()), gradient.numpy(), values, J)
        return self.values

    def rows(self, x: Tensor) -> Tensor:
        """Return g and h in one row."""
        parts = [rows(x) for rows in (self.problem.inequality, self.problem.equality) if rows is not None]
        return torch.cat(parts) if parts else x.new_zeros(0)

    def hessian(self, x_n: Floats, weight_C: Floats, f_weight: float) -> Floats:
        """Return second derivatives of ``f_weight f + weight . rows``."""
        self.hessians += 1
        weight = torch.from_numpy(np.asarray(weight_C, dtype=np.float64).copy())

        def lagrangian(x: Tensor) -> Tensor:
            return f_weight * self.problem.objective(x) + weight @ self.rows(x)

        x = torch.from_numpy(np.asarray(x_n, dtype=np.float64).copy())
        H: Floats = torch.autograd.functional.hessian(lagrangian, x).numpy()  # type: ignore[no-untyped-call]
        return H


class _Once(torch.autograd.Function):
    """A function whose gradient is known and cannot be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(x)
        return function(x).detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            return torch.autograd.grad(ctx.function(x), x, grad)[0], None


def solve_ours(problem: TestProblem, *, once: bool) -> Answer:
    """Run ``solvers.minimize``."""
    counted = CountedFunctions(problem)

    def wrap(function: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor] | None:
        if function is None:
            return None

        def call(x: Tensor) -> Tensor:
            counted.note(x)
            value: Tensor = _Once.apply(x, function) if once else function(x)  # type: ignore[no-untyped-call]
            return value

        return call

    objective = wrap(problem.objective)
    assert objective is not None
    s = minimize(
        objective,
        problem.x0,
        inequality=wrap(problem.inequality),
        equality=wrap(problem.equality),
        bounds=(problem.lower, problem.upper),
    )
    return Answer(s.x, SAYS.get(s.status, "failed"), len(counted.seen), s.hessians, f"{s.status}: {s.message}")


def solve_scipy(problem: TestProblem, method: str, *, once: bool) -> Answer:
    """Run SLSQP or trust-constr."""
    counted = CountedFunctions(problem)
    M, C = counted.M, counted.M + counted.E
    extra: dict[str, Any] = {}
    if method == "SLSQP":
        extra["constraints"] = [
            {"type": kind, "fun": lambda x, i=rows, s=sign: s * counted.at(x)[2][i],
             "jac": lambda x, i=rows, s=sign: s * counted.at(x)[3][i]}
            for kind, rows, sign in (("ineq", slice(0, M), -1), ("eq", slice(M, C), 1))
            if rows.stop > rows.start
        ]  # fmt: skip
        extra["options"] = {"maxiter": 1000, "ftol": 1e-10}
    else:
        low = np.concatenate([np.full(M, -np.inf), np.zeros(C - M)])
        second = optimize.BFGS() if once else (lambda x, v: counted.hessian(x, v, 0.0))
        extra["constraints"] = (
            [optimize.NonlinearConstraint(
                lambda x: counted.at(x)[2], low, np.zeros(C), jac=lambda x: counted.at(x)[3], hess=second,
            )] if C else []
        )  # fmt: skip
        extra["hess"] = optimize.BFGS() if once else (lambda x: counted.hessian(x, np.zeros(C), 1.0))
        extra["options"] = {"maxiter": 500}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = optimize.minimize(
            lambda x: counted.at(x)[0],
            problem.x0.numpy(),
            jac=lambda x: counted.at(x)[1],
            method=method,
            bounds=optimize.Bounds(problem.lower.numpy(), problem.upper.numpy()),
            **extra,
        )
    good = bool(result.success) if method == "SLSQP" else result.status in (1, 2) and result.constr_violation <= 1e-6
    message = str(result.message)
    return Answer(
        torch.from_numpy(result.x), "converged" if good else "failed", len(counted.seen), counted.hessians, message
    )


def solve_ipopt(problem: TestProblem, *, once: bool) -> Answer:
    """Run Ipopt."""
    import cyipopt

    counted = CountedFunctions(problem)
    n, M, C = len(problem.x0), counted.M, counted.M + counted.E
    lower_triangle = np.tril_indices(n)

    class Callbacks:
        def objective(self, x: Floats) -> float:
            return counted.at(x)[0]

        def gradient(self, x: Floats) -> Floats:
            return counted.at(x)[1]

        def constraints(self, x: Floats) -> Floats:
            return counted.at(x)[2]

        def jacobian(self, x: Floats) -> Floats:
            return counted.at(x)[3].ravel()

    if not once:
        Callbacks.hessian = lambda self, x, lagrange, factor: counted.hessian(x, lagrange, factor)[lower_triangle]  # type: ignore[attr-defined]
        Callbacks.hessianstructure = lambda self: lower_triangle  # type: ignore[attr-defined]
    low = np.concatenate([np.full(M, -1e20), np.zeros(C - M)])
    solver = cyipopt.Problem(
        n, C, problem_obj=Callbacks(), lb=problem.lower.numpy(), ub=problem.upper.numpy(), cl=low, cu=np.zeros(C)
    )
    solver.add_option("print_level", 0)
    solver.add_option("sb", "yes")
    if once:
        solver.add_option("hessian_approximation", "limited-memory")
    x_n, info = solver.solve(problem.x0.numpy())
    says = {0: "converged", 2: "infeasible", 4: "unbounded"}.get(info["status"], "failed")
    return Answer(torch.from_numpy(x_n), says, len(counted.seen), counted.hessians, str(info["status_msg"]))


SOLVERS: dict[str, Callable[..., Answer]] = {
    "ours": solve_ours,
    "Ipopt": solve_ipopt,
    "SLSQP": lambda problem, *, once: solve_scipy(problem, "SLSQP", once=once),
    "trust-constr": lambda problem, *, once: solve_scipy(problem, "trust-constr", once=once),
}
