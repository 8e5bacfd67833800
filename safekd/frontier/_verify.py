"""Stored students, read anew and compared with their rows: a frontier is as true as its students."""

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

from .._numbers import is_number
from .._threads import threads
from ..data import as_split
from ..errors import InvalidInput
from ..training import WarmStart
from ._cells import TABLE, Request, cells_of_rows, read_cell, require_whole
from ._frontier import Frontier
from ._plan import MakeTrainer, accepts_seed
from ._solve import LOOSEST, Job, read_student
from ._students import Students

_NO_STUDENT = (
    "the row is called feasible and has no student; a CSV holds numbers only: give the sweep's folder, or the frontier "
    "as it was returned"
)
AS_WRITTEN = 1e-9  # the same sums, added up in the same order


@dataclass(frozen=True)
class VerifyReport:
    """What re-evaluation found.

    table: one row for each row of the frontier: target, seed, verified, largest difference (NaN where there is no
    student), and what is wrong, empty where nothing is.
    """

    table: pd.DataFrame

    def holds(self) -> bool:
        """Say whether at least one row has a student, and every one that has is as its row says."""
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
            return f"{checked} students read anew: as their rows say, to {worst:.1g}{more}."
        if not self.failed.any():
            return "No row has a student, so nothing was verified."
        wrong = self.table[self.failed]
        lines = [f"row {index} (target {row['target']:g}): {row['wrong']}" for index, row in wrong.iterrows()]
        return f"{len(wrong)} of {len(self.table)} rows are not what their students are:\n" + "\n".join(lines)


def verify(
    frontier: Frontier | str | os.PathLike[str],
    make_trainer: MakeTrainer,
    train: Any,
    validation: Any = None,
    *,
    splits: Mapping[str, Any] | None = None,
    table: str | os.PathLike[str] | None = None,
    tolerance: float = AS_WRITTEN,
) -> VerifyReport:
    """Read every student of a frontier on the data again, and compare loss, safety and violation with its row.

    frontier: as ``trace_frontier`` returned it, or the folder that it was given as ``run_dir``.  make_trainer, train,
    validation, splits: as for the sweep.  table: with a folder, the CSV whose rows are to be compared; the numbers
    that lie beside the students if left out.  tolerance: how far a number may lie from its row.
    Files that are not what their manifest says, a student that does not fit, and numbers that differ are wrong, each
    told with its row.  Raises InvalidInput for a folder without a finished sweep.
    """
    if isinstance(frontier, Frontier):
        rows, kept = frontier.table, _Kept.of(frontier)
    elif isinstance(frontier, (str, os.PathLike)):
        rows, kept = _from_folder(Path(frontier))
    else:
        raise InvalidInput(
            f"`frontier` is a {type(frontier).__name__}; wanted a Frontier, or the folder given as `run_dir`."
        )
    if table is not None:
        rows = Frontier.from_csv(table).table
    if not is_number(tolerance) or not 0 < tolerance < math.inf:
        raise InvalidInput(f"`tolerance` is {tolerance!r}; wanted a number above 0, for example 1e-9.")
    job = Job("", make_trainer, as_split(train, "train"), validation, 1, {"splits": splits}, kept.threads, None)
    with threads(kept.threads), torch.random.fork_rng(devices=[]):
        found = [_compared(job, index, row, kept, tolerance) for index, row in enumerate(rows.to_dict("records"))]
    return VerifyReport(pd.DataFrame(found))


@dataclass(frozen=True)
class _Kept:
    """Students by row; why there is none to be trusted, by row; and with how many threads they were read."""

    starts: Mapping[int, WarmStart]
    wrong: Mapping[int, str]
    threads: int | None

    @classmethod
    def of(cls, frontier: Frontier) -> _Kept:
        """Return what a frontier keeps; modules of another origin have no multipliers, which play no part here."""
        held = frontier.students
        starts = {
            row: held.start(row) if isinstance(held, Students) else WarmStart(held[row].state_dict(), ())
            for row in held
        }
        return cls(starts, {}, frontier.meta.get("threads"))


def _from_folder(folder: Path) -> tuple[pd.DataFrame, _Kept]:
    """Return the table of a finished sweep and its students, each file checked against its manifest."""
    names = cells_of_rows(folder)
    written = Frontier.from_csv(folder / TABLE)
    if len(names) != len(written.table):
        raise InvalidInput(f"{folder} has {len(names)} rows and {len(written.table)} in {TABLE}; trace it again.")
    starts: dict[int, WarmStart] = {}
    wrong: dict[int, str] = {}
    for row, name in enumerate(names):
        if name is None:
            continue
        try:
            require_whole(folder / name)
            starts[row] = read_cell(folder / name).start
        except (InvalidInput, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            wrong[row] = f"cell {name} is damaged: {error}"
    return written.table, _Kept(starts, wrong, written.meta.get("threads"))


def _compared(job: Job, index: int, row: Mapping[Any, Any], kept: _Kept, tolerance: float) -> dict[str, Any]:
    told = {"target": row["target"], "seed": row["seed"], "verified": False, "difference": math.nan}
    wrong = kept.wrong.get(index, "")
    if index not in kept.starts:
        missing = "" if wrong or not row["feasible"] else _NO_STUDENT
        return {**told, "wrong": wrong or missing}
    try:
        there = _reread(job, row, kept.starts[index])
    except (InvalidInput, RuntimeError) as error:
        return {**told, "wrong": f"the student cannot be read: {' '.join(str(error).split())}"}
    apart = {
        column: abs(row[column] - value) if column in row else math.inf
        for column, value in there.items()
        if not (math.isnan(row.get(column, 0.0)) and math.isnan(value))
    }
    off = [
        f"{column} is {there[column]:.12g}, its row says {row.get(column, math.nan):.12g}"
        for column, gap in apart.items()
        if not gap <= tolerance
    ]
    return {**told, "verified": True, "difference": max(apart.values(), default=math.nan), "wrong": "; ".join(off)}


def _reread(job: Job, row: Mapping[Any, Any], start: WarmStart) -> dict[str, float]:
    """Return loss, safeties and violations of a student, by column."""
    held = {name.removeprefix("held_"): value for name, value in row.items() if name.startswith("held_")}
    seed = int(row["seed"]) if accepts_seed(job.make_trainer) else None
    target = LOOSEST if row["method"] == "mu" else float(row["target"])
    trainer = job.trainer(Request("verify", seed, target, held, 1.0))
    trainer.student.load_state_dict(start.parameters)
    if start.rule_state:
        trainer.problem.learning.load(start.rule_state)
    read = read_student(job, trainer, [0.0] * len(trainer.constraints))
    found = {"distillation_loss": read.loss}
    for number, reading in enumerate(read.readings):
        missed = reading.violation if number else max(float(row["target"]) - reading.measured, 0.0)
        found |= {f"safety_{reading.name}": reading.measured, f"violation_{reading.name}": missed}
    return found
