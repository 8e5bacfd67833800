"""Distillation under safety constraints.

trainer = ConstrainedTrainer(student, teachers, constraints=[rule], optimizer=torch.optim.Adam(student.parameters()))
result = trainer.fit(train, validation=validation, epochs=2000)
result.status, result.message, result.next_move      # what happened, the evidence, what to do
result.trace                                         # a DataFrame: loss, safety, multipliers, KKT residuals
result.student, result.best_feasible, result.most_feasible
result.mixture                                       # with fit(..., snapshots=20): the best mixture of students

trainer.fit(train, held, epochs=2000, tighten=CrossFit(also=["validation"]))   # met on new data, recommended
trainer.fit(train, epochs=2000, tighten=CrossFit())                            # without a split for it
trainer.fit(train, held, epochs=2000, tighten=Tighten())                       # until the validation split proves it
"""

from ._crossfit import CrossFit
from ._mixture import Mixture
from ._objective import Objective, on_one_split
from ._result import FEASIBLE, ROUND_COLUMNS, FitResult, Tightening, Verdict
from ._rounds import between
from ._sampling import Sampled
from ._saving import save_run, save_student, save_tensors
from ._tighten import Tighten
from ._trainer import ConstrainedTrainer
from ._warm_start import WarmStart

__all__ = [
    "FEASIBLE",
    "ROUND_COLUMNS",
    "ConstrainedTrainer",
    "CrossFit",
    "FitResult",
    "Mixture",
    "Objective",
    "Sampled",
    "Tighten",
    "Tightening",
    "Verdict",
    "WarmStart",
    "between",
    "on_one_split",
    "save_run",
    "save_student",
    "save_tensors",
]
