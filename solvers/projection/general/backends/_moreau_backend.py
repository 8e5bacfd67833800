"""Many rows of one polytope in one call, where the optional solver `moreau` is installed.

Moreau's dual active-set method takes the euclidean problem  1/2 |w|^2 - v . w  as it stands, compiled once a polytope,
and returns the multipliers with the weights.  What it says is a proposal: ``_batch_polish`` recomputes each row on the
rules that it names and checks all four optimality conditions; rows that it does not solve go to cvxpy's solvers.

A compiled solver serves one batch size, so rows go in blocks of a few sizes, filled up with copies of their first row.
Axes: B rows, K teachers, M rules.
"""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MoreauSettings:
    """How Moreau is asked; its tests count the rows that it leaves to others.

    Attributes:
        most_spread: Size to which centered scores are drawn in, in units of weights: further out Moreau reports
            numerical errors, and which rules bind has usually shown long before.
        blocks: Rows that a compiled solver serves at once.
        tolerance: Of its active-set method, in units of weights.
        feasible: Excess of a rule up to which a proposal counts as solved.
    """

    most_spread: float = 100.0
    blocks: tuple[int, ...] = (1, 8, 64, 256, 1024)
    tolerance: float = 1e-12
    feasible: float = 1e-9


MOREAU = MoreauSettings()


@dataclass(frozen=True)
class MoreauProposals:
    """Weights (B, K), the rules that carry a multiplier (B, M), and which rows were solved (B,)."""

    w: Floats
    active: Mask
    solved: Mask


class MoreauModel:
    """A polytope compiled for Moreau; ``solve`` may be called from several threads."""

    def __init__(self, moreau: Any, rows_MK: Floats, bounds_M: Floats, equal_M: Mask) -> None:
        self._moreau = moreau
        self._lock = threading.Lock()
        self._solvers: dict[int, Any] = {}
        self._rows, self._bounds, self._equal = rows_MK, bounds_M, equal_M
        # Moreau wants equalities first
        self._order = np.r_[np.flatnonzero(equal_M), np.flatnonzero(~equal_M)]

    def solve(self, v_BK: Floats) -> MoreauProposals:
        """Return proposals for centered scores; those that lie too far out are drawn in."""
        size_B1 = np.abs(v_BK).max(axis=1, keepdims=True, initial=0.0)
        near_BK = v_BK * np.minimum(1.0, MOREAU.most_spread / np.maximum(size_B1, MOREAU.most_spread))
        with self._lock:
            blocks = [self._solve_block(block_BK) for block_BK in _split_into_blocks(near_BK)]
        w_BK, z_BM, said_B = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        excess_BM = w_BK @ self._rows.T - self._bounds
        # NaN fails the comparison
        feasible_B = np.where(self._equal, np.abs(excess_BM), excess_BM).max(axis=1) <= MOREAU.feasible
        return MoreauProposals(w_BK, (z_BM > 0) | self._equal, said_B & feasible_B)

    def _solve_block(self, v_BK: Floats) -> tuple[Floats, Floats, Mask]:
        size = next(size for size in MOREAU.blocks if size >= len(v_BK))
        solver = self._solver(size)
        filled_BK = np.concatenate([v_BK, np.broadcast_to(v_BK[0], (size - len(v_BK), v_BK.shape[1]))])
        answer = solver.solve(-filled_BK, np.tile(self._bounds[self._order], (size, 1)))
        # the status before the value
        solved_B = np.array([status == self._moreau.SolverStatus.Solved for status in solver.info.status])
        z_BM = np.empty((size, len(self._bounds)))
        z_BM[:, self._order] = np.asarray(answer.z)
        return np.array(answer.x)[: len(v_BK)], z_BM[: len(v_BK)], solved_B[: len(v_BK)]

    def _solver(self, size: int) -> Any:
        if size not in self._solvers:
            self._solvers[size] = self._compile(size)
        return self._solvers[size]

    def _compile(self, size: int) -> Any:
        rows_MK = self._rows[self._order]
        M, K = rows_MK.shape
        filled_MK = rows_MK != 0
        solver = self._moreau.CompiledSolver(
            n=K,
            m=M,
            P_row_offsets=np.arange(K + 1),
            P_col_indices=np.arange(K),
            A_row_offsets=np.r_[0, filled_MK.sum(axis=1).cumsum()],
            A_col_indices=np.nonzero(filled_MK)[1],
            cones=self._moreau.Cones(num_zero_cones=int(self._equal.sum()), num_nonneg_cones=int((~self._equal).sum())),
            settings=self._moreau.Settings(
                solver="active_set",
                device="cpu",
                batch_size=size,
                active_set_settings=self._moreau.ActiveSetSettings(primal_tol=MOREAU.tolerance),
            ),
        )
        solver.setup(np.ones(K), rows_MK[filled_MK])
        return solver


def open_moreau(rows_MK: Floats, bounds_M: Floats, equal_M: Mask) -> MoreauModel | None:
    """Return the batched model, or None where Moreau is not installed."""
    try:
        moreau = importlib.import_module("moreau")
    except ImportError:
        return None
    return MoreauModel(moreau, rows_MK, bounds_M, equal_M)


def _split_into_blocks(v_BK: Floats) -> list[Floats]:
    return [v_BK[start : start + MOREAU.blocks[-1]] for start in range(0, len(v_BK), MOREAU.blocks[-1])]
