"""Stored students, read anew and compared with their rows: a frontier is believed for its students, not for its table."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError

from .._threads import threads
from ..data import as_split
from ..errors import InvalidInput
from ..trainer import WarmStart
from ._cells import Request, cells_of_rows, read_cell, require_whole
from ._frontier import Frontier
from ._plan import MakeTrainer, accepts_seed
from ._solve import Job, read_student
from ._students import Students

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
    audit: Any = None,
    *,
    splits: Mapping[str, Any] | None = None,
    table: str | os.PathLike[str] | None = None,
    tolerance: float = AS_WRITTEN,
) -> VerifyReport:
    """Read every student of a frontier on the data again, and compare loss, safety and violation with its row.

    frontier: as ``trace_frontier`` returned it, or the folder that it was given as ``run_dir``.  make_trainer, train,
    audit, splits: as for the sweep.  table: with a folder, the CSV whose rows are to be compared; the numbers that lie
    beside the students if left out.  tolerance: how far a number may lie from its row.
    Files that are not what their manifest says, a student that does not fit, and numbers that differ are wrong, each
    told with its row.  Raises InvalidInput for a folder without a finished sweep.
    """
    made = frontier if isinstance(frontier, Frontier) else _from_folder(Path(frontier), table)
    if isinstance(made, Frontier):
        rows = made.table
        students: Any = made.students
        starts = {row: (students.start(row) if isinstance(students, Students) else students[row]) for row in students}
        wrongs: dict[int, str] = {}
        pinned = made.meta.get("threads")
    else:
        rows, starts, wrongs, pinned = made
    job = Job("", make_trainer, as_split(train, "train"), audit, 1, {"splits": splits}, pinned, None)
    with threads(pinned):
        found = [_compared(job, index, row, starts, wrongs, tolerance) for index, row in enumerate(_records(rows))]
    return VerifyReport(pd.DataFrame(found))
