"""The training loop: what ``fit_once`` does with a TrainingProblem.

``FitLoop`` takes a batch at a time, and has ``step`` make one primal-dual step of it.  ``AveragedIterate`` follows in
minibatches.  Every so many steps ``PointReader`` reads whole sources, exactly or with gradients from random batches
(``Sampled``), into a trace point, and the loop decides whether the run is at rest.  What becomes of it is ``diagnosis``
and ``checkpoints``.
"""

from ._fit_inputs import FitData, FitOptions
from ._fit_loop import FitLoop
from ._fit_once import fit_once, restore_result
from ._gradient_sampling import Sampled
from ._run_record import begin_checkpoints, describe_problem, describe_source, list_libraries

__all__ = [
    "FitData",
    "FitLoop",
    "FitOptions",
    "Sampled",
    "begin_checkpoints",
    "describe_problem",
    "describe_source",
    "fit_once",
    "list_libraries",
    "restore_result",
]
