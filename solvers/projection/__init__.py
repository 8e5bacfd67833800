"""The nearest conforming weights.

    euclidean   minimise 1/2 |w - v|^2                             over w in the polytope
    kl          minimise sum w_k log(w_k / v_k)    (v > 0)         over w in the polytope

>>> from solvers.polytope import WeightPolytope
>>> import torch
>>> project(torch.tensor([0.9, 0.3, -1.0]), WeightPolytope(3, lower=0.1, upper=0.6))
tensor([0.6000, 0.3000, 0.1000])

Two engines give one answer.  *exact*: uniform bounds and any partial order; one isotonic regression, one threshold
(``_projection_autograd``).  The regression of tiers needs a sort and one pass (``_vector_programs``, ``_row_kernels``,
``_torch_isotonic``);
that of other orders looks at all upper sets (``_upper_set_kernels``), or searches where they are too many
(``_forest_search``).  Bounds per teacher or per row, and margins, on orderings that rank the teachers; pooled inside
the search for the threshold (``_bounded_projection``).  *cvxpy*: every other polytope; cvxpy models it, an active-set
method makes the
answer exact (``_cvxpy_backend``, ``_active_set``, ``_general_projection``).  ``_projection_plan`` chooses.

``certify_projection`` proves of any weights, whoever computed them, how close to the projection they are.
"""

from ._project import project
from .certificate._projection_certificate import ProjectionCertificate, certify_projection

__all__ = ["ProjectionCertificate", "certify_projection", "project"]
