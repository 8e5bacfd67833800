"""The optimum on a set of equalities  A w = b, and its multipliers.

euclidean   w = v - A^T lambda                          a linear solve
kl          w = v exp(-A^T lambda)                      Newton on the dual, sum(w) + b . lambda, which is convex

A has independent rows.  Axes: K teachers, W equalities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_TINY = 5e-324
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class DualNewtonSettings:
    """When Newton's method on the dual of KL gives up; tests of KL on general polytopes notice a change.

    Attributes:
        most_steps: Steps; ten are usual.
        arrived: The largest gap of an equality, in units of weights, that a linear step can close.
        shortest: The shortest part of a step that is tried in the line search.
        decrease: Part of the predicted decrease that a step must bring (Armijo).
    """

    most_steps: int = 60
    arrived: float = 1e-11
    shortest: float = 1e-12
    decrease: float = 1e-4


_SETTINGS = DualNewtonSettings()


class EuclideanTarget:
    """Projects v onto the equalities."""

    def __init__(self, v_K: Floats) -> None:
        self._v_K = v_K

    def __call__(self, rows_WK: Floats, bounds_W: Floats, w_K: Floats) -> tuple[Floats, Floats]:
        """Return the nearest point of the equalities and their multipliers."""
        basis_KW, triangle_WW = np.linalg.qr(rows_WK.T)
        off_K = self._v_K - w_K
        along_W = basis_KW.T @ off_K
        inside_K = w_K + (off_K - basis_KW @ along_W)
        # large scores leave rounding in A w: step back onto the equalities
        missing_W = np.linalg.solve(triangle_WW.T, bounds_W - rows_WK @ inside_K)
        answer_K: Floats = inside_K + basis_KW @ missing_W
        return answer_K, np.linalg.solve(triangle_WW, basis_KW.T @ (self._v_K - answer_K))


class KullbackLeiblerTarget:
    """Finds the I-projection of v onto the equalities; works with log v, so any positive v will do."""

    def __init__(self, log_v_K: Floats) -> None:
        self._log_v_K = log_v_K

    def __call__(self, rows_WK: Floats, bounds_W: Floats, w_K: Floats) -> tuple[Floats, Floats] | None:
        """Return the optimum and its multipliers, or None if Newton's method does not arrive."""
        root_K = np.sqrt(w_K)
        ratio_K = np.log(np.maximum(w_K, _TINY)) - self._log_v_K  # a weight may have underflowed to zero
        nu_W = _solve_least_squares((rows_WK * root_K).T, root_K * ratio_K)
        for _ in range(_SETTINGS.most_steps):
            point_K = self._compute_weights(rows_WK, nu_W)
            gap_W = bounds_W - rows_WK @ point_K
            if np.abs(gap_W).max() <= 4 * _EPS * max(1.0, float(np.abs(bounds_W).max())):
                break
            step_W = _solve_newton_step(rows_WK, point_K, gap_W)
            moved_W = self._search_line(rows_WK, bounds_W, nu_W, step_W, float(gap_W @ step_W))
            if moved_W is None:
                break
            nu_W = moved_W
        point_K = self._compute_weights(rows_WK, nu_W)
        gap_W = bounds_W - rows_WK @ point_K
        if not (np.abs(gap_W).max() <= _SETTINGS.arrived):
            return None
        # exp costs the last digits of large exponents; a linear step brings them back
        point_K = point_K * (1 + _solve_newton_step(rows_WK, point_K, gap_W) @ rows_WK)
        return point_K, -nu_W

    def _compute_weights(self, rows_WK: Floats, nu_W: Floats) -> Floats:
        weights_K: Floats = np.exp(np.minimum(self._log_v_K + nu_W @ rows_WK, 50.0))
        return weights_K

    def _search_line(
        self, rows_WK: Floats, bounds_W: Floats, nu_W: Floats, step_W: Floats, decrease: float
    ) -> Floats | None:
        """Halve the step until the dual falls enough (backtracking line search); None if only rounding is left."""
        before = self._measure_dual(rows_WK, bounds_W, nu_W)
        length = 1.0
        while length > _SETTINGS.shortest:
            moved_W: Floats = nu_W + length * step_W
            allowed = before - _SETTINGS.decrease * length * decrease + 4 * _EPS * max(1.0, abs(before))
            if self._measure_dual(rows_WK, bounds_W, moved_W) <= allowed:
                return moved_W
            length /= 2
        return None

    def _measure_dual(self, rows_WK: Floats, bounds_W: Floats, nu_W: Floats) -> float:
        return float(self._compute_weights(rows_WK, nu_W).sum() - bounds_W @ nu_W)


def _solve_newton_step(rows_WK: Floats, point_K: Floats, gap_W: Floats) -> Floats:
    hessian_WW = (rows_WK * point_K) @ rows_WK.T
    # weights of very different size: equilibrate before solving
    scale_W = 1 / np.sqrt(np.maximum(np.diag(hessian_WW), 1e-300))
    return scale_W * _solve_least_squares(hessian_WW * np.outer(scale_W, scale_W), scale_W * gap_W)


def _solve_least_squares(matrix: Floats, rhs: Floats) -> Floats:
    return np.asarray(np.linalg.lstsq(matrix, rhs, rcond=None)[0], dtype=np.float64)
