"""The table of a frontier, and what is asked of it: the best points, the cheapest that is safe enough, how good it is.

Two objectives: distillation loss, smaller is better; safety, larger is better.  Further safeties can be objectives too.
Axes: N rows, D objectives (the loss, then each safety), M points of another front.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from solvers import indicators

from .._number_checks import is_number
from ..errors import InvalidInput
from . import _files
from ._point import FrontierPoint, Renumbered
from ._schema import parts, safeties

if TYPE_CHECKING:
    from torch import nn

    from ._plan import MakeTrainer
    from ._verify import VerifyReport

Floats = NDArray[np.float64]
Names = str | Sequence[str]

_BEYOND = 0.1  # of the range: how far behind the worst points the reference lies where nobody chose one


@dataclass(frozen=True, eq=False, repr=False)
class Frontier:
    """Rows of a sweep, one a target, ordered by target.

    table: columns as ``COLUMNS_DOC`` says, index 0, 1, ...  constraint: the name whose threshold was swept.
    meta: what belongs to all rows.  students: student of each row that has one, by row; may load them when asked.
    """

    table: pd.DataFrame
    constraint: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    students: Mapping[int, nn.Module] = field(default_factory=dict)

    # ---- points -----------------------------------------------------------------------------------------

    @property
    def points(self) -> Floats:
        """Feasible points as (loss, safety), shape (N, 2), of all seeds and held thresholds; finite ones only."""
        return self._points(self._names(None))[0]

    def nondominated(self, over: Names | None = None) -> pd.DataFrame:
        """Return the feasible rows that no other feasible row beats in loss and safety.

        Without ``over``, the rows marked so when the frontier was traced: each seed and each set of held thresholds has
        a frontier of its own.  over: names of constraints; then loss and all these safeties are objectives, and all
        rows are compared with each other: ``nondominated(["day", "night"])`` is the three-objective set of a sweep over
        "day" with "night" held at several thresholds.  Raises InvalidInput for a name that the table does not have.
        """
        if over is None:
            return self.table[self.table["nondominated"].astype(bool)]
        x_ND, rows = self._points(self._names(over))
        return self.table.iloc[rows[indicators.nondominated(_minimised(x_ND))]]

    def slices(self) -> list[Frontier]:
        """Return the frontier of each seed and each set of held thresholds by itself."""
        return [
            Frontier(
                self.table.iloc[rows].reset_index(drop=True),
                self.constraint,
                self.meta,
                Renumbered(self.students, rows.tolist()),
            )
            for rows in parts(self.table)
        ]

    def at(self, safety: float, also: Mapping[str, float] | None = None) -> FrontierPoint:
        """Return the feasible row of least loss that is safe enough; ``at(0.97).student`` is its student.

        A row is safe enough if it measures at least ``safety``, or if that much was asked of it and it is feasible: a
        run that ends at 0.96999 under the threshold 0.97 has met it to the tolerance of ``feasible``.  also: the same
        for other constraints, by name, as they are measured.  Of equally cheap rows the safest, then the first solved.
        Raises InvalidInput, naming the highest safety that was reached, where no row is safe enough.
        """
        if not is_number(safety) or not np.isfinite(safety):
            raise InvalidInput(f"`safety` is {safety!r}; wanted a finite number, for example at(safety=0.97).")
        if not isinstance(also or {}, Mapping) or not all(
            is_number(s) and np.isfinite(s) for s in (also or {}).values()
        ):
            raise InvalidInput(f"`also` is {also!r}; wanted finite numbers by constraint, such as {{'night': 0.9}}.")
        x_ND, rows = self._points([self.constraint, *self._names(list(also or {}))])
        required = [float(safety), *(also or {}).values()]
        met_ND = np.column_stack([self._credited(rows), x_ND[:, 2:]])
        enough = np.flatnonzero((met_ND >= required).all(axis=1))
        if len(enough) == 0:
            raise InvalidInput(self._out_of_reach(met_ND, required, also or {}))
        again = self.table["duplicate"].to_numpy(bool)[rows[enough]]
        order = np.lexsort((again, -x_ND[enough, 1], x_ND[enough, 0]))
        return self._point(int(rows[enough[order[0]]]))

    def knee(self) -> FrontierPoint:
        """Return the row where the frontier bends most: beyond it, a little more safety costs much.

        Farthest from the chord between the ends of the front, both objectives scaled to their range; see
        ``solvers.indicators.knee``.  Rows of several seeds count together, as in all that follows; ``slices()`` parts
        them.  Raises InvalidInput where there is none.
        """
        x_N2, rows = self._points([self.constraint])
        at = indicators.knee(_minimised(x_N2))
        if at is None:
            raise InvalidInput(
                f"This frontier over '{self.constraint}' has no knee: {len(self.nondominated())} nondominated points, "
                "none of them below the chord between the ends. Choose by at(safety=...)."
            )
        return self._point(int(rows[at]))

    # ---- indicators -------------------------------------------------------------------------------------

    @property
    def reference(self) -> tuple[float, float]:
        """The worst corner (loss, safety) against which volumes are measured where none is given.

        ``meta["reference"]`` if it is there, else a tenth of their range behind the worst nondominated points.
        Raises InvalidInput where no row is feasible.
        """
        if "reference" in self.meta:
            loss, safety = self._corner(self.meta["reference"], 2)
            return float(loss), float(safety)
        loss, safety = self._behind(self._points([self.constraint])[0])
        return float(loss), float(safety)

    def hypervolume(self, reference: Sequence[float] | None = None, over: Names | None = None) -> float:
        """Return the area between the feasible points and ``reference`` = (loss, safety), their worst corner.

        over: names of constraints, for the volume over loss and all these safeties; the reference then has as many
        numbers, in that order.  reference: left out, ``frontier.reference``, or the corner that is found so for
        ``over``.  Points that are not better than the corner in every objective add nothing.  Compare volumes only
        against one and the same reference.  Zero where no row is feasible.  Source: Zitzler and Thiele 1999.
        Raises InvalidInput for a reference than which no point is better in every objective.
        """
        names = self._names(over)
        x_ND = self._points(names)[0]
        if reference is None:
            if len(x_ND) == 0:
                return 0.0
            corner_D = np.array(self.reference) if over is None else self._behind(x_ND)
        else:
            corner_D = self._corner(reference, 1 + len(names))
        inside = (_minimised(x_ND) < _minimised(corner_D)).all(axis=1)
        if len(x_ND) and not inside.any():
            best = ", ".join(f"{value:.6g}" for value in (x_ND[:, 0].min(), *x_ND[:, 1:].max(axis=0)))
            corner = ", ".join(f"{value:.6g}" for value in self._behind(x_ND))
            raise InvalidInput(
                f"`reference` is {tuple(corner_D.tolist())}, and no point is better in every objective; the best of "
                f"(loss, {', '.join(names)}) are ({best}). It is to be the worst corner, with a larger loss and "
                f"less safety than the points: choose for example ({corner}), or leave it out."
            )
        return indicators.hypervolume(_minimised(x_ND), _minimised(corner_D))

    def igd_plus(self, exact: Frontier | Sequence[Sequence[float]] | Floats) -> float:
        """Return how far, on average, the points of an exact front are from being matched; 0 is best.

        exact: points as (loss, safety), shape (M, 2), or another frontier, of which the nondominated rows count.
        In the units of the columns, nats and safety.  Source: Ishibuchi and others 2015.
        """
        return indicators.igd_plus(_minimised(self.points), self._other(exact))

    def additive_epsilon(self, exact: Frontier | Sequence[Sequence[float]] | Floats) -> float:
        """Return by how much loss and safety must improve at most for every point of ``exact`` to be matched.

        Negative where all are beaten; ``exact`` and units as for ``igd_plus``.  Source: Zitzler and others 2003.
        """
        return indicators.additive_epsilon(_minimised(self.points), self._other(exact))

    def attainment(
        self,
        *others: Frontier,
        at: Sequence[float] | None = None,
        shares: Sequence[float] = (0.5, 0.75, 1.0),
    ) -> pd.DataFrame:
        """Return which loss is reached at each safety by each share of the seeds, one row a safety, one column a share.

        Runs are the seeds of this table and of each of ``others``.  at: safeties, by default all targets.  A loss is
        infinite where fewer seeds than that share are safe enough, which is read as by ``at``.  The column of 0.5 is
        the median run, that of 1.0 the worst.  Source: Grunert da Fonseca, Fonseca and Hall 2001.
        Raises InvalidInput where held thresholds differ within a table: take one of its ``slices()``.
        """
        strange = [other for other in others if not isinstance(other, Frontier)]
        if strange:
            raise InvalidInput(f"attainment was given a {type(strange[0]).__name__}; wanted further frontiers.")
        runs = [run for frontier in (self, *others) for run in frontier._runs()]
        places = np.unique(self.table["target"].dropna() if at is None else _array(at, "at"))
        reached = indicators.attainment(runs, -places, shares)
        index = pd.Index(places, name=f"safety_{self.constraint}")
        return pd.DataFrame(reached, index=index, columns=pd.Index(shares, name="share of seeds"))

    # ---- files and words --------------------------------------------------------------------------------

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one tidy row a point, floats to the last bit, and ``.meta.json`` beside it; each whole or absent.

        Raises InvalidInput where the table has no rows, or lacks a column of ``COLUMNS_DOC``.
        """
        _files.write(self.table, self.constraint, self.meta, path)

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], students: Mapping[int, nn.Module] | None = None) -> Frontier:
        """Read what ``to_csv`` wrote, bit for bit.  students: those of its rows, by row, where you have them.

        Raises InvalidInput when one of the two files is absent, cut off, of another schema version, or has other
        columns, rows or kinds of cells than it was written with.
        """
        return cls(*_files.read(path), students or {})

    def plot(self, path: str | os.PathLike[str], required: float | None = None) -> None:
        """Draw loss against safety, multiplier below; ``required`` draws the threshold asked for.

        The name's ending decides: .png, .svg, .pdf, or .html, which is one page without network that shows every
        number of a point under the pointer or the keyboard's focus.  The same frontier gives the same bytes.
        """
        if required is not None and (not is_number(required) or not np.isfinite(required)):
            raise InvalidInput(f"`required` is {required!r}; wanted a finite number to draw, or None.")
        if os.fspath(path).lower().endswith((".html", ".htm")):
            from ._html import draw
        else:
            from ._plot import draw
        draw(self, path, required)

    def verify(self, make_trainer: MakeTrainer, train: Any, validation: Any = None, **more: Any) -> VerifyReport:
        """Read every student again on the data and compare it with its row; see ``kd.verify``."""
        from ._verify import verify

        return verify(self, make_trainer, train, validation, **more)

    def summary(self) -> str:
        """Return what was traced, how it went and what safety costs, in a few lines."""
        from ._summary import summary

        return summary(self)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<Frontier over '{self.constraint}': {len(self.table)} rows, {len(self.nondominated())} nondominated>"

    # ---- within -----------------------------------------------------------------------------------------

    def _names(self, over: Names | None) -> list[str]:
        if not (over is None or isinstance(over, (str, list, tuple))):
            raise InvalidInput(f"`over` is {over!r}; wanted names of constraints, such as ['day', 'night'].")
        names = [self.constraint] if over is None else [over] if isinstance(over, str) else list(over)
        known = safeties(self.table)
        for name in names:
            if name not in known:
                raise InvalidInput(f"There is no constraint '{name}' in this frontier; it has {', '.join(known)}.")
        return names

    def _points(self, names: Sequence[str]) -> tuple[Floats, NDArray[np.intp]]:
        """Return loss and safeties, (N, D), of the feasible rows where all are finite, and which rows these are."""
        columns = ["distillation_loss", *(f"safety_{name}" for name in names)]
        x_ND = self.table[columns].to_numpy(dtype=np.float64)
        rows = np.flatnonzero(self.table["feasible"].to_numpy(bool) & np.isfinite(x_ND).all(axis=1))
        return x_ND[rows], rows

    def _credited(self, rows: NDArray[np.intp]) -> Floats:
        """Return the safety that feasible rows measure, or that was asked of them where this is more, (N,)."""
        columns = self.table[[f"safety_{self.constraint}", "target"]].to_numpy(dtype=np.float64)[rows]
        credited_N: Floats = np.fmax(columns[:, 0], columns[:, 1])
        return credited_N

    def _runs(self) -> list[Floats]:
        held = [c for c in self.table.columns if c.startswith("held_") and len(self.table[c].drop_duplicates()) > 1]
        if held:
            raise InvalidInput(
                f"This table has several thresholds in {', '.join(held)}; seeds are compared at one. "
                "Take one of frontier.slices()."
            )
        x_N2, rows = self._points([self.constraint])
        met_N2 = np.column_stack([-self._credited(rows), x_N2[:, 0]])
        return [met_N2[np.isin(rows, part)] for part in parts(self.table)]

    def _point(self, row: int) -> FrontierPoint:
        return FrontierPoint(row, self.table.iloc[row], self.constraint, self.students)

    def _behind(self, x_ND: Floats) -> Floats:
        """Return the corner (loss, safeties) a tenth of the range behind the worst nondominated points, (D,)."""
        if len(x_ND) == 0:
            raise InvalidInput("No row is feasible, so there is no corner behind the points. Give `reference`.")
        front_MD = _minimised(x_ND)[indicators.nondominated(_minimised(x_ND))]
        width_D = np.ptp(front_MD, axis=0)
        size_D = np.abs(front_MD).max(axis=0)
        width_D = np.where(width_D > 0, width_D, np.where(size_D > 0, size_D, 1.0))
        return _minimised(front_MD.max(axis=0) + _BEYOND * width_D)

    def _corner(self, reference: Any, size: int) -> Floats:
        try:
            corner_D = np.asarray(reference, dtype=np.float64)
        except (TypeError, ValueError):
            corner_D = np.empty(0)
        if corner_D.shape != (size,) or not np.isfinite(corner_D).all():
            wanted = "two finite numbers (loss, safety)" if size == 2 else f"{size} finite numbers (loss, safeties)"
            raise InvalidInput(f"`reference` is {reference}; wanted {wanted}, worse than the points.")
        return corner_D

    def _other(self, exact: Any) -> Floats:
        if isinstance(exact, Frontier):
            x_M2, _ = exact._points([exact.constraint])
            return _minimised(x_M2)[indicators.nondominated(_minimised(x_M2))]
        x_M2 = _array(exact, "exact")
        if x_M2.ndim != 2 or x_M2.shape[1] != 2:
            raise InvalidInput(f"`exact` has shape {x_M2.shape}; wanted points (loss, safety), shape (M, 2).")
        return _minimised(x_M2)

    def _out_of_reach(self, met_ND: Floats, required: list[float], also: Mapping[str, float]) -> str:
        asked = " and ".join(f"{n} {r:g}" for n, r in zip([self.constraint, *also], required, strict=True))
        if len(met_ND) == 0:
            return f"No row reaches {asked}: none of the {len(self.table)} rows is feasible. Trace lower targets."
        held = met_ND[(met_ND[:, 1:] >= required[1:]).all(axis=1)]
        if len(held) == 0:
            highest = ", ".join(f"{n} {h:.6g}" for n, h in zip(also, met_ND[:, 1:].max(axis=0), strict=True))
            return f"No feasible row reaches {asked}: the highest are {highest}, each by itself. Ask for less."
        return (
            f"No feasible row reaches {asked}: the highest is {self.constraint} {held[:, 0].max():.6g}. "
            "Ask for at most that, or trace higher targets."
        )


def _array(values: Any, name: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"`{name}` is {values!r}; wanted numbers.") from error


def _minimised(x_ND: Floats) -> Floats:
    """Return loss and safeties with the safeties' signs turned, and back."""
    turned_ND: Floats = x_ND * np.array([1.0] + [-1.0] * (x_ND.shape[-1] - 1))
    return turned_ND
