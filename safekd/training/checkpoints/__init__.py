"""Students that a run keeps, chooses among, and writes down.

``BestIterates`` looks at every evaluated student: it keeps the best feasible one, the most feasible one, the one that
is best on the validation split, and snapshots for a mixture.  After the last step ``FinalIterate`` chooses what is
handed back, moving candidates onto their active constraints by ``correct_constraints``.  A run that is to be kept holds
its ``RunFolder`` while it lasts, and fills it at the end.
"""

from ._best_iterates import BestIterates, rank_point, rank_validation
from ._constraint_correction import correct_constraints, is_near_constraints
from ._correction_step import ConstraintGaps, LossCurvature
from ._final_iterate import FinalIterate
from ._run_folder import RunFolder, open_on_first_rank, open_run_folder

__all__ = [
    "BestIterates",
    "ConstraintGaps",
    "FinalIterate",
    "LossCurvature",
    "RunFolder",
    "correct_constraints",
    "is_near_constraints",
    "open_on_first_rank",
    "open_run_folder",
    "rank_point",
    "rank_validation",
]
