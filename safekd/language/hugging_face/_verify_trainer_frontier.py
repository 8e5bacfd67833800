"""Students of a trainer's frontier, read anew and compared with their rows: a frontier is as true as its students."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch

from ...errors import InvalidInput
from ...frontier import Frontier, VerifyReport
from ...frontier.store import TrainedPoint
from ...training.trace import TracePoint
from ...weights import load_rule_state
from ._trace_recorder import StepState
from ._trainer_frontier import MakeSafeKDTrainer, TrainerStudents, make_swept_trainer


def verify_trainer_frontier(
    frontier: Frontier, make_trainer: MakeSafeKDTrainer, *, tolerance: float = 1e-6
) -> VerifyReport:
    """Read every student of a frontier on its trace's sequences again, and compare loss, safety and residuals.

    The files of a ``run_dir`` are compared with their hashes by ``kd.verify_files``.

    Args:
        frontier: As ``trace_trainer_frontier`` returned it; of a folder, by the same call with ``resume="auto"``, which
            trains nothing that is there whole.
        make_trainer: As for the sweep.
        tolerance: How far a number may lie from what its student gives, in its own unit.

    Returns:
        A report with a row for each row of the frontier; ``report.holds()`` says whether all is well.

    Raises:
        InvalidInput: The frontier has no students of trainers.
    """
    students = frontier.students
    if not isinstance(students, TrainerStudents) or not len(students):
        raise InvalidInput(
            "This frontier has no students of trainers, so there is nothing to read anew; give it as "
            "trace_trainer_frontier(make_trainer, run_dir=..., resume='auto') returns it."
        )
    records = []
    for number, row in frontier.table.iterrows():
        about = {"target": row["target"], "seed": row["seed"]}
        if number not in students.points:
            records.append({**about, "verified": False, "difference": math.nan, "wrong": ""})
            continue
        differences = _measure_differences(row, _read_again(make_trainer, students.points[int(str(number))]))
        wrong = [f"{name} differs by {value:.3g}" for name, value in differences.items() if not value <= tolerance]
        worst = max(differences.values())
        records.append({**about, "verified": True, "difference": worst, "wrong": "; ".join(wrong)})
    return VerifyReport(pd.DataFrame(records))


def _read_again(make_trainer: MakeSafeKDTrainer, point: TrainedPoint) -> TracePoint:
    trainer = make_swept_trainer(make_trainer, point.spec)
    trainer.student.load_state_dict(point.student)
    load_rule_state(trainer.terms.weights, point.rule_state)
    multiplier_M = torch.tensor(list(point.multipliers), dtype=torch.float64)
    unknown_M = torch.zeros_like(multiplier_M)
    state = StepState(point.steps, 0, multiplier_M, unknown_M, unknown_M.bool(), unknown_M)
    return trainer.open_recorder(trainer.choose_sample(trainer.trace_sequences)).record(state)


def _measure_differences(row: Any, again: TracePoint) -> dict[str, float]:
    """Return how far each column lies from what the student gives, by name."""
    read = {"distillation_loss": again.loss, **{f"safety_{r.name}": r.measured for r in again.readings}}
    read |= {f"kkt_{name}": value for name, value in vars(again.residuals).items()}
    return {name: abs(float(row[name]) - value) for name, value in read.items() if name in row}
