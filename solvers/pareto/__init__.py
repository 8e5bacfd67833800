"""The frontier between two objectives of any differentiable problem, and what its points tell of each other.

    f = trace_frontier(objective, constrained, x0, targets=21, bounds=(0.0, 1.0))     # both to be minimised
    f.table, f.points, f.solutions, f.gaps, f.message

``method="epsilon"`` finds all of it, ``method="mu"`` what weighted sums find, and says what they cannot.
"""

from ._checks import contradicts_slope, largest_gaps
from ._frontier import Frontier, Gap
from ._trace import trace_frontier

__all__ = ["Frontier", "Gap", "contradicts_slope", "largest_gaps", "trace_frontier"]
