"""A polytope spelled out as named rows, the form that linear programs and messages need.

Every rule reads  row . w <= bound,  or  = bound.  Axes: K teachers, M rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ._polytope_fields import PolytopeFields

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """One inequality  row . w <= bound  of the polytope, or an equality.

    Attributes:
        name: As a user would say it.
        kind: lower, upper, ordering, linear, equal or sum.
        index: The teacher, the pair's place in ``orderings``, or the row's in ``linear``.
        row: Coefficients, shape (K,).
        bound: Right-hand side.
    """

    name: str
    kind: str
    index: int
    row: tuple[float, ...]
    bound: float

    @property
    def equality(self) -> bool:
        """Tell whether the rule reads  row . w = bound."""
        return self.kind in ("equal", "sum")


def list_rules(polytope: PolytopeFields) -> tuple[Rule, ...]:
    """Return every rule of the polytope; the sum comes first."""
    return tuple(_yield_rules(polytope))


def _yield_rules(polytope: PolytopeFields) -> Iterator[Rule]:
    K = polytope.n_teachers
    unit = np.eye(K)
    yield Rule("weights must sum to 1", "sum", 0, (1.0,) * K, 1.0)
    for k in range(K):
        low, high = polytope.lower[k], polytope.upper[k]
        yield Rule(f"lower={low:g} on {polytope.describe(k)}", "lower", k, _to_row(-unit[k]), -low)
        yield Rule(f"upper={high:g} on {polytope.describe(k)}", "upper", k, _to_row(unit[k]), high)
    by = f" by margin {polytope.margin:g}" if polytope.margin else ""
    for place, (i, j) in enumerate(polytope.orderings):
        yield Rule(
            f"{polytope.describe(i)} >= {polytope.describe(j)}{by}",
            "ordering",
            place,
            _to_row(unit[j] - unit[i]),
            -polytope.margin,
        )
    for m, (row, bound) in enumerate(zip(polytope.linear.A, polytope.linear.b, strict=True)):
        yield Rule(f"linear row {m} (A w <= b)", "linear", m, row, bound)
    for m, (row, bound) in enumerate(zip(polytope.linear.C, polytope.linear.d, strict=True)):
        yield Rule(f"linear row {m} (C w = d)", "equal", m, row, bound)


def _to_row(values: Floats) -> tuple[float, ...]:
    return tuple(float(x) + 0.0 for x in values)


def stack_rules(rules: Sequence[Rule]) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Return rules as arrays.

    Args:
        rules: M rules of K teachers.

    Returns:
        The rows, shape (M, K), the bounds, shape (M,), and which rules are equalities, shape (M,).
    """
    rows_MK = np.array([rule.row for rule in rules], dtype=np.float64)
    bounds_M = np.array([rule.bound for rule in rules], dtype=np.float64)
    return rows_MK, bounds_M, np.array([rule.equality for rule in rules], dtype=bool)
