"""How good a frontier is: hypervolume, distances to an exact front, and what is attained over seeds.

Axes: N rows, D objectives (the loss, then each safety), M points of another front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from solvers import indicators

from ...errors import InvalidInput
from ._frontier_columns import split_slices
from ._frontier_table import FrontierTable, Names, turn_safeties

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ReferenceSettings:
    """Where the reference corner lies where nobody chose one.  test_frontier_questions.py would notice.

    Attributes:
        margin: How far behind the worst nondominated points, as a part of their range: a tenth is what the literature
            of hypervolumes uses, so that both ends count (Ishibuchi and others 2018).
    """

    margin: float = 0.1


REFERENCE = ReferenceSettings()


@dataclass(frozen=True, eq=False, repr=False)
class RatedFrontier(FrontierTable):
    """A frontier table, and how good it is."""

    @property
    def reference(self) -> tuple[float, float]:
        """The worst corner (loss in nats, safety) against which volumes are measured where none is given.

        ``meta["reference"]`` if it is there, else a tenth of their range behind the worst nondominated points.
        Raises InvalidInput where no row is feasible.
        """
        if "reference" in self.meta:
            loss, safety = _check_corner(self.meta["reference"], 2)
        else:
            loss, safety = _find_corner(self.points)
        return float(loss), float(safety)

    def hypervolume(self, reference: Sequence[float] | None = None, over: Names | None = None) -> float:
        """Return the area between the feasible points and a reference, their worst corner.

        Points that are not better than the corner in every objective add nothing.  Compare volumes only against one and
        the same reference.  Rows of several seeds count together; ``slices()`` parts them.

        Args:
            reference: The corner (loss in nats, safety), or the loss and each safety of ``over``, in that order.
                None: ``frontier.reference``, or the corner that is determined so for ``over``.
            over: Names of constraints, for the volume over loss and all these safeties.  None: the swept one.

        Returns:
            The area, nats times safety (times each further safety); zero where no row is feasible.

        Raises:
            InvalidInput: No point is better than the reference in every objective, or it is none.

        Source: Zitzler and Thiele 1999.
        """
        names = self.check_names(over)
        x_ND = self.read_points(names)[0]
        if reference is None:
            if len(x_ND) == 0:
                return 0.0
            corner_D = np.array(self.reference) if over is None else _find_corner(x_ND)
        else:
            corner_D = _check_corner(reference, 1 + len(names))
        inside = (turn_safeties(x_ND) < turn_safeties(corner_D)).all(axis=1)
        if len(x_ND) and not inside.any():
            best = ", ".join(f"{value:.6g}" for value in (x_ND[:, 0].min(), *x_ND[:, 1:].max(axis=0)))
            corner = ", ".join(f"{value:.6g}" for value in _find_corner(x_ND))
            raise InvalidInput(
                f"`reference` is {tuple(corner_D.tolist())}, and no point is better in every objective; the best of "
                f"(loss, {', '.join(names)}) are ({best}). It is to be the worst corner, with a larger loss and "
                f"less safety than the points: choose for example ({corner}), or leave it out."
            )
        return indicators.hypervolume(turn_safeties(x_ND), turn_safeties(corner_D))

    def igd_plus(self, exact: FrontierTable | Sequence[Sequence[float]] | Floats) -> float:
        """Return how far, on average, the points of an exact front are from being matched; 0 is best.

        Args:
            exact: Points as (loss in nats, safety), shape (M, 2), or another frontier, whose nondominated rows count.

        Returns:
            The mean distance, in the units of the columns, nats and safety.

        Source: Ishibuchi and others 2015.
        """
        return indicators.igd_plus(turn_safeties(self.points), _read_exact(exact))

    def additive_epsilon(self, exact: FrontierTable | Sequence[Sequence[float]] | Floats) -> float:
        """Return by how much loss and safety must improve at most for every point of an exact front to be matched.

        Args:
            exact: Points as (loss in nats, safety), shape (M, 2), or another frontier, whose nondominated rows count.

        Returns:
            The distance, in the units of the columns; negative where all exact points are dominated.

        Source: Zitzler and others 2003.
        """
        return indicators.additive_epsilon(turn_safeties(self.points), _read_exact(exact))

    def attainment(
        self,
        *others: FrontierTable,
        at: Sequence[float] | None = None,
        shares: Sequence[float] = (0.5, 0.75, 1.0),
    ) -> pd.DataFrame:
        """Return which loss is reached at each safety by each share of the seeds.

        Args:
            others: Further frontiers; runs are the seeds of this table and of each of them.
            at: Safeties, by default all targets.
            shares: Shares of the seeds, above 0 and at most 1; that of 0.5 is the median run, that of 1.0 the worst.

        Returns:
            One row a safety, one column a share, losses in nats.  A loss is infinite where fewer seeds than that share
            are safe enough, which is read as by ``choose``.

        Raises:
            InvalidInput: Held thresholds differ within a table: take one of its ``slices()``.

        Source: Grunert da Fonseca, Fonseca and Hall 2001.
        """
        strange = [other for other in others if not isinstance(other, FrontierTable)]
        if strange:
            raise InvalidInput(f"attainment was given a {type(strange[0]).__name__}; wanted further frontiers.")
        runs = [run for frontier in (self, *others) for run in _read_seeds(frontier)]
        levels = np.unique(self.table["target"].dropna() if at is None else _read_array(at, "at"))
        reached = indicators.attainment(runs, -levels, shares)
        index = pd.Index(levels, name=f"safety_{self.constraint}")
        return pd.DataFrame(reached, index=index, columns=pd.Index(shares, name="share of seeds"))


def _read_seeds(frontier: FrontierTable) -> list[Floats]:
    """Return (minus safety, loss) of the feasible points, shape (N, 2), of each seed."""
    table = frontier.table
    held = [c for c in table.columns if c.startswith("held_") and len(table[c].drop_duplicates()) > 1]
    if held:
        raise InvalidInput(
            f"This table has several thresholds in {', '.join(held)}; seeds are compared at one. "
            "Take one of frontier.slices()."
        )
    x_N2, rows = frontier.read_points([frontier.constraint])
    met_N2 = np.column_stack([-frontier.credit_safety(rows), x_N2[:, 0]])
    return [met_N2[np.isin(rows, part)] for part in split_slices(table)]


def _find_corner(x_ND: Floats) -> Floats:
    """Return the corner (loss, safeties) a part of the range behind the worst nondominated points, (D,)."""
    if len(x_ND) == 0:
        raise InvalidInput("No row is feasible, so there is no corner behind the points. Give `reference`.")
    front_MD = turn_safeties(x_ND)[indicators.nondominated(turn_safeties(x_ND))]
    width_D = np.ptp(front_MD, axis=0)
    size_D = np.abs(front_MD).max(axis=0)
    width_D = np.where(width_D > 0, width_D, np.where(size_D > 0, size_D, 1.0))
    return turn_safeties(front_MD.max(axis=0) + REFERENCE.margin * width_D)


def _check_corner(reference: Any, size: int) -> Floats:
    try:
        corner_D = np.asarray(reference, dtype=np.float64)
    except (TypeError, ValueError):
        corner_D = np.empty(0)
    if corner_D.shape != (size,) or not np.isfinite(corner_D).all():
        wanted = "two finite numbers (loss, safety)" if size == 2 else f"{size} finite numbers (loss, safeties)"
        raise InvalidInput(f"`reference` is {reference}; wanted {wanted}, worse than the points.")
    return corner_D


def _read_exact(exact: Any) -> Floats:
    if isinstance(exact, FrontierTable):
        x_M2 = exact.points
        return turn_safeties(x_M2)[indicators.nondominated(turn_safeties(x_M2))]
    x_M2 = _read_array(exact, "exact")
    if x_M2.ndim != 2 or x_M2.shape[1] != 2:
        raise InvalidInput(f"`exact` has shape {x_M2.shape}; wanted points (loss, safety), shape (M, 2).")
    return turn_safeties(x_M2)


def _read_array(values: Any, name: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"`{name}` is {values!r}; wanted numbers.") from error
