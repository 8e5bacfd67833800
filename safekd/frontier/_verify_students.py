"""Stored students, evaluated anew and compared with their rows: a frontier is as true as its students.

Every column is looked at twice: as the runs left it, and, where a student decides it, as an evaluation gives it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from solvers.short_repr import ShortRepr

from .._number_checks import is_number
from .._torch_state import limit_threads
from ..data import Fields, as_split
from ..errors import InvalidInput
from ..io import refuse_misfit
from ..training import FEASIBLE
from .store import TABLE, Parameters, RunSpec, read_finished_sweep, read_point, require_whole_point
from .sweep import (
    LOOSEST,
    MakeTrainer,
    RowContext,
    RowStudents,
    SweepJob,
    TargetRow,
    accepts_seed,
    build_table,
    build_table_row,
    evaluate_student,
    restore_row,
)
from .table import ANNOTATIONS, FrontierTable, annotate_rows, read_frontier

_NO_STUDENT = (
    "the row is called feasible and has no student; a CSV holds numbers only: give the sweep's folder, or the frontier "
    "as it was returned"
)


@dataclass(frozen=True, repr=False)
class VerifyReport(ShortRepr):
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
    """Evaluate every student of a frontier on the data again, and compare each column of its row.

    Loss, safeties, violations, standard errors and KKT residuals are worked out from the student and the row's
    multipliers; status, multipliers, annotations and all other columns are compared with what the runs left.  Files
    that are not what their manifest says, a student that does not fit, and columns that differ are wrong, each said
    with its row.  Frontiers with students of your own have no runs to compare with: only the former is done.

    Args:
        frontier: As ``trace_frontier`` returned it, or the folder that it was given as ``run_dir``.
        make_trainer: As for the sweep.
        train: Training examples, as for the sweep.
        validation: Examples that judge, as for the sweep.
        splits: Further splits by name, as for the sweep.
        fields: What the parts of data are that are no Split, as for the sweep.
        table: With a folder, the CSV whose rows are to be compared; None for the one inside.
        tolerance: How far a number may lie from what its student gives, in its own unit.  The default is above what
            sums in the same order differ by.

    Returns:
        A report with a row for each row of the frontier; ``report.holds()`` says whether all is well.

    Raises:
        InvalidInput: The folder holds no finished sweep, its table or its lists were changed, or an argument is out of
            range.
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
    split = as_split(train, "train", fields)
    job = SweepJob("", make_trainer, split, validation, 1, {"splits": placed}, stored.threads, None)
    with refuse_misfit(frontier if isinstance(frontier, (str, os.PathLike)) else "The frontier", "of one sweep"):
        left = stored.rebuild_rows() if stored.traced else _annotate_anew(rows, stored)
    with limit_threads(stored.threads), torch.random.fork_rng(devices=[]):
        lines = [
            _compare_row(job, index, row, stored, left.get(index, {}), tolerance)
            for index, row in enumerate(rows.to_dict("records"))
        ]
    return VerifyReport(pd.DataFrame(lines))


@dataclass(frozen=True)
class _StoredStudents:
    """Students by row, and what their runs left.

    Attributes:
        states: Parameters, and what a weighting rule had learned, by row.
        wrong: Why there is no student to be trusted, by row.
        threads: Of torch, with which they were evaluated; None for as they are.
        constraint: Whose threshold was swept.
        traced: Every row as it was traced, and what belongs to its slice; empty where nobody knows.
    """

    states: Mapping[int, tuple[Parameters, Parameters]]
    wrong: Mapping[int, str]
    threads: int | None
    constraint: str
    traced: Sequence[tuple[TargetRow, RowContext]] = ()

    def rebuild_rows(self) -> dict[int, dict[Any, Any]]:
        """Return the table's rows as the runs left them, without annotations where a point is lost."""
        table = build_table([build_table_row(row, context) for row, context in self.traced])
        if not self.wrong:
            table = annotate_rows(table, self.constraint)
        return {index: row for index, row in enumerate(table.to_dict("records")) if index not in self.wrong}

    def is_sampled(self, index: int) -> bool:
        """Say whether the residuals of a row are estimates, which no evaluation gives again."""
        point = self.traced[index][0].point if index < len(self.traced) else None
        return point is not None and point.sampled


def _annotate_anew(rows: pd.DataFrame, stored: _StoredStudents) -> dict[int, dict[Any, Any]]:
    """Return what the numbers of a table say of its rows, where nobody knows what the runs left."""
    violations = [column for column in rows.columns if column.startswith("violation_")]
    table = rows.assign(feasible=(rows[violations] <= FEASIBLE).all(axis=1))
    flags = annotate_rows(table, stored.constraint)[["feasible", *ANNOTATIONS]].to_dict("records")
    return {index: flags[index] for index in stored.states if index < len(flags)}


