"""Recursive meta-distillation: each generation's student teaches the next one, anchored to the base teachers.

``recurse_distributions`` follows the distributions alone, where closed forms are known.
"""

from ._distribution_recursion import DistributionRecursion, Form, divergence_from, recurse_distributions

__all__ = ["DistributionRecursion", "Form", "divergence_from", "recurse_distributions"]
