"""Distillation under safety constraints.

trainer = ConstrainedTrainer(student, teachers, constraints=[rule], optimizer=torch.optim.Adam(student.parameters()))
result = trainer.fit(train, audit=validation, epochs=2000)
result.status, result.message, result.next_move      # what happened, the evidence, what to do
result.trace                                         # a DataFrame: loss, safety, multipliers, KKT residuals
result.student, result.best_feasible, result.most_feasible
result.mixture                                       # with fit(..., snapshots=20): the best mixture of students
"""

from ._mixture import Mixture
from ._objective import Objective, on_one_split
from ._result import FitResult, Verdict
from ._sampling import Sampled
from ._saving import save_run, save_student
from ._trainer import ConstrainedTrainer
from ._warm_start import WarmStart

__all__ = [
    "ConstrainedTrainer",
    "FitResult",
    "Mixture",
    "Objective",
    "Sampled",
    "Verdict",
    "WarmStart",
    "on_one_split",
    "save_run",
    "save_student",
]
