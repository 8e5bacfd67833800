"""The training loop: what ``fit_once`` does with a TrainingProblem.

``FitLoop`` takes a batch at a time.  ``PrimalDualStep`` reads loss and constraints on it (``FusedStepReader`` does so
in
few operations where the problem allows, ``BatchValue`` otherwise), lets the engine move the multipliers, and moves the
student by ``step_or_rollback``.  ``AveragedIterate`` follows in minibatches.  Every so many steps ``PointReader`` reads
whole splits, exactly or with gradients from random batches (``Sampled``), into a trace point, and the loop decides
whether the run is at rest.  What becomes of it is ``diagnosis`` and ``checkpoints``.
"""

from ._fit_inputs import FitData, FitOptions
from ._fit_loop import FitLoop, fit_once, restore_result
from ._gradient_sampling import Sampled
from ._primal_dual_step import PrimalDualStep

__all__ = ["FitData", "FitLoop", "FitOptions", "PrimalDualStep", "Sampled", "fit_once", "restore_result"]
