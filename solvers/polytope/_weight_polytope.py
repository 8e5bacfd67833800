"""The polytope of conforming weights, as one frozen value.

Axes: K teachers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from solvers.errors import InvalidInput

from ..short_repr import ShortRepr
from ._conformance import Conformance, check_weights
from ._linear_rows import read_linear
from ._partial_orders import (
    Pairs,
    between_groups,
    covering_pairs,
    number_orderings,
    read_orderings,
    tied_teachers,
    tier_pairs,
    topological_order,
    weak_order_tiers,
)
from ._polytope_feasibility import require_feasible
from ._polytope_fields import PolytopeFields
from ._polytope_numbers import number_bounds, read_bound, read_count, read_names, read_nonnegative
from ._polytope_rules import Rule, list_rules

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor


@dataclass(frozen=True, init=False, repr=False)
class WeightPolytope(ShortRepr, PolytopeFields):
    """Weights w of K teachers with  sum(w) = 1,  lower <= w <= upper,  w_i >= w_j + margin,  A w <= b,  C w = d.

    Two polytopes with the same content are equal and hash alike.

    Args:
        n_teachers: K, at least 1.
        lower: Lower bounds, one number or shape (K,), at least 0; or by name, 0 for those that are not named.
        upper: Upper bounds, one number or shape (K,); or by name, 1 for those that are not named.
        orderings: Pairs (i, j), meaning w_i >= w_j + margin; any partial order.  Numbers, or names where ``names`` are
            given.
        margin: By how much ordered weights differ at least, in units of weights.
        linear: Further rows: None, ``LinearRows``, (A, b), (A, b, C, d) or a mapping with those keys.
        ties: True lets orderings go round in a circle, whose teachers then weigh the same.
        names: What the teachers are called, in their order, for orderings, bounds and messages.

    Raises:
        InvalidInput: A number cannot be meant: negative or not finite, a bad index, a cycle, a wrong shape.
        InfeasiblePolytope: No weights exist; the message names the rules that conflict and the least change.

    >>> WeightPolytope(3, upper=0.5) == WeightPolytope(3, upper=[0.5, 0.5, 0.5])
    True
    >>> WeightPolytope(3, names=["expert", "fast", "cheap"], orderings=[("expert", "cheap")]).orderings
    ((0, 2),)
    """

    def __init__(
        self,
        n_teachers: int,
        lower: float | npt.ArrayLike | Mapping[str, float] = 0.0,
        upper: float | npt.ArrayLike | Mapping[str, float] = 1.0,
        orderings: Iterable[tuple[int, int] | tuple[str, str]] = (),
        margin: float = 0.0,
        linear: object = None,
        ties: bool = False,
        names: Iterable[str] = (),
    ) -> None:
        K = read_count(n_teachers)
        known = read_names(names, K)
        if not isinstance(ties, (bool, np.bool_)):
            raise InvalidInput(f"`ties` is {ties!r}; wanted True or False.")
        self._fill(
            n_teachers=K,
            lower=read_bound("lower", number_bounds(lower, known, 0.0), K),
            upper=read_bound("upper", number_bounds(upper, known, 1.0), K),
            orderings=read_orderings(number_orderings(orderings, known), K, bool(ties)),
            margin=read_nonnegative("margin", margin),
            linear=read_linear(linear, K),
            ties=bool(ties),
            names=known,
        )
        for k, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            _require_interval(self.describe(k), low, high)
        require_feasible(self)

    def _fill(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __hash__(self) -> int:
        """Return the hash of the numbers, worked out once: each projection looks its plan up by it."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in fields(self) if field.compare))

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
        """Return this polytope with the orderings of scores.

        Args:
            scores: Shape (K,); the higher score weighs at least as much, equal ones are free of each other.

        Raises:
            InfeasiblePolytope: With these orderings no weights exist.
        """
        return self.with_orderings(tier_pairs(tuple(scores)))

    def with_bounds(self, lower: Iterable[float], upper: Iterable[float]) -> WeightPolytope:
        """Return this polytope with other bounds.

        Args:
            lower: Lower bounds, shape (K,).
            upper: Upper bounds, shape (K,).

        Raises:
            InfeasiblePolytope: With these bounds no weights exist.
        """
        return replace(self, lower=tuple(lower), upper=tuple(upper))

    def with_orderings(self, orderings: Iterable[tuple[int, int] | tuple[str, str]]) -> WeightPolytope:
        """Return this polytope with other orderings.

        Args:
            orderings: Pairs (i, j), meaning w_i >= w_j + margin.

        Raises:
            InfeasiblePolytope: With these orderings no weights exist.
        """
        return replace(self, orderings=number_orderings(tuple(orderings), self.names))

    def check(
        self,
        w: Tensor | npt.ArrayLike,
        safety: Tensor | npt.ArrayLike | None = None,
        critical: Tensor | npt.ArrayLike | None = None,
    ) -> Conformance:
        """Check given weights, rule by rule.

        Bounds and margin-free orderings are held to exactly, in w's own dtype; the sum may miss 1 by K ulp (K times the
        dtype's eps), a margin by 2 ulp, a linear row by 1e-9.  NaN holds no rule.

        Args:
            w: Weights, shape (..., K), a tensor, an array or lists.
            safety: Scores, shape (..., K) or (K,), whose order the weights must follow; only for a polytope without
                orderings.
            critical: Booleans, shape (...,), True on rows to which orderings apply; None: all of them.

        Returns:
            One entry a rule, with the worst row; ``holds()`` tells whether all rules do.

        Raises:
            InvalidInput: A shape or dtype does not fit.
        """
        return check_weights(self, self.rules, w, safety, critical)


def _require_interval(who: str, low: float, high: float) -> None:
    if low < 0:
        raise InvalidInput(f"lower={low:g} on {who} is negative; weights are never below 0. Pass 0 or more.")
    if low > high:
        raise InvalidInput(f"lower={low:g} is above upper={high:g} on {who}. Swap them, or widen the interval.")
