"""Students that a run keeps, chooses among, and writes down.

``BestIterates`` looks at every evaluated student: it keeps the best feasible one, the most feasible one, the one that
is best on the validation split, and snapshots for a mixture.  After the last step ``FinalIterate`` chooses what is
handed back, moving candidates onto their active constraints by ``correct_constraints``.  ``save_run`` writes the result
to a folder, ``save_student`` one student.
"""

from ._best_iterates import BestIterates, rank_point, rank_validation
from ._constraint_correction import ConstraintGaps, correct_constraints, is_near_constraints
from ._final_iterate import FinalIterate
from ._run_files import TRACE_LINES, save_run, save_student, save_tensors

__all__ = [
    "TRACE_LINES",
    "BestIterates",
    "ConstraintGaps",
    "FinalIterate",
    "correct_constraints",
    "is_near_constraints",
    "rank_point",
    "rank_validation",
    "save_run",
    "save_student",
    "save_tensors",
]
