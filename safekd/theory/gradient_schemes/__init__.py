"""Weights together with schemes that modify gradients: PCGrad, MGDA, UPGrad and others of torchjd.

    rule = Conforming(GradientScheme(MGDAWeighting()), polytope)      # a scheme's weights, made conforming, in training
    compare_gradient_schemes(jacobian, {"MGDA": MGDAWeighting()}, polytope)     # what of its promise is left, measured

A scheme that weighs by the Gramian of gradients implies weights of teachers; those are projected like any others.
"""

from ._descent_table import compare_gradient_schemes, find_conforming_descent
from ._scheme_rule import GradientScheme, make_dual_cone_projector

__all__ = ["GradientScheme", "compare_gradient_schemes", "find_conforming_descent", "make_dual_cone_projector"]
