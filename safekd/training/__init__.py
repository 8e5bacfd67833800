"""Distillation under safety constraints.

    trainer = ConstrainedTrainer(student, teachers, constraints=[rule], optimizer=adam)
    result = trainer.fit(train, validation=validation, epochs=2000)
    result.status, result.message, result.next_move      # what happened, the evidence, what to do
    result.trace                                         # a DataFrame: loss, safety, multipliers, KKT residuals
    result.student, result.best_feasible, result.most_feasible
    result.mixture                                       # with fit(..., snapshots=20): the best mixture of students

    trainer.fit(train, held, epochs=2000, tighten=CrossFit(also=["validation"]))  # met on new data, recommended
    trainer.fit(train, epochs=2000, tighten=CrossFit())                           # without a split for it
    trainer.fit(train, held, epochs=2000, tighten=Tighten())                      # until the validation split proves it

What happens inside, in this order: ConstrainedTrainer poses a TrainingProblem around an Objective; ``loop`` takes the
steps and reads full passes (``read_full_pass``) into ``trace``; ``checkpoints`` keeps the best iterates and chooses
what is handed back; ``diagnosis`` says why the run ended; ``generalization`` does all that again under other
thresholds.
"""

from ._constraint_layout import ConstraintLayout, SumLayout
from ._fit_result import ROUND_COLUMNS, FitResult, Tightening, Verdict, restore_tightening
from ._full_pass import FullPass, pose_all_on_train, read_full_pass
from ._mixture import Mixture
from ._objective import Objective
from ._trainer import ConstrainedTrainer
from ._training_problem import TrainingProblem
from ._warm_start import WarmStart
from .checkpoints import RunFolder, open_on_first_rank, open_run_folder
from .diagnosis import EvidenceBudget
from .generalization import CrossFit, Tighten, interpolate_threshold
from .loop import Sampled, describe_problem, describe_source, list_libraries
from .result_files import RUN, build_checked, load_tensors, save_student, save_tensors
from .trace import FEASIBLE

__all__ = [
    "FEASIBLE",
    "ROUND_COLUMNS",
    "RUN",
    "ConstrainedTrainer",
    "ConstraintLayout",
    "CrossFit",
    "EvidenceBudget",
    "FitResult",
    "FullPass",
    "Mixture",
    "Objective",
    "RunFolder",
    "Sampled",
    "SumLayout",
    "Tighten",
    "Tightening",
    "TrainingProblem",
    "Verdict",
    "WarmStart",
    "build_checked",
    "describe_problem",
    "describe_source",
    "interpolate_threshold",
    "list_libraries",
    "load_tensors",
    "open_on_first_rank",
    "open_run_folder",
    "pose_all_on_train",
    "read_full_pass",
    "restore_tightening",
    "save_student",
    "save_tensors",
]
