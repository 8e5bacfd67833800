"""How a frontier of students is swept.

In this order: the arguments become a plan (``check_sweep_plan``); each slice asks for runs, round by round
(``SliceSweep`` under thresholds, ``WeightSweep`` under fixed weights); workers train them (``run_slice_sweeps``,
``train_point``); target rows become rows of the table (``build_table_row``).  ``describe_sweep`` says which sweep it
is, so that a folder of another one is refused.  What any sweep decides alike comes from ``solvers.pareto``.
"""

from ._row_students import RowStudents
from ._slice_sweep import SliceSweep, TargetRow
from ._sweep_plan import MakeTrainer, SweepPlan, ToleranceSettings, accepts_seed, check_sweep_plan
from ._sweep_record import describe_sweep, hash_record
from ._target_rows import RowContext, build_table, build_table_row
from ._training_run import (
    LOOSEST,
    PreparedTrainer,
    SweepJob,
    describe_constraints,
    evaluate_student,
    prepare_trainer,
)
from ._weight_sweep import WeightSweep
from ._worker_pool import run_slice_sweeps

__all__ = [
    "LOOSEST",
    "MakeTrainer",
    "PreparedTrainer",
    "RowContext",
    "RowStudents",
    "SliceSweep",
    "SweepJob",
    "SweepPlan",
    "TargetRow",
    "ToleranceSettings",
    "WeightSweep",
    "accepts_seed",
    "build_table",
    "build_table_row",
    "check_sweep_plan",
    "describe_constraints",
    "describe_sweep",
    "evaluate_student",
    "hash_record",
    "prepare_trainer",
    "run_slice_sweeps",
]
