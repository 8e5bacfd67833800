"""What safekd hands on from ``solvers``, under its own door."""

from solvers.polytope import LinearRows, WeightPolytope
from solvers.primal_dual import AugmentedLagrangian, PIGain, PlainAscent
from solvers.projection import project

__all__ = ["AugmentedLagrangian", "LinearRows", "PIGain", "PlainAscent", "WeightPolytope", "project"]
