"""The nearest conforming weights.

    euclidean   minimize 1/2 |w - v|^2                             over w in the polytope
    kl          minimize sum w_k log(w_k / v_k)    (v > 0)         over w in the polytope

>>> from solvers.polytope import WeightPolytope
>>> import torch
>>> project(torch.tensor([0.9, 0.3, -1.0]), WeightPolytope(3, lower=0.1, upper=0.6))
tensor([0.6000, 0.3000, 0.1000])

What happens inside, in this order: ``_project`` is the front door; ``_eager_projection`` reads scores and rules once
(``_projection_inputs``, ``_row_bounds``), has ``_projection_plan`` choose the path of each row, and runs the plan.  Two
paths give one answer.  *exact*: uniform bounds and any partial order, or bounds that differ and margins on orderings
that rank the teachers; one isotonic regression, one threshold.  *general*: every other polytope; cvxpy or Moreau
proposes, an active-set method makes the answer exact.  ``_captured_projection`` stands for all this in graphs that
torch.compile captures.

``certify_projection`` proves of any weights, whoever computed them, how close to the projection they are.
"""

from ._project import project
from .certificate import ProjectionCertificate, certify_projection

__all__ = ["ProjectionCertificate", "certify_projection", "project"]
