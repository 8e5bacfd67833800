"""The numbers of a polytope, as they were read: what rules, feasibility and conformance are worked out from.

Axes: K teachers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from ._linear_rows import LinearRows
from ._partial_orders import Pairs
from ._polytope_numbers import Vector


@dataclass(frozen=True, init=False)
class PolytopeFields:
    """The numbers that say which weights conform.

    Attributes:
        n_teachers: K, at least 1.
        lower: Lower bound of each weight, shape (K,).
        upper: Upper bound of each weight, shape (K,).
        orderings: Pairs (i, j), sorted, meaning w_i >= w_j + margin.
        margin: By how much ordered weights differ at least, in units of weights.
        linear: Further rows A w <= b and C w = d.
        ties: Whether orderings may go round in a circle, whose teachers then weigh the same.
        names: What the teachers are called, in their order; empty where nobody said.  They change no rule.
    """

    n_teachers: int
    lower: Vector
    upper: Vector
    orderings: Pairs
    margin: float
    linear: LinearRows
    ties: bool
    names: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def describe(self, teacher: int) -> str:
        """Return what messages call a teacher: "teacher 2 ('cheap')".

        Args:
            teacher: Its number.
        """
        return f"teacher {teacher}" + (f" ('{self.names[teacher]}')" if self.names else "")

    @cached_property
    def uniform_bounds(self) -> tuple[float, float] | None:
        """(lower, upper) if all teachers share them, else None."""
        shared = len(set(self.lower)) == 1 and len(set(self.upper)) == 1
        return (self.lower[0], self.upper[0]) if shared else None
