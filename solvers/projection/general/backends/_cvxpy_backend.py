"""The projection as cvxpy states it, compiled once and solved for many scores.

    euclidean   minimize 1/2 |w|^2 - v . w          kl   minimize -entropy(w) - log v . w

over  rows w <= bounds  (= for equalities).  The scores are a parameter that enters linearly, so cvxpy compiles the
problem once (disciplined parameterized programming).  Solvers stumble over large scores (Clarabel calls a simplex
projection with scores near 1e4 infeasible), so scores are centered and drawn in: the answer is then a
feasible start rather than the optimum, and the active-set method takes it from there.

Axes: K teachers, M rules.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import cvxpy as cp
import numpy as np
import numpy.typing as npt
from cvxpy.atoms.affine.sum import sum as cvxpy_sum
from cvxpy.atoms.elementwise.entr import entr
from cvxpy.atoms.sum_squares import sum_squares

from solvers.errors import SolverFailure

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CvxpySettings:
    """How solvers are asked for a start; tests of scores of every size notice a change.

    Attributes:
        most_spread: By metric, the size to which centered scores (logarithms for KL) are drawn in, in units of weights:
            solvers stumble over larger ones.
        solvers: Names and options, the next one asked where one fails.  Clarabel's tolerances are a hundred times
            tighter than its defaults; SCS, the slower, is asked for 1e-9.
    """

    most_spread: Mapping[str, float] = field(default_factory=lambda: {"euclidean": 8.0, "kl": 30.0})
    solvers: tuple[tuple[str, Mapping[str, float]], ...] = (
        ("CLARABEL", {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10}),
        ("SCS", {"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iters": 100_000}),
    )


CVXPY = CvxpySettings()


class CvxpyModel:
    """A compiled problem; ``solve`` may be called from several threads."""

    def __init__(self, rows_MK: Floats, bounds_M: Floats, equal_M: npt.NDArray[np.bool_], metric: str) -> None:
        self._metric = metric
        self._lock = threading.Lock()
        self._w_K = cp.Variable(rows_MK.shape[1])
        self._v_K = cp.Parameter(rows_MK.shape[1])
        curved = 0.5 * sum_squares(self._w_K) if metric == "euclidean" else -cvxpy_sum(entr(self._w_K))
        rules = [rows_MK[equal_M] @ self._w_K == bounds_M[equal_M], rows_MK[~equal_M] @ self._w_K <= bounds_M[~equal_M]]
        self._problem = cp.Problem(cp.Minimize(curved - self._v_K @ self._w_K), rules)

    def solve(self, v_K: Floats) -> Floats:
        """Return weights that meet the rules to about 1e-9, optimal if the scores are of the size of weights."""
        scores_K = v_K if self._metric == "euclidean" else np.log(v_K)
        with self._lock:
            self._v_K.value = _draw_in(scores_K, CVXPY.most_spread[self._metric])
            reports = []
            for solver, options in CVXPY.solvers:
                report = self._try(solver, options)
                if report is None:
                    return np.array(self._w_K.value, dtype=np.float64)
                reports.append(f"{solver} {report}")
        raise SolverFailure(
            f"No solver could project the scores {np.array2string(v_K, precision=4)}: {'; '.join(reports)}. "
            "Bring linear rows to a common scale near 1, and widen a polytope that is nearly a point."
        )

    def _try(self, solver: str, options: Mapping[str, float]) -> str | None:
        """Solve; return None if there is an answer to use, else what went wrong."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the status is looked at below
                self._problem.solve(solver=solver, **options)  # type: ignore[no-untyped-call]
        except (cp.error.SolverError, ArithmeticError, ValueError) as cause:
            return f"stopped with {type(cause).__name__}"
        usable = self._problem.status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE)
        if not usable or self._w_K.value is None or not np.isfinite(self._w_K.value).all():
            return f"ended as {self._problem.status}"
        return None


def _draw_in(scores_K: Floats, most: float) -> Floats:
    """Center the scores, which changes no answer, and shrink them to a size of at most ``most``."""
    centered_K = scores_K - scores_K.mean()
    size = np.abs(centered_K).max()
    shrunk_K: Floats = centered_K * min(1.0, most / size) if size > 0 else centered_K
    return shrunk_K
