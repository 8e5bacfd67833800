"""How a frontier of students is swept.

In this order: the arguments become a plan (``check_sweep_plan``); ``StudentSweep`` looks at the first trainer, notes
which sweep it is, so that a folder of another one is refused, and has every slice ask for runs, round by round
(``SliceSweep`` under thresholds, ``WeightSweep`` under fixed weights); workers train them (``_worker_pool``,
``_training_run``); target rows become rows of the table.  What any sweep decides alike comes from ``solvers.pareto``.
"""

from ._row_students import RowStudents
from ._slice_sweep import SliceSweep, TargetRow
from ._student_sweep import OnRow, StudentSweep
from ._sweep_plan import MakeTrainer, SweepPlan, accepts_seed, check_sweep_plan
from ._sweep_record import find_record_changes, hash_record
from ._target_rows import RowContext, build_table, build_table_row, describe_row, restore_row
from ._training_run import LOOSEST, SweepJob, evaluate_student
from ._weight_sweep import WeightSweep

__all__ = [
    "LOOSEST",
    "MakeTrainer",
    "OnRow",
    "RowContext",
    "RowStudents",
    "SliceSweep",
    "StudentSweep",
    "SweepJob",
    "SweepPlan",
    "TargetRow",
    "WeightSweep",
    "accepts_seed",
    "build_table",
    "build_table_row",
    "check_sweep_plan",
    "describe_row",
    "evaluate_student",
    "find_record_changes",
    "hash_record",
    "restore_row",
]
