"""The polytope of conforming weights, as one frozen value.

Axes: K teachers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from solvers.errors import InvalidInput

from ._conformance import Conformance, judge
from ._linear_rows import LinearRows, read_linear
from ._partial_orders import (
    Pairs,
    between_groups,
    covering_pairs,
    read_orderings,
    tied_teachers,
    tier_pairs,
    topological_order,
    weak_order_tiers,
)
from ._polytope_feasibility import require_feasible
from ._polytope_numbers import Vector, read_bound, read_count, read_nonnegative
from ._polytope_rules import Rule, list_rules

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor


@dataclass(frozen=True, init=False)
class WeightPolytope:
    """Weights w of K teachers with  sum(w) = 1,  lower <= w <= upper,  w_i >= w_j + margin,  A w <= b,  C w = d.

    n_teachers: K, at least 1.  lower, upper: a scalar, or K numbers.  orderings: pairs (i, j), meaning
    w_i >= w_j + margin; any partial order.  ties: True lets orderings go round in a circle, whose teachers then weigh
    the same.  linear: None, ``LinearRows``, (A, b), (A, b, C, d) or a mapping.

    Two polytopes with the same content are equal and hash alike.  Raises InvalidInput for numbers that cannot be
    meant (negative or not finite, bad indices, a cycle, wrong shapes) and InfeasiblePolytope if no weights exist.

    >>> WeightPolytope(3, upper=0.5) == WeightPolytope(3, upper=[0.5, 0.5, 0.5])
    True
    """

    n_teachers: int
    lower: Vector
    upper: Vector
    orderings: Pairs
    margin: float
    linear: LinearRows
    ties: bool

    def __init__(
        self,
        n_teachers: int,
        lower: float | npt.ArrayLike = 0.0,
        upper: float | npt.ArrayLike = 1.0,
        orderings: Iterable[tuple[int, int]] = (),
        margin: float = 0.0,
        linear: object = None,
        ties: bool = False,
    ) -> None:
        K = read_count(n_teachers)
        self._fill(
            n_teachers=K,
            lower=read_bound("lower", lower, K),
            upper=read_bound("upper", upper, K),
            orderings=read_orderings(orderings, K, bool(ties)),
            margin=read_nonnegative("margin", margin),
            linear=read_linear(linear, K),
            ties=bool(ties),
        )
        for k, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            _require_interval(k, low, high)
        require_feasible(self)

    def _fill(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @cached_property
    def uniform_bounds(self) -> tuple[float, float] | None:
        """(lower, upper) if all teachers share them, else None."""
        shared = len(set(self.lower)) == 1 and len(set(self.upper)) == 1
        return (self.lower[0], self.upper[0]) if shared else None

    @cached_property
    def ranks(self) -> tuple[int, ...] | None:
        """A rank for each teacher, higher above lower, if the orderings make a weak order; else None.

        No orderings make one tier, a chain makes K.
        """
        return None if self.tied else weak_order_tiers(self.orderings, self.n_teachers)

    @cached_property
    def tiers(self) -> tuple[int, ...] | None:
        """The ranks, if they say everything besides uniform bounds; else None.

        They do when bounds are uniform, no margin applies and there are no linear rows.  Such polytopes have the
        fastest projection.
        """
        return None if self._rules_meet else self.ranks

    @cached_property
    def cover(self) -> Pairs | None:
        """The orderings without those that follow from others, those nearer the top first.

        None where bounds differ, a margin applies or there are linear rows: then order and bounds do not separate.
        """
        return None if self._rules_meet else covering_pairs(self.orderings, self.n_teachers)

    @property
    def _rules_meet(self) -> bool:
        together = self.uniform_bounds is None or bool(self.linear) or bool(self.margin and self.orderings)
        return together or bool(self.tied)

    @cached_property
    def tied(self) -> tuple[tuple[int, ...], ...]:
        """The groups of teachers whose orderings go round in a circle, so that they weigh the same."""
        return tied_teachers(self.orderings, self.n_teachers) if self.ties else ()

    @cached_property
    def untied(self) -> WeightPolytope:
        """The polytope without circles that treats the teachers of a group alike: same bounds, same orderings.

        Nothing in it tells them apart, so scores that do not either have a projection that does not.  Linear rows may
        tell them apart; then the ties stand among these.
        """
        if not self.tied:
            return self
        lower, upper = list(self.lower), list(self.upper)
        for group in self.tied:
            for k in group:
                lower[k], upper[k] = max(self.lower[m] for m in group), min(self.upper[m] for m in group)
        linear = self.linear.with_ties(self.tied, self.n_teachers) if self.linear else self.linear
        pairs = between_groups(self.orderings, self.tied)
        return replace(self, lower=tuple(lower), upper=tuple(upper), orderings=pairs, linear=linear, ties=False)

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule as a named row."""
        return list_rules(self)

    @cached_property
    def downward(self) -> tuple[int, ...]:
        """The teachers, each after all who stand above it."""
        return topological_order(self.orderings, self.n_teachers)

    def without_orderings(self) -> WeightPolytope:
        """Return the polytope of rows to which the orderings do not apply."""
        return self.with_orderings(())

    def ordered_by(self, scores: Iterable[float]) -> WeightPolytope:
        """Return this polytope with the orderings of ``scores``: the higher score weighs at least as much."""
        return self.with_orderings(tier_pairs(tuple(scores)))

    def with_bounds(self, lower: Iterable[float], upper: Iterable[float]) -> WeightPolytope:
        """Return this polytope with other bounds, one a teacher, feasible or refused."""
        return replace(self, lower=tuple(lower), upper=tuple(upper))

    def with_orderings(self, orderings: Iterable[tuple[int, int]]) -> WeightPolytope:
        """Return this polytope with other orderings, feasible or refused."""
        return replace(self, orderings=tuple(orderings))

    def check(
        self,
        w: Tensor | npt.ArrayLike,
        safety: Tensor | npt.ArrayLike | None = None,
        critical: Tensor | npt.ArrayLike | None = None,
    ) -> Conformance:
        """Judge given weights, rule by rule.

        w: shape (..., K), a tensor, an array or lists.  safety: scores (..., K) or (K,) whose order the weights must
        follow.  critical: mask (...,) of the rows to which orderings apply; None means all of them.

        Bounds and margin-free orderings are judged exactly, in w's own dtype; the sum may miss 1 by K ulp (K times the
        dtype's eps), a margin by 2 ulp, a linear row by 1e-9.  NaN holds no rule.  Raises InvalidInput on wrong shapes.
        """
        return judge(self, w, safety, critical)


def _require_interval(k: int, low: float, high: float) -> None:
    if low < 0:
        raise InvalidInput(f"lower={low:g} on teacher {k} is negative; weights are never below 0. Pass 0 or more.")
    if low > high:
        raise InvalidInput(f"lower={low:g} is above upper={high:g} on teacher {k}. Swap them, or widen the interval.")
