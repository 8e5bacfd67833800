"""Constrained minimisation of any differentiable problem: multipliers, residuals, and an honest verdict.

    s = minimize(objective, x0, inequality=g, equality=h, bounds=(lower, upper))     # g(x) <= 0, h(x) = 0
    s.x, s.multipliers, s.status, s.message, s.residuals, s.history

The augmented Lagrangian method for the way there, Newton's method on the KKT conditions for the last digits; signs are
those of ``solvers.lagrangian``.  Start a neighbouring problem from ``s.x`` and ``multipliers=s.multipliers``.
"""

from ._inputs import StartNotFinite
from ._minimize import minimize
from ._solution import Solution

__all__ = ["Solution", "StartNotFinite", "minimize"]
