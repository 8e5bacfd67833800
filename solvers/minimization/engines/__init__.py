"""Engines: ways to a minimum, each for a class of problems, all under one verdict (``OuterLoop.verify``).

Newton's method in a trust region, for problems without rows (``_bounds_only``, ``_bounded_newton``); linear and convex
quadratic programs (``_programs``); sequential quadratic programming for few variables (``_sequential_quadratic``);
first-order primal-dual steps with any dual method (``_first_order``).
"""
