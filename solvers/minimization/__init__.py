"""Constrained minimisation of any differentiable problem: multipliers, residuals, and an honest verdict.

    s = minimize(objective, x0, inequality=g, equality=h, bounds=(lower, upper))     # g(x) <= 0, h(x) = 0
    s.x, s.multipliers, s.status, s.message, s.residuals, s.history

The augmented Lagrangian method with inner solves to a tolerance; signs are those of ``solvers.lagrangian``.
"""

from ._minimize import minimize
from ._solution import Solution

__all__ = ["Solution", "minimize"]
