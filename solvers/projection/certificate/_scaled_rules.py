"""A polytope's rules on one scale, projections onto some of them, and a point inside.

Axes: N rows, K teachers, M rules, W of them chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog

from solvers.polytope import WeightPolytope, stack_rules

from ...short_repr import ShortRepr

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ScaledRulesSettings:
    """What counts as dependent, and as no room; the certificate's tests of degenerate polytopes notice a change.

    Attributes:
        rank: Singular value, relative to the largest, below which rules count as dependent.
        no_room: Slack, in units of weights, up to which a rule counts as holding with equality everywhere.
    """

    rank: float = 1e-10
    no_room: float = 1e-9


SCALED_RULES = ScaledRulesSettings()


@dataclass(frozen=True, repr=False)
class ScaledRules(ShortRepr):
    """The rules as ``rows w <= bounds``, each row divided by its largest coefficient.

    A slack then is of the size of weights, whatever units a linear row came in.

    Attributes:
        names: Of the rules, M of them.
        rows: Scaled coefficients, shape (M, K).
        bounds: Scaled right-hand sides, shape (M,).
        equal: Which rules are equalities, shape (M,).
        scale: What rows were divided by, shape (M,).
    """

    names: tuple[str, ...]
    rows: Floats
    bounds: Floats
    equal: Mask
    scale: Floats

    def measure_excess(self, w_NK: Floats) -> Floats:
        """Return how far each row lies beyond each rule, (N, M); negative is slack, equalities count both ways."""
        excess_NM: Floats = w_NK @ self.rows.T - self.bounds
        return np.where(self.equal, np.abs(excess_NM), excess_NM)

    def project_onto(self, w_NK: Floats, chosen_M: Mask) -> Floats:
        """Return the points nearest to w at which the chosen rules hold with equality."""
        rows_WK = self.rows[chosen_M]
        inverse_KW = np.linalg.pinv(rows_WK, rcond=SCALED_RULES.rank)
        for _ in range(2):  # the second pass removes what rounding left
            w_NK = w_NK - (w_NK @ rows_WK.T - self.bounds[chosen_M]) @ inverse_KW.T
        return w_NK


@dataclass(frozen=True)
class Interior:
    """A point with room to every rule that leaves any.  implied: inequalities that hold with equality everywhere."""

    point: Floats
    implied: Mask


@lru_cache(maxsize=512)
def scale_rules(polytope: WeightPolytope) -> ScaledRules:
    """Return the polytope's rules, brought to a common scale."""
    rows_MK, bounds_M, equal_M = stack_rules(polytope.rules)
    scale_M = np.abs(rows_MK).max(axis=1)
    scale_M[scale_M == 0] = 1.0
    names = tuple(rule.name for rule in polytope.rules)
    return ScaledRules(names, rows_MK / scale_M[:, None], bounds_M / scale_M, equal_M, scale_M)


@lru_cache(maxsize=512)
def find_interior(polytope: WeightPolytope) -> Interior:
    """Return a point of the relative interior: the one with the most room, or a mean of such points."""
    scaled = scale_rules(polytope)
    M = len(scaled.names)
    point_K, room = _find_most_room(scaled, (~scaled.equal).astype(float))
    implied_M = np.zeros(M, dtype=bool)
    if room <= SCALED_RULES.no_room:
        points = [_find_most_room(scaled, unit_M) for unit_M in np.eye(M)[~scaled.equal]]
        implied_M[~scaled.equal] = [room <= SCALED_RULES.no_room for _, room in points]
        point_K = np.mean([point_K for point_K, _ in points], axis=0)
    return Interior(scaled.project_onto(point_K[None], scaled.equal | implied_M)[0], implied_M)


def _find_most_room(scaled: ScaledRules, share_M: Floats) -> tuple[Floats, float]:
    """Return the point with the largest slack that all rules with share 1 have at once, and that slack."""
    K = scaled.rows.shape[1]
    result = linprog(
        np.r_[np.zeros(K), -1.0],
        A_ub=np.column_stack([scaled.rows, share_M])[~scaled.equal],
        b_ub=scaled.bounds[~scaled.equal],
        A_eq=np.column_stack([scaled.rows, np.zeros(len(share_M))])[scaled.equal],
        b_eq=scaled.bounds[scaled.equal],
        bounds=[(None, None)] * K + [(0, 1)],
    )
    if result.status != 0:  # no room that linear programming can see: the caller will find its point infeasible
        return np.full(K, 1 / K), 0.0
    return result.x[:K], float(result.x[K])
