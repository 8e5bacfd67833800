"""Everyone who takes part in the projection benchmark: ours on each engine, the peers, and a plain copy.

Each is called as its own users would call it, with the fastest settings found for these problems that keep its answer
right.  ``build`` does what a user does once (model, compile, allocate); the call it returns is what is timed.  Every
peer gets the short list of rules (``solver_rows``), and data in the form it likes, made before the clock starts.

Axes: B rows, K teachers, M rules.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers import project

from ._cases import Case, solver_rows

# (case, v_BK, c_BK, with_gradient) -> a call that returns w, or w and the gradient of sum(c * w)
Build = Callable[[Case, Tensor, Tensor, bool], Callable[[], Any]]


@dataclass(frozen=True)
class Contender:
    """Who, how it is set, how many threads it uses and for which cases it is a peer.

    packages: what pip installs.  tolerance, gradient_tolerance: how far its answers may be from ours, by its own
    promise; None: it makes no answer (the copy), or no gradient.
    """

    name: str
    build: Build
    settings: str
    threads: str
    cases: tuple[str, ...]
    packages: tuple[str, ...] = ()
    tolerance: float | None = 1e-9
    gradient_tolerance: float | None = 1e-6

    @property
    def has_gradient(self) -> bool:
        """Tell whether forward plus backward can be measured."""
        return self.gradient_tolerance is not None or self.tolerance is None


def _ours(engine: str) -> Build:
    def build(case: Case, v_BK: Tensor, c_BK: Tensor, with_gradient: bool) -> Callable[[], Any]:
        polytope = case.polytope

        def forward() -> Tensor:
            return project(v_BK, polytope, engine=engine)

        def both() -> tuple[Tensor, Tensor]:
            leaf_BK = v_BK.detach().requires_grad_()
            w_BK = project(leaf_BK, polytope, engine=engine)
            w_BK.backward(c_BK)
            assert leaf_BK.grad is not None
            return w_BK, leaf_BK.grad

        return both if with_gradient else forward

    return build


def _copy(case: Case, v_BK: Tensor, c_BK: Tensor, with_gradient: bool) -> Callable[[], Any]:
    w_BK, slope_BK = torch.zeros_like(v_BK), torch.zeros_like(v_BK)

    def both() -> tuple[Tensor, Tensor]:
        return w_BK.copy_(v_BK), slope_BK.copy_(c_BK)

    return both if with_gradient else lambda: w_BK.copy_(v_BK)


def _cvxpy_problem(case: Case) -> tuple[Any, Any, Any]:
    """Return a new problem, its parameter and its variable.

    New each time: two cvxpylayers 1.2.0 layers with Moreau made from one Problem give wrong answers, the second
    permutes compiled matrices that the first has permuted.
    """
    import cvxpy as cp

    rows_MK, bounds_M = solver_rows(case.polytope)
    w_K, v_K = cp.Variable(case.K), cp.Parameter(case.K)
    rules = [cp.sum(w_K) == 1, rows_MK @ w_K <= bounds_M]
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(w_K) - v_K @ w_K), rules), v_K, w_K


def _clarabel_loop(case: Case, v_BK: Tensor, c_BK: Tensor, with_gradient: bool) -> Callable[[], Any]:
    problem, v_K, w_K = _cvxpy_problem(case)
    scores_BK = v_BK.numpy()

    def forward() -> np.ndarray:
        answers_BK = np.empty_like(scores_BK)
        for row, scores_K in enumerate(scores_BK):
            v_K.value = scores_K
            problem.solve(solver="CLARABEL", enforce_dpp=True)
            answers_BK[row] = w_K.value
        return answers_BK

    return forward


def _layer(layer_options: dict[str, Any], solver_args: dict[str, Any]) -> Build:
    def build(case: Case, v_BK: Tensor, c_BK: Tensor, with_gradient: bool) -> Callable[[], Any]:
        from cvxpylayers.torch import CvxpyLayer

        problem, v_K, w_K = _cvxpy_problem(case)
        layer = CvxpyLayer(problem, parameters=[v_K], variables=[w_K], **layer_options)

        def forward() -> Tensor:
            with torch.no_grad():
                return layer(v_BK, solver_args=solver_args)[0]

        def both() -> tuple[Tensor, Tensor]:
            leaf_BK = v_BK.detach().requires_grad_()
            (w_BK,) = layer(leaf_BK, solver_args=solver_args)
            w_BK.backward(c_BK)
            return w_BK, leaf_BK.grad

        return both if with_gradient else forward

    return build


def _moreau(case: Case, v_BK: Tensor, c_BK: Tensor, with_gradient: bool) -> Callable[[], Any]:
    import moreau
    from scipy import sparse

    rows_MK, bounds_M = solver_rows(case.polytope)
    A = sparse.csr_array(np.vstack([np.ones(case.K), rows_MK]))
    B, K = v_BK.shape
    solver = moreau.CompiledSolver(
        n=K,
        m=A.shape[0],
        P_row_offsets=np.arange(K + 1),
        P_col_indices=np.arange(K),
        A_row_offsets=A.indptr,
        A_col_indices=A.indices,
        cones=moreau.Cones(num_zero_cones=1, num_nonneg_cones=len(bounds_M)),
        settings=moreau.Settings(solver="active_set", device="cpu", batch_size=B, enable_grad=with_gradient),
    )
    solver.setup(np.ones(K), A.data)  # one P = I and one A, shared by all rows
    q_BK, slope_BK = -v_BK.numpy(), c_BK.numpy()
    b_BM = np.ascontiguousarray(np.broadcast_to(np.append(1.0, bounds_M), (B, A.shape[0])))

    def both() -> tuple[np.ndarray, np.ndarray]:
        w_BK = solver.solve(q_BK, b_BM).x
        return w_BK, -solver.backward(slope_BK)["dq"]

    return both if with_gradient else lambda: solver.solve(q_BK, b_BM).x


def _jaxopt(case: Case, v_BK: Tensor, c_BK: Tensor, with_gradient: bool) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    nearest = _jaxopt_nearest(case)
    v, c = jnp.asarray(v_BK.numpy()), jnp.asarray(c_BK.numpy())
    rows = jax.vmap(nearest)
    forward = jax.jit(rows)

    def weighed(v: Any, c: Any) -> Any:
        w = rows(v)
        return (w * c).sum(), w

    slope = jax.jit(jax.grad(weighed, has_aux=True))

    def both() -> Any:
        gradient, w = jax.block_until_ready(slope(v, c))
        return w, gradient

    return both if with_gradient else lambda: forward(v).block_until_ready()


def _jaxopt_nearest(case: Case) -> Callable[[Any], Any]:
    import jax.numpy as jnp
    from jaxopt import OSQP, projection

    K, (lower, upper) = case.K, case.polytope.uniform_bounds or (0.0, 1.0)
    if not case.polytope.orderings:
        section = (jnp.full(K, lower), jnp.full(K, upper), jnp.ones(K), 1.0)
        return lambda v_K: projection.projection_box_section(v_K, section)
    rows_MK, bounds_M = solver_rows(case.polytope)
    osqp = OSQP(matvec_Q=lambda _, w_K: w_K, check_primal_dual_infeasability=False, tol=1e-6, maxiter=20_000)
    rules = {
        "params_eq": (jnp.ones((1, K)), jnp.ones(1)),
        "params_ineq": (jnp.asarray(rows_MK), jnp.asarray(bounds_M)),
    }
    return lambda v_K: osqp.run(params_obj=(None, -v_K), **rules).params.primal


def _torchisotonic(case: Case, v_BK: Tensor, c_BK: Tensor, with_gradient: bool) -> Callable[[], Any]:
    from torchisotonic import isotonic

    def nearest(v_BK: Tensor) -> Tensor:
        # averaging keeps the sum, so no bound binding, one shift by a known amount ends it
        return isotonic(v_BK, increasing=False) + (1 - v_BK.sum(dim=-1, keepdim=True)) / case.K

    def both() -> tuple[Tensor, Tensor]:
        leaf_BK = v_BK.detach().requires_grad_()
        w_BK = nearest(leaf_BK)
        w_BK.backward(c_BK)
        assert leaf_BK.grad is not None
        return w_BK, leaf_BK.grad

    return both if with_gradient else lambda: nearest(v_BK)


_CORES = f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"
_TORCH = "torch.get_num_threads()"
_ORDERED = ("chain", "dag")
_ITERATIVE = {"tolerance": 1e-3, "gradient_tolerance": 1e-2}
_MOREAU = {"solver": "active_set", "device": "cpu"}
OURS = "ours, auto"

CONTENDERS: tuple[Contender, ...] = (
    Contender(OURS, _ours("auto"), "the default", _TORCH, ("chain", "bounds", "order", "dag")),
    Contender("ours, exact", _ours("exact"), "engine='exact'", _TORCH, ("chain", "dag")),
    Contender("ours, cvxpy", _ours("cvxpy"), "engine='cvxpy'", "1", ("chain",), tolerance=1e-7),
    Contender(
        "Moreau direct",
        _moreau,
        "CompiledSolver, solver='active_set', P = I and A shared, batch_size=B, enable_grad only with backward",
        f"{_CORES}, its own",
        ("chain", "bounds", "order", "dag"),
        packages=("moreau",),
        tolerance=1e-8,
        gradient_tolerance=1e-5,
    ),
    Contender(
        "cvxpylayers + Moreau",
        _layer({"solver": "MOREAU", "solver_args": _MOREAU}, {}),
        "solver='MOREAU', solver_args: solver='active_set', device='cpu'; DPP, P and A constant, so set up once",
        f"{_CORES}, Moreau's own",
        ("chain", "bounds", "dag"),
        packages=("cvxpylayers", "moreau"),
        tolerance=1e-8,
        gradient_tolerance=1e-5,
    ),
    Contender(
        "cvxpylayers + diffcp",
        _layer({}, {"solve_method": "Clarabel"}),
        "solve_method='Clarabel' (faster and closer than SCS), mode lsqr (dense is faster, but its gradients are off "
        "by 2e-2), n_jobs at the default, all cores",
        f"{_CORES}, diffcp's pool",
        _ORDERED,
        packages=("cvxpylayers", "diffcp"),
        **_ITERATIVE,
    ),
    Contender(
        "cvxpy + Clarabel loop",
        _clarabel_loop,
        "one DPP problem, compiled once, solved row by row at Clarabel's default tolerances; no gradient",
        "1",
        _ORDERED,
        packages=("cvxpy", "clarabel"),
        tolerance=1e-3,
        gradient_tolerance=None,
    ),
    Contender(
        "jaxopt",
        _jaxopt,
        "float64, jit(vmap(...)); without an order projection_box_section (accurate to 1e-5, its bisection is fixed), "
        "with one OSQP(tol=1e-6), which projection_polyhedron wraps at a fixed tol=1e-3 and is then off by 1e-2",
        f"{_CORES}, XLA's pool",
        ("chain", "bounds"),
        packages=("jaxopt", "jax"),
        **_ITERATIVE,
    ),
    Contender(
        "torchisotonic",
        _torchisotonic,
        "isotonic(increasing=False), then one shift: knows no bounds, so only where none binds; solves less than ours",
        _TORCH,
        ("order",),
        packages=("torchisotonic",),
    ),
    Contender("copy", _copy, "copy_ into memory allocated before; twice with backward", _TORCH, ("chain",), (), None),
)


def contender(name: str) -> Contender:
    """Return the contender of that name."""
    return next(one for one in CONTENDERS if one.name == name)
