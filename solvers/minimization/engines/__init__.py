"""Engines: ways to a minimum, each for a class of problems, all under one verdict (``OuterLoop.verify``).

Newton's method in a trust region, for problems without rows (``_bounded_newton``); first-order primal-dual steps with
any dual method (``_first_order``).
"""
