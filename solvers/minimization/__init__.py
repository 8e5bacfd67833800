"""Constrained minimization of any differentiable problem: multipliers, residuals, and a status that was shown.

    s = minimize(objective, x0, inequality=g, equality=h, bounds=(lower, upper))     # g(x) <= 0, h(x) = 0
    s.x, s.multipliers, s.status, s.message, s.residuals, s.history

What happens in here, in this order: the functions are read and scaled (``_user_functions``, ``_scaled_problem``); the
outer loop (``_outer_loop``) minimizes the augmented Lagrangian by L-BFGS and Newton steps with a line search in a trust
region (``_inner_minimization``), steps the multipliers, and asks Newton's method on the KKT conditions for the last
digits (``_newton_kkt``); what looks like an end is verified (``_descent_directions``, ``_degenerate``), and where rows
stay violated feasibility is restored or infeasibility proved (``_least_violation``).  With a dual method,
first-order steps take the loop's place (``_first_order``).  Signs are those of ``solvers.lagrangian``, statuses those
of ``solvers.statuses``.  Start a neighboring problem from ``s.x`` and ``multipliers=s.multipliers``.
"""

from ._minimize import minimize
from ._solution import Solution
from .problem._user_functions import StartNotFinite

__all__ = ["Solution", "StartNotFinite", "minimize"]
