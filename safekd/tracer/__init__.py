"""The trace of a run: one point an audit, as a table and as CSV.

Each point holds full-pass numbers only: loss, every constraint as measured and as its surrogate with a standard
error, multipliers, penalties, and the four KKT residuals of ``solvers.kkt``.
"""

from ._trace import ConstraintReading, Trace, TracePoint

__all__ = ["ConstraintReading", "Trace", "TracePoint"]
