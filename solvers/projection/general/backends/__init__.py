"""Solvers that propose weights: cvxpy's, row by row, and Moreau, many rows at once, where it is installed.

Nobody trusts them: what they say is a start, which ``general`` proves or mends.  Importing this door imports neither.
"""
