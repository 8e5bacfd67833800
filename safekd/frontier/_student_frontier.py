"""The frontier that a sweep returns: its table, what is asked of it, its files, pictures and words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import nn

from .._number_checks import is_number
from ..errors import InvalidInput
from ._verify_students import VerifyReport, verify
from .sweep import MakeTrainer
from .table import RatedFrontier, read_frontier, write_frontier
from .view import draw_frontier, summarize_frontier


@dataclass(frozen=True, eq=False, repr=False)
class Frontier(RatedFrontier):
    """The Pareto frontier between distillation loss and safety: rows of a sweep, one a target, ordered by target.

    Attributes:
        table: Columns as ``COLUMNS_DOC`` says, index 0, 1, ...
        constraint: Name of the constraint whose threshold was swept.
        meta: What belongs to all rows.
        students: Student of each row that has one, by row; may load them when asked.
    """

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one tidy row a target, floats to the last bit, and ``.meta.json`` beside it; each whole or absent.

        Args:
            path: File to write; an existing one is replaced.

        Raises:
            InvalidInput: The table has no rows, or lacks a column of ``COLUMNS_DOC``.
        """
        write_frontier(self.table, self.constraint, self.meta, path)

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], students: Mapping[int, nn.Module] | None = None) -> Self:
        """Read what ``to_csv`` wrote, bit for bit.

        Args:
            path: The CSV file; its ``.meta.json`` must lie beside it.
            students: Those of its rows, by row, where you have them.

        Returns:
            The frontier.

        Raises:
            InvalidInput: One of the two files is absent, cut off, of another schema version, or has other columns,
                rows or kinds of cells than it was written with.
        """
        return cls(*read_frontier(path), students or {})

    def plot(self, path: str | os.PathLike[str], required: float | None = None) -> None:
        """Draw loss against safety, multiplier below.

        Args:
            path: File to write.  Its ending decides: .png, .svg, .pdf, or .html, which is one page without network that
                shows every number of a point under the pointer or the keyboard's focus.  The same frontier gives the
                same bytes.
            required: A safety to draw as the threshold asked for, or None.

        Raises:
            InvalidInput: The ending is none of these, or ``required`` is not finite.
        """
        if required is not None and (not is_number(required) or not np.isfinite(required)):
            raise InvalidInput(f"`required` is {required!r}; wanted a finite number to draw, or None.")
        draw_frontier(self.table, self.constraint, path, required)

    def verify(self, make_trainer: MakeTrainer, train: Any, validation: Any = None, **more: Any) -> VerifyReport:
        """Evaluate every student again on the data and compare it with its row; see ``kd.verify``.

        Args:
            make_trainer: As for the sweep.
            train: Training examples, as for the sweep.
            validation: Examples that judge, as for the sweep.
            more: Further arguments of ``kd.verify``.

        Returns:
            A report with a row for each row of the frontier.
        """
        return verify(self, make_trainer, train, validation, **more)

    def summary(self) -> str:
        """Return what was traced, how it went and what safety costs, in a few lines.

        Returns:
            The lines, which ``print(frontier)`` shows.
        """
        return summarize_frontier(self)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<Frontier over '{self.constraint}': {len(self.table)} rows, {len(self.nondominated())} nondominated>"
