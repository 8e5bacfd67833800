"""One row of a frontier, and the student that stands there."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn

from solvers.short_repr import SETTINGS

from ...errors import InvalidInput
from ._frontier_columns import list_constraints


@dataclass(frozen=True, eq=False)
class FrontierPoint:
    """A row of a frontier.

    Attributes:
        index: Which row of ``frontier.table``.
        row: All its columns; ``point["lambda_malignant"]`` reads one.
        constraint: Name of the constraint whose threshold was swept.
        students: Those that the frontier keeps, by row.
    """

    index: int
    row: pd.Series[Any]
    constraint: str
    students: Mapping[int, nn.Module]

    def __getitem__(self, column: str) -> Any:
        return self.row[column]

    @property
    def loss(self) -> float:
        """Distillation loss, nats."""
        return float(self.row["distillation_loss"])

    @property
    def safety(self) -> float:
        """Safety that was swept, as it was measured, in [0, 1]."""
        return float(self.row[f"safety_{self.constraint}"])

    @property
    def multiplier(self) -> float:
        """Multiplier of the threshold: what a unit of safety more would cost here, nats a unit."""
        return float(self.row[f"lambda_{self.constraint}"])

    @property
    def student(self) -> nn.Module:
        """The student of this row.  Raises InvalidInput where the frontier keeps none for it."""
        if self.index not in self.students:
            raise InvalidInput(
                f"No student is kept for row {self.index} (target {self.row['target']:g}): a CSV holds numbers only. "
                "Take the frontier as the sweep returned it, or hand its students to "
                "Frontier.from_csv(path, students={row: student})."
            )
        return self.students[self.index]

    def __str__(self) -> str:
        names = list_constraints(self.row.to_frame().T)
        safety = ", ".join(f"{name} {self.row[f'safety_{name}']:.6g}" for name in names)
        return (
            f"row {self.index}: loss {self.loss:.6g} nats, safety {safety}, multiplier {self.multiplier:.4g} nats a "
            f"unit, target {self.row['target']:g}, {self.row['status']}"
        )

    def __repr__(self) -> str:
        return "\n  ".join(textwrap.wrap(f"<FrontierPoint {self}>", SETTINGS.width, max_lines=SETTINGS.lines))


class RenumberedStudents(Mapping[int, nn.Module]):
    """The students of some rows under new numbers; none is loaded before it is asked for."""

    def __init__(self, students: Mapping[int, nn.Module], rows: list[int]) -> None:
        self._students = students
        self._old = {new: old for new, old in enumerate(rows) if old in students}

    def __getitem__(self, row: int) -> nn.Module:
        return self._students[self._old[row]]

    def __iter__(self) -> Iterator[int]:
        return iter(self._old)

    def __len__(self) -> int:
        return len(self._old)
