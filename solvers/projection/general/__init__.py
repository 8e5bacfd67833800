"""The projection onto any polytope, for what has no exact path: linear rows, bounds that cross an order.

``_canonical_form`` writes the polytope as rows, once.  A solver of ``backends`` proposes weights; ``_batch_polish``
proves most proposals of a batch at once, and ``_active_set`` walks from the others to the optimum, on whose equalities
``_equality_targets`` solves (``_general_solve``).  ``_snap_to_polytope`` makes bounds and orderings exact, and
``_general_projection`` adds the derivative.
"""

from ._general_projection import project_general

__all__ = ["project_general"]
