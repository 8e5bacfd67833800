"""A polytope spelled out as named rows, the form that linear programmes and messages need.

Every rule reads  row . w <= bound,  or  = bound.  Axes: K teachers, M rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ._weight_polytope import WeightPolytope

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """One row of the polytope.

    name: as a user would say it.  kind: lower, upper, ordering, linear, equal or sum.  index: the teacher, the pair's
    place in ``orderings`` or the row's in ``linear``.
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


def list_rules(polytope: WeightPolytope) -> tuple[Rule, ...]:
    """Return every rule of the polytope; the sum comes first."""
    return tuple(_rules(polytope))


def _rules(polytope: WeightPolytope) -> Iterator[Rule]:
    K = polytope.n_teachers
    unit = np.eye(K)
    yield Rule("weights must sum to 1", "sum", 0, (1.0,) * K, 1.0)
    for k in range(K):
        low, high = polytope.lower[k], polytope.upper[k]
        yield Rule(f"lower={low:g} on teacher {k}", "lower", k, _row(-unit[k]), -low)
        yield Rule(f"upper={high:g} on teacher {k}", "upper", k, _row(unit[k]), high)
    by = f" by margin {polytope.margin:g}" if polytope.margin else ""
    for place, (i, j) in enumerate(polytope.orderings):
        yield Rule(f"teacher {i} >= teacher {j}{by}", "ordering", place, _row(unit[j] - unit[i]), -polytope.margin)
    for m, (row, bound) in enumerate(zip(polytope.linear.A, polytope.linear.b, strict=True)):
        yield Rule(f"linear row {m} (A w <= b)", "linear", m, row, bound)
    for m, (row, bound) in enumerate(zip(polytope.linear.C, polytope.linear.d, strict=True)):
        yield Rule(f"linear row {m} (C w = d)", "equal", m, row, bound)


def _row(values: Floats) -> tuple[float, ...]:
    return tuple(float(x) + 0.0 for x in values)


def stack_rules(rules: Sequence[Rule]) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Return the rows (M, K), the bounds (M,) and which rules are equalities (M,)."""
    rows_MK = np.array([rule.row for rule in rules], dtype=np.float64)
    bounds_M = np.array([rule.bound for rule in rules], dtype=np.float64)
    return rows_MK, bounds_M, np.array([rule.equality for rule in rules], dtype=bool)
