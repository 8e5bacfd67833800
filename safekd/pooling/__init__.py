"""Pooling: one target distribution from K teachers and their weights.

``arithmetic_pool`` is the linear pool sum_k w_k p_k; its result lies in the convex hull of the teachers, which is what
Definition III.7 of the paper asks of a token-weighted ensemble.
"""

from ._arithmetic_pool import arithmetic_pool

__all__ = ["arithmetic_pool"]
