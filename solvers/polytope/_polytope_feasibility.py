"""Decide whether any weights meet the rules, and if none do, say which rules conflict and what makes room.

Uniform bounds with or without margin-free orderings have a closed form, K lower <= 1 <= K upper, because the uniform
vector meets every such ordering; so have other bounds without orderings, sum(lower) <= 1 <= sum(upper).  Everything
else is a linear program.  The conflict is found by the deletion filter of Chinneck and Dravnieks (1991): drop every
rule without which the rest still conflict.  The way out is an elastic programme: give every setting some slack and use
as little of it as possible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import OptimizeResult, linprog

from solvers.errors import InfeasiblePolytope, InvalidInput, SolverFailure

from ._least_change import describe_least_change, round_down, round_up
from ._polytope_fields import PolytopeFields
from ._polytope_rules import Rule, list_rules, stack_rules


@dataclass(frozen=True)
class FeasibilitySettings:
    """How closely the linear program is held to the rules; the tests of narrow polytopes notice a change.

    Attributes:
        tolerance: Of HiGHS, in units of rows scaled to 1.  Its default, 1e-7, would show in the sum of the weights.
        most_numbers: In the rows of a program, which are dense: this many take 400 MB, and as much again in HiGHS.
    """

    tolerance: float = 1e-10
    most_numbers: int = 50_000_000


_SETTINGS = FeasibilitySettings()


def require_feasible(polytope: PolytopeFields) -> None:
    """Raise InfeasiblePolytope, with the conflict and a way out, if no weights meet the rules."""
    if polytope.uniform_bounds and not polytope.linear and not (polytope.margin and polytope.orderings):
        _require_room_for_one(polytope.n_teachers, *polytope.uniform_bounds)
        return
    if not polytope.linear and not polytope.orderings and math.fsum(polytope.lower) <= 1 <= math.fsum(polytope.upper):
        return
    rows = 1 + 2 * polytope.n_teachers + len(polytope.orderings) + len(polytope.linear.b) + len(polytope.linear.d)
    if rows * polytope.n_teachers > _SETTINGS.most_numbers:
        raise InvalidInput(
            f"Rules that differ between {polytope.n_teachers:,} teachers make {rows:,} rows of as many numbers; wanted "
            f"at most {_SETTINGS.most_numbers:,} numbers in all. Take fewer teachers, or one bound for all."
        )
    rules = list_rules(polytope)
    if not _is_feasible(rules):
        conflict = _find_smallest_conflict(rules)
        raise InfeasiblePolytope(
            f"No weights satisfy the rules for {polytope.n_teachers} teachers. These conflict: "
            f"{'; '.join(rule.name for rule in conflict)}. {describe_least_change(polytope, rules)}"
        )


def _require_room_for_one(n_teachers: int, lower: float, upper: float) -> None:
    """Check K lower <= 1 <= K upper, granting K upper = 1 its rounding: 49 * (1 / 49) is below 1."""
    grace = n_teachers * np.finfo(np.float64).eps
    share = 1 / n_teachers
    head = f"No weights satisfy the rules for {n_teachers} teacher{'s' * (n_teachers > 1)}"
    if n_teachers * upper < 1 - grace:
        raise InfeasiblePolytope(
            f"{head}: upper={upper:g} allows at most {n_teachers * upper:g} in total, and weights must sum to 1. "
            f"Raise `upper` to at least {round_up(share)}, or add a teacher."
        )
    if n_teachers * lower > 1 + grace:
        raise InfeasiblePolytope(
            f"{head}: lower={lower:g} takes at least {n_teachers * lower:g} in total, and weights must sum to 1. "
            f"Lower `lower` to at most {round_down(share)}, or drop a teacher."
        )


def _is_feasible(rules: Sequence[Rule]) -> bool:
    result = _find_any_weights(rules)
    if result.status not in (0, 2):
        raise SolverFailure(
            f"HiGHS could not tell whether the rules leave room: {result.message} "
            "Bring the coefficients of the linear rows to a common scale near 1."
        )
    return bool(result.status == 0)


def _find_any_weights(rules: Sequence[Rule]) -> OptimizeResult:
    rows_MK, bounds_M, equal_M = stack_rules(rules)
    scale_M = np.maximum(np.abs(rows_MK).max(axis=1), 1e-300)
    rows_MK, bounds_M = rows_MK / scale_M[:, None], bounds_M / scale_M
    return linprog(
        np.zeros(rows_MK.shape[1]),
        A_ub=rows_MK[~equal_M],
        b_ub=bounds_M[~equal_M],
        A_eq=rows_MK[equal_M],
        b_eq=bounds_M[equal_M],
        bounds=(None, None),
        method="highs",
        options={
            "primal_feasibility_tolerance": _SETTINGS.tolerance,
            "dual_feasibility_tolerance": _SETTINGS.tolerance,
        },
    )


def _find_smallest_conflict(rules: Sequence[Rule]) -> list[Rule]:
    """Return rules that conflict together, none of which can be spared."""
    kept = list(rules)
    for rule in reversed(rules):
        fewer = [other for other in kept if other is not rule]
        if fewer and not _is_feasible(fewer):
            kept = fewer
    return kept
