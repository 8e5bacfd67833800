"""Stored students, evaluated anew and compared with their rows: a frontier is as true as its students."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError

from .._number_checks import is_number
from .._torch_state import limit_threads
from ..data import Fields, as_split
from ..errors import InvalidInput
from .store import TABLE, Parameters, RunSpec, read_point, read_row_points, require_whole
from .sweep import LOOSEST, MakeTrainer, RowStudents, SweepJob, accepts_seed, evaluate_student
from .table import FrontierTable, read_frontier

_NO_STUDENT = (
    "the row is called feasible and has no student; a CSV holds numbers only: give the sweep's folder, or the frontier "
    "as it was returned"
)


@dataclass(frozen=True)
class VerifyReport:
    """What a second evaluation of a frontier's students says.

    Attributes:
        table: One row for each row of the frontier: target, seed, verified, largest difference (NaN where there is no
            student), and what is wrong, empty where nothing is.
    """

    table: pd.DataFrame

    def holds(self) -> bool:
        """Say whether at least one row has a student, and every one that has is as its row says.

        Returns:
            False also where no row has a student.
        """
        return bool(self.table["verified"].any()) and not self.failed.any()

    @property
    def failed(self) -> pd.Series[bool]:
        """Which rows are not what their students are."""
        return self.table["wrong"] != ""

    def __str__(self) -> str:
        checked = int(self.table["verified"].sum())
        if self.holds():
            worst = self.table["difference"].max()
            without = len(self.table) - checked
            more = f"; {without} rows have no student" if without else ""
            return f"{checked} students evaluated anew: as their rows say, to {worst:.1g}{more}."
        if not self.failed.any():
            return "No row has a student, so nothing was verified."
        wrong = self.table[self.failed]
        lines = [f"row {index} (target {row['target']:g}): {row['wrong']}" for index, row in wrong.iterrows()]
        return f"{len(wrong)} of {len(self.table)} rows are not what their students are:\n" + "\n".join(lines)


def verify(
    frontier: FrontierTable | str | os.PathLike[str],
    make_trainer: MakeTrainer,
    train: Any,
    validation: Any = None,
    *,
    splits: Mapping[str, Any] | None = None,
    fields: Fields | None = None,
    table: str | os.PathLike[str] | None = None,
    tolerance: float = 1e-9,
) -> VerifyReport:
    """Evaluate every student of a frontier on the data again, and compare loss, safety and violation with its row.

    Files that are not what their manifest says, a student that does not fit, and numbers that differ are wrong, each
    said with its row.

    Args:
        frontier: As ``trace_frontier`` returned it, or the folder that it was given as ``run_dir``.
        make_trainer: As for the sweep.
        train: Training examples, as for the sweep.
        validation: Examples that judge, as for the sweep.
        splits: Further splits by name, as for the sweep.
        fields: What the parts of data are that are no Split, as for the sweep.
        table: With a folder, the CSV whose rows are to be compared; None for the numbers beside the students.
        tolerance: How far a number may lie from its row, in its own unit.  The default is above what sums in the same
            order differ by.

    Returns:
        A report with a row for each row of the frontier; ``report.holds()`` says whether all is well.

    Raises:
        InvalidInput: The folder holds no finished sweep, or an argument is out of range.
    """
    if isinstance(frontier, FrontierTable):
        rows, stored = frontier.table, _read_states(frontier)
    elif isinstance(frontier, (str, os.PathLike)):
        rows, stored = _read_folder(Path(frontier))
    else:
        raise InvalidInput(
            f"`frontier` is a {type(frontier).__name__}; wanted a Frontier, or the folder given as `run_dir`."
        )
    if table is not None:
        rows = read_frontier(table)[0]
    if not is_number(tolerance) or not 0 < tolerance < math.inf:
        raise InvalidInput(f"`tolerance` is {tolerance!r}; wanted a number above 0, for example 1e-9.")
    placed = {name: as_split(data, name, fields) for name, data in (splits or {}).items()}
    validation = None if validation is None else as_split(validation, "validation", fields)
    job = SweepJob(
        "", make_trainer, as_split(train, "train", fields), validation, 1, {"splits": placed}, stored.threads, None
    )
    with limit_threads(stored.threads), torch.random.fork_rng(devices=[]):
        lines = [_compare_row(job, index, row, stored, tolerance) for index, row in enumerate(rows.to_dict("records"))]
    return VerifyReport(pd.DataFrame(lines))


@dataclass(frozen=True)
class _StoredStudents:
    """Students by row.

    Attributes:
        states: Parameters, and what a weighting rule had learned, by row.
        wrong: Why there is no student to be trusted, by row.
        threads: Of torch, with which they were evaluated; None for as they are.
    """

    states: Mapping[int, tuple[Parameters, Parameters]]
    wrong: Mapping[int, str]
    threads: int | None


def _read_states(frontier: FrontierTable) -> _StoredStudents:
    students = frontier.students
    states: dict[int, tuple[Parameters, Parameters]] = {
        row: students.read_states(row) if isinstance(students, RowStudents) else (students[row].state_dict(), {})
        for row in students
    }
    return _StoredStudents(states, {}, frontier.meta.get("threads"))


def _read_folder(folder: Path) -> tuple[pd.DataFrame, _StoredStudents]:
    """Return the table of a finished sweep and its students, each file checked against its manifest."""
    names = read_row_points(folder)
    table, _, meta = read_frontier(folder / TABLE)
    if len(names) != len(table):
        raise InvalidInput(f"{folder} has {len(names)} rows and {len(table)} in {TABLE}; trace it again.")
    states: dict[int, tuple[Parameters, Parameters]] = {}
    wrong: dict[int, str] = {}
    for row, name in enumerate(names):
        if name is None:
            continue
        try:
            require_whole(folder / name)
            point = read_point(folder / name)
            states[row] = point.student, point.rule_state
        except (InvalidInput, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            wrong[row] = f"point {name} is damaged: {error}"
    return table, _StoredStudents(states, wrong, meta.get("threads"))


def _compare_row(
    job: SweepJob, index: int, row: Mapping[Any, Any], stored: _StoredStudents, tolerance: float
) -> dict[str, Any]:
    line = {"target": row["target"], "seed": row["seed"], "verified": False, "difference": math.nan}
    wrong = stored.wrong.get(index, "")
    if index not in stored.states:
        missing = "" if wrong or not row["feasible"] else _NO_STUDENT
        return {**line, "wrong": wrong or missing}
    try:
        values = _evaluate_row(job, row, *stored.states[index])
    except (InvalidInput, RuntimeError) as error:
        return {**line, "wrong": f"the student cannot be evaluated: {' '.join(str(error).split())}"}
    differences = {
        column: abs(row[column] - value) if column in row else math.inf
        for column, value in values.items()
        if not (math.isnan(row.get(column, 0.0)) and math.isnan(value))
    }
    off = [
        f"{column} is {values[column]:.12g}, its row says {row.get(column, math.nan):.12g}"
        for column, difference in differences.items()
        if not difference <= tolerance
    ]
    largest = max(differences.values(), default=math.nan)
    return {**line, "verified": True, "difference": largest, "wrong": "; ".join(off)}


def _evaluate_row(
    job: SweepJob, row: Mapping[Any, Any], parameters: Parameters, rule_state: Parameters
) -> dict[str, float]:
    """Return loss, safeties and violations of a student, by column."""
    held = {name.removeprefix("held_"): value for name, value in row.items() if name.startswith("held_")}
    seed = int(row["seed"]) if accepts_seed(job.make_trainer) else None
    target = LOOSEST if row["method"] == "mu" else float(row["target"])
    trainer = job.make(RunSpec("verify", seed, target, held, 1.0))
    evaluation = evaluate_student(job, trainer, parameters, rule_state, [0.0] * len(trainer.constraints))
    values = {"distillation_loss": evaluation.loss}
    for number, reading in enumerate(evaluation.readings):
        violation = reading.violation if number else max(float(row["target"]) - reading.measured, 0.0)
        values |= {f"safety_{reading.name}": reading.measured, f"violation_{reading.name}": violation}
    return values
