"""One row of a frontier, and the student that stands there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..errors import InvalidInput
from ._schema import safeties

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class FrontierPoint:
    """A row of a frontier.

    index: which row of ``frontier.table``.  row: all its columns; ``point["lambda_malignant"]`` reads one.
    constraint: the name whose threshold was swept.  students: those that the frontier keeps, by row.
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
        """Safety that was swept, as it was measured."""
        return float(self.row[f"safety_{self.constraint}"])

    @property
    def price(self) -> float:
        """Multiplier: what a unit of safety more would cost here, in nats."""
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
        said = ", ".join(f"{name} {self.row[f'safety_{name}']:.6g}" for name in safeties(self.row.to_frame().T))
        return (
            f"row {self.index}: loss {self.loss:.6g} nats, safety {said}, price {self.price:.4g} nats a unit, "
            f"target {self.row['target']:g}, {self.row['status']}"
        )

    def __repr__(self) -> str:
        return f"<FrontierPoint {self}>"


class Renumbered(Mapping[int, "nn.Module"]):
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
