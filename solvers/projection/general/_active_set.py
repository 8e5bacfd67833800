"""A primal active-set method that ends at the exact projection (Nocedal and Wright 2006, algorithm 16.3).

A working set of independent rules is held as equalities; `target` solves that problem.  Walk towards the target; a
rule that blocks joins the set; at the target, the rule with the most negative multiplier leaves; none left: done.
Started beside the optimum it takes a step or two.  Multipliers are >= 0 for rules  row . w <= bound.

Axes: K teachers, M rules, W rules in the working set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
# (rows_WK, bounds_W, w_K) -> the optimum on those equalities and their multipliers, or None
Target = Callable[[Floats, Floats, Floats], "tuple[Floats, Floats] | None"]

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class ActiveSetSettings:
    """What counts as dependent and as touched; the tests of degenerate corners notice a change.

    Attributes:
        independent: Part of a rule's norm that must be left beside other rules for it not to follow from them.
        near: Slack, in units of weights, up to which a start touches a rule: solvers end within 1e-9.
        far: Distance from the polytope, in units of weights, beyond which rounding of scores shows.  Such scores are
            drawn in along the normal they left by, which keeps the answer, and projected again.
    """

    independent: float = 1e-9
    near: float = 1e-7
    far: float = 4.0


ACTIVE_SET = ActiveSetSettings()


@dataclass(frozen=True)
class ActiveSetResult:
    """Where the method stopped.

    Attributes:
        w: Weights, shape (K,).
        active: The working set.
        finished: Whether the KKT conditions hold there.
    """

    w: Floats
    active: list[int]
    finished: bool


@dataclass(frozen=True)
class ActiveSetRules:
    """The rules ``rows w <= bounds`` among which the working set is chosen.

    Attributes:
        rows: Coefficients on the teachers that count, shape (M, K).
        bounds: Right-hand sides, shape (M,).
        equal: Which are equalities, shape (M,).
        eligible: Which may join the working set, shape (M,).
    """

    rows: Floats
    bounds: Floats
    equal: Mask
    eligible: Mask


def walk_active_set(start_K: Floats, rules: ActiveSetRules, target: Target, size: float) -> ActiveSetResult:
    """Walk from a nearly feasible start to the optimum.  size: of the scores, on which rounding depends."""
    active = _pick_first_set(start_K, rules)
    w_K = start_K
    limit = 4 * (len(rules.bounds) + len(w_K))
    for step in range(limit):
        answer = target(rules.rows[active], rules.bounds[active], w_K)
        if answer is None:
            break
        target_K, multiplier_W = answer
        length, blocking = _measure_step(w_K, target_K, active, rules, size)
        w_K = target_K if length >= 1 else w_K + length * (target_K - w_K)
        if blocking is not None:
            active = [*active, blocking]
            continue
        leaving = _find_leaving(multiplier_W, active, rules, size, first=2 * step > limit)
        if leaving is None:
            return ActiveSetResult(w_K, active, True)
        active = [m for m in active if m != leaving]
    return ActiveSetResult(w_K, active, False)


def _pick_first_set(w_K: Floats, rules: ActiveSetRules) -> list[int]:
    """Return independent rules: equalities, then those that the start nearly touches, nearest first."""
    slack_M = rules.bounds - rules.rows @ w_K
    near = [int(m) for m in np.argsort(slack_M, kind="stable") if rules.eligible[m] and slack_M[m] < ACTIVE_SET.near]
    return pick_independent([int(m) for m in np.flatnonzero(rules.equal)] + near, rules.rows)


def pick_independent(candidates: list[int], rows_MK: Floats) -> list[int]:
    """Return the candidates, in order, whose rows do not depend on those before."""
    basis: list[Floats] = []
    chosen = []
    for m in candidates:
        rest_K = rows_MK[m].copy()
        for _ in range(2):  # the second pass removes what rounding left
            for unit_K in basis:
                rest_K = rest_K - (unit_K @ rest_K) * unit_K
        norm = float(np.linalg.norm(rest_K))
        if norm > ACTIVE_SET.independent * max(float(np.linalg.norm(rows_MK[m])), 1e-300):
            basis.append(rest_K / norm)
            chosen.append(m)
    return chosen


def _measure_step(
    w_K: Floats, target_K: Floats, active: list[int], rules: ActiveSetRules, size: float
) -> tuple[float, int | None]:
    """Return the part of the way that stays feasible, and the rule that blocks."""
    rate_M = rules.rows @ (target_K - w_K)
    slack_M = np.maximum(rules.bounds - rules.rows @ w_K, 0.0)
    blocked_M = rules.eligible & (rate_M > slack_M + 8 * _EPS * max(1.0, size))
    blocked_M[active] = False
    for m in sorted(np.flatnonzero(blocked_M), key=lambda m: (slack_M[m] / rate_M[m], m)):
        if len(pick_independent([*active, int(m)], rules.rows)) > len(active):
            return float(slack_M[m] / rate_M[m]), int(m)
    return 1.0, None


def _find_leaving(
    multiplier_W: Floats, active: list[int], rules: ActiveSetRules, size: float, first: bool
) -> int | None:
    """Return the rule with the most negative multiplier, or the first such (Bland), which cannot cycle."""
    wrong = [
        (float(y), m)
        for y, m in zip(multiplier_W, active, strict=True)
        if not rules.equal[m] and y < -64 * _EPS * max(1.0, size)
    ]
    if not wrong:
        return None
    return min(m for _, m in wrong) if first else min(wrong)[1]