def _read_states(frontier: FrontierTable) -> _StoredStudents:
    students = frontier.students
    states: dict[int, tuple[Parameters, Parameters]] = {
        row: students.read_states(row) if isinstance(students, RowStudents) else (students[row].state_dict(), {})
        for row in students
    }
    traced = students.traced if isinstance(students, RowStudents) else ()
    return _StoredStudents(states, {}, frontier.meta.get("threads"), frontier.constraint, traced)


def _read_folder(folder: Path) -> tuple[pd.DataFrame, _StoredStudents]:
    """Return the table of a finished sweep and its students, each file checked against its manifest."""
    done = read_finished_sweep(folder)
    table, constraint, meta = read_frontier(folder / TABLE)
    if len(done.points) != len(table):
        raise InvalidInput(f"{folder} has {len(done.points)} rows and {len(table)} in {TABLE}; trace it again.")
    states: dict[int, tuple[Parameters, Parameters]] = {}
    wrong: dict[int, str] = {}
    traced = []
    for index, (name, row) in enumerate(zip(done.points, done.rows, strict=True)):
        point = None
        try:
            if name is not None:
                require_whole_point(folder / name, done.run_id)
                point = read_point(folder / name)
                states[index] = point.student, point.rule_state
        except InvalidInput as error:
            wrong[index] = f"point {name} is damaged: {error}"
        with refuse_misfit(folder, "the folder of a sweep"):
            traced.append(restore_row(row, point))
    return table, _StoredStudents(states, wrong, meta.get("threads"), constraint, traced)


def _compare_row(
    job: SweepJob,
    index: int,
    row: Mapping[Any, Any],
    stored: _StoredStudents,
    left: Mapping[Any, Any],
    tolerance: float,
) -> dict[str, Any]:
    line = {"target": row["target"], "seed": row["seed"], "verified": False, "difference": math.nan}
    if wrong := stored.wrong.get(index, ""):
        return {**line, "wrong": wrong}
    values: dict[str, float] = {}
    if index in stored.states:
        try:
            values = _evaluate_row(job, row, *stored.states[index], residuals=not stored.is_sampled(index))
        except (InvalidInput, RuntimeError) as error:
            return {**line, "wrong": f"the student cannot be evaluated: {' '.join(str(error).split())}"}
    elif row["feasible"]:
        return {**line, "wrong": _NO_STUDENT}
    differences = {
        column: abs(row[column] - value) if column in row else math.inf
        for column, value in values.items()
        if not (math.isnan(row.get(column, 0.0)) and math.isnan(value))
    }
    off = {column: values[column] for column, difference in differences.items() if not difference <= tolerance}
    off |= {
        column: value for column, value in left.items() if column not in values and not _is_same(row, column, value)
    }
    told = [f"{column} is {_show(value)}, its row says {_show(row.get(column))}" for column, value in off.items()]
    largest = max(differences.values(), default=math.nan)
    return {**line, "verified": bool(values), "difference": largest, "wrong": "; ".join(told)}


def _is_same(row: Mapping[Any, Any], column: str, value: Any) -> bool:
    if column not in row:
        return False
    found = row[column]
    return bool(found == value) or bool(found != found and value != value)  # NaN alone is not itself


def _show(value: Any) -> str:
    return f"{value:.12g}" if is_number(value) else str(value)


def _evaluate_row(
    job: SweepJob, row: Mapping[Any, Any], parameters: Parameters, rule_state: Parameters, *, residuals: bool
) -> dict[str, float]:
    """Return what a student decides of its row, by column."""
    held = {name.removeprefix("held_"): value for name, value in row.items() if name.startswith("held_")}
    seed = int(row["seed"]) if accepts_seed(job.make_trainer) else None
    weighted = row["method"] == "mu"
    target = LOOSEST if weighted else float(row["target"])
    trainer = job.make(RunSpec("verify", seed, target, held, 1.0))
    multipliers = [float(row.get(f"lambda_{constraint.name}", math.nan)) for constraint in trainer.constraints]
    evaluation = evaluate_student(job, trainer, parameters, rule_state, multipliers)
    values = {"distillation_loss": evaluation.loss}
    for number, reading in enumerate(evaluation.readings):
        violation = reading.violation if number else max(float(row["target"]) - reading.measured, 0.0)
        values |= {f"safety_{reading.name}": reading.measured, f"violation_{reading.name}": violation}
        values |= {f"se_{reading.name}": reading.standard_error}
    for reading in evaluation.validation:
        column = f"validation_safety_{reading.name}"
        values |= {column: reading.measured} if column in row else {}  # the sweep may have had no such split
    if residuals:
        values["kkt_stationarity"] = evaluation.residuals.stationarity
    if residuals and not weighted:
        values |= {f"kkt_{name}": getattr(evaluation.residuals, name) for name in ("primal", "dual", "complementarity")}
    return values
