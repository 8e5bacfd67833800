"""One step: values of loss and constraints from a batch, multipliers, gradients, and the student's move.

``PrimalDualStep`` reads the batch at once, in few operations where the problem allows (``FusedStepReader``);
``AccumulatedStep`` reads it microbatch by microbatch.  Both make sums over groups into constraint values
(``StepValues``, with one ``BatchValue`` a constraint), let the engine move the multipliers, and hand gradients to
``StudentMover``, which clips them and takes the step by ``step_or_rollback``, and to ``RuleStep``.
"""

from ._primal_dual_step import PrimalDualStep
from ._student_mover import StudentMover

__all__ = ["PrimalDualStep", "StudentMover"]
