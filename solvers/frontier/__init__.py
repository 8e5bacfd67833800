"""The frontier between two objectives of any differentiable problem, and what its points tell of each other."""

from ._checks import contradicts_slope, largest_gaps

__all__ = ["contradicts_slope", "largest_gaps"]
