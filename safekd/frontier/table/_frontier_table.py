"""The table of a frontier, and which of its rows to choose: the cheapest that is safe enough, the knee.

Two objectives: distillation loss, smaller is better; safety, larger is better.  Further safeties can be objectives too.
Axes: N rows, D objectives (the loss, then each safety).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from solvers import indicators

from ..._number_checks import is_number
from ...errors import InvalidInput
from ._frontier_columns import list_constraints, split_slices
from ._frontier_point import FrontierPoint, RenumberedStudents

Floats = NDArray[np.float64]
Names = str | Sequence[str]


@dataclass(frozen=True, eq=False, repr=False)
class FrontierTable:
    """Rows of a sweep, one a target, ordered by target, and the students that stand there.

    Attributes:
        table: Columns as ``COLUMNS_DOC`` says, index 0, 1, ...
        constraint: Name of the constraint whose threshold was swept.
        meta: What belongs to all rows.
        students: Student of each row that has one, by row; may load them when asked.
    """

    table: pd.DataFrame
    constraint: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    students: Mapping[int, nn.Module] = field(default_factory=dict)

    @property
    def points(self) -> Floats:
        """Feasible points as (loss in nats, safety), shape (N, 2), of all seeds and held thresholds."""
        return self.read_points([self.constraint])[0]

    def nondominated(self, over: Names | None = None) -> pd.DataFrame:
        """Return the feasible rows that no other feasible row dominates in loss and safety.

        Args:
            over: Names of constraints; then loss and all these safeties are objectives, and all rows are compared with
                each other: ``nondominated(["day", "night"])`` is the three-objective set of a sweep over "day" with
                "night" held at several thresholds.  None: the rows annotated so when the frontier was traced; each
                seed and each set of held thresholds has a frontier of its own.

        Returns:
            These rows of the table, in its order.

        Raises:
            InvalidInput: The table does not have a name.
        """
        if over is None:
            return self.table[self.table["nondominated"].astype(bool)]
        x_ND, rows = self.read_points(self.check_names(over))
        return self.table.iloc[rows[indicators.nondominated(turn_safeties(x_ND))]]

    def slices(self) -> list[Self]:
        """Return the frontier of each seed and each set of held thresholds by itself.

        Returns:
            One frontier a slice, ordered by held thresholds, then seed.
        """
        return [
            type(self)(
                self.table.iloc[rows].reset_index(drop=True),
                self.constraint,
                self.meta,
                RenumberedStudents(self.students, rows.tolist()),
            )
            for rows in split_slices(self.table)
        ]

    def choose(self, safety: float, also: Mapping[str, float] | None = None) -> FrontierPoint:
        """Return the feasible row of least loss that is safe enough; ``choose(0.97).student`` is its student.

        A row is safe enough if it measures at least ``safety``, or if that much was asked of it and it is feasible: a
        run that ends at 0.96999 under the threshold 0.97 has met it to the tolerance of ``feasible``.  Of equally cheap
        rows the safest, then the first solved.

        Args:
            safety: The least safety of the constraint that was swept.
            also: The least safety of other constraints, by name, as they are measured.

        Returns:
            The row, with its student where the frontier keeps one.

        Raises:
            InvalidInput: No row is safe enough; the message names the highest safety that was reached.
        """
        if not is_number(safety) or not np.isfinite(safety):
            raise InvalidInput(f"`safety` is {safety!r}; wanted a finite number, for example choose(safety=0.97).")
        if not isinstance(also or {}, Mapping) or not all(
            is_number(s) and np.isfinite(s) for s in (also or {}).values()
        ):
            raise InvalidInput(f"`also` is {also!r}; wanted finite numbers by constraint, such as {{'night': 0.9}}.")
        x_ND, rows = self.read_points([self.constraint, *self.check_names(list(also or {}))])
        required = [float(safety), *(also or {}).values()]
        met_ND = np.column_stack([self.credit_safety(rows), x_ND[:, 2:]])
        enough = np.flatnonzero((met_ND >= required).all(axis=1))
        if len(enough) == 0:
            raise InvalidInput(self._describe_reach(met_ND, required, also or {}))
        duplicate = self.table["duplicate"].to_numpy(bool)[rows[enough]]
        order = np.lexsort((duplicate, -x_ND[enough, 1], x_ND[enough, 0]))
        return self._point(int(rows[enough[order[0]]]))

    def knee(self) -> FrontierPoint:
        """Return the row where the frontier bends most: beyond it, a little more safety costs much.

        Farthest from the chord between the ends of the front, both objectives scaled to their range; see
        ``solvers.indicators.knee``.  Rows of several seeds count together; ``slices()`` parts them.

        Returns:
            The row, with its student where the frontier keeps one.

        Raises:
            InvalidInput: There is none: the front is straight, or has fewer than three points.
        """
        x_N2, rows = self.read_points([self.constraint])
        place = indicators.knee(turn_safeties(x_N2))
        if place is None:
            raise InvalidInput(
                f"This frontier over '{self.constraint}' has no knee: {len(self.nondominated())} nondominated points, "
                "none of them below the chord between the ends. Take one by choose(safety=...)."
            )
        return self._point(int(rows[place]))

    def check_names(self, over: Names | None) -> list[str]:
        """Return the names of constraints, that of the swept one for None.  Raises InvalidInput for an unknown one."""
        if not (over is None or isinstance(over, (str, list, tuple))):
            raise InvalidInput(f"`over` is {over!r}; wanted names of constraints, such as ['day', 'night'].")
        names = [self.constraint] if over is None else [over] if isinstance(over, str) else list(over)
        known = list_constraints(self.table)
        for name in names:
            if name not in known:
                raise InvalidInput(f"There is no constraint '{name}' in this frontier; it has {', '.join(known)}.")
        return names

    def read_points(self, names: Sequence[str]) -> tuple[Floats, NDArray[np.intp]]:
        """Return loss and safeties, (N, D), of the feasible rows where all are finite, and which rows these are."""
        columns = ["distillation_loss", *(f"safety_{name}" for name in names)]
        x_ND = self.table[columns].to_numpy(dtype=np.float64)
        rows = np.flatnonzero(self.table["feasible"].to_numpy(bool) & np.isfinite(x_ND).all(axis=1))
        return x_ND[rows], rows

    def credit_safety(self, rows: NDArray[np.intp]) -> Floats:
        """Return the safety that feasible rows measure, or that was asked of them where this is more, (N,)."""
        columns = self.table[[f"safety_{self.constraint}", "target"]].to_numpy(dtype=np.float64)[rows]
        credited_N: Floats = np.fmax(columns[:, 0], columns[:, 1])
        return credited_N

    def _point(self, row: int) -> FrontierPoint:
        return FrontierPoint(row, self.table.iloc[row], self.constraint, self.students)

    def _describe_reach(self, met_ND: Floats, required: list[float], also: Mapping[str, float]) -> str:
        wanted = " and ".join(f"{n} {r:g}" for n, r in zip([self.constraint, *also], required, strict=True))
        if len(met_ND) == 0:
            return f"No row reaches {wanted}: none of the {len(self.table)} rows is feasible. Trace lower targets."
        held = met_ND[(met_ND[:, 1:] >= required[1:]).all(axis=1)]
        if len(held) == 0:
            highest = ", ".join(f"{n} {h:.6g}" for n, h in zip(also, met_ND[:, 1:].max(axis=0), strict=True))
            return f"No feasible row reaches {wanted}: the highest are {highest}, each by itself. Ask for less."
        return (
            f"No feasible row reaches {wanted}: the highest is {self.constraint} {held[:, 0].max():.6g}. "
            "Ask for at most that, or trace higher targets."
        )


def turn_safeties(x_ND: Floats) -> Floats:
    """Return loss and safeties with the safeties' signs turned, so that all are minimized; and back."""
    turned_ND: Floats = x_ND * np.array([1.0] + [-1.0] * (x_ND.shape[-1] - 1))
    return turned_ND
