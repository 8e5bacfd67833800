"""The sets that weights must lie in, one record a set.

    W = {w in R^K : sum(w) = 1, lower <= w <= upper, w_i >= w_j + margin, A w <= b, C w = d}

``WeightPolytope`` holds the rules and is refused at construction if no weights meet them, with the rules that
conflict and the least change that makes room.  ``check`` judges given weights, rule by rule:

>>> rules = WeightPolytope(n_teachers=3, lower=0.1, upper=0.6, orderings=[(0, 2)])
>>> rules.check([0.6, 0.2, 0.2]).holds()
True
>>> rules.check([0.7, 0.2, 0.1]).holds()
False

``tiers`` tells whether the orderings sort the teachers into ranks, the case that has an exact projection.

Inside: ``_weight_polytope`` reads the numbers (``_polytope_numbers``, ``_linear_rows``, ``_partial_orders``) into
``_polytope_fields``; ``_polytope_rules`` spells them out as named rules, ``_polytope_feasibility`` refuses those that
leave no weights, with the advice of ``_least_change``, and ``_conformance`` checks given weights.
``_bounds_in_dtype`` rounds bounds to what a floating type can hold.
"""

from ._bounds_in_dtype import bounds_within, interval_within, nearest_bounds
from ._conformance import Conformance, RuleViolation
from ._linear_rows import LinearRows
from ._partial_orders import Pairs, closure, find_cycle, number_orderings, read_orderings
from ._polytope_rules import Rule, stack_rules
from ._weight_polytope import WeightPolytope

__all__ = [
    "Conformance",
    "LinearRows",
    "Pairs",
    "Rule",
    "RuleViolation",
    "WeightPolytope",
    "bounds_within",
    "closure",
    "find_cycle",
    "interval_within",
    "nearest_bounds",
    "number_orderings",
    "read_orderings",
    "stack_rules",
]
