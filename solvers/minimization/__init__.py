"""Constrained minimization of any differentiable problem: multipliers, residuals, and a status that was shown.

    s = minimize(objective, x0, inequality=g, equality=h, bounds=(lower, upper))     # g(x) <= 0, h(x) = 0
    s.x, s.multipliers, s.status, s.message, s.residuals, s.history

What happens in here, in this order: the problem is read, checked and scaled, each variable in a unit of its own
(``problem``); engines for its class are tried, cheap ones first (``engines``: a trust region where there are bounds
only, linear and quadratic programs, sequential quadratic programming, first-order steps with a dual method). Where
they settle nothing, the outer loop (``_outer_loop``) minimizes the augmented Lagrangian by L-BFGS and Newton steps
(``_inner_minimization``), steps the multipliers, and asks Newton's method on the KKT conditions for the last digits
(``_newton_kkt``). Whatever looks like an end is verified the same way, whoever found it: curvature and descent
(``_descent_directions``), missing multipliers and kinks (``_degenerate``), falls without end (``_unboundedness``);
where rows stay violated feasibility is restored or infeasibility proved (``_least_violation``). Signs are those of
``solvers.lagrangian``, statuses those of ``solvers.statuses``. Start a neighboring problem from ``s.x`` and
``multipliers=s.multipliers``.
"""

from ._minimize import minimize
from ._solution import Solution
from .problem._user_functions import StartNotFinite

__all__ = ["Solution", "StartNotFinite", "minimize"]
