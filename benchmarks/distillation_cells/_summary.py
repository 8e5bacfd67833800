"""Compares rows: whose feasible loss is lower, by which setting, and how steady a run ends.

A contender's loss on a cell is the mean over seeds of its least feasible loss; one seed without a feasible student
makes it infinite.  Its best setting is the one of its grid with the least such loss.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ._contenders import BY_HAND, LOOP, PEERS, PENALTY, TRAINER
from ._figures import Row

CLOSE = 1.02  # the ratio up to which ours counts as no worse
FEASIBLE = "feasible"
PEER_NAMES = tuple(who.name for who in PEERS)


@dataclass(frozen=True)
class Result:
    """One contender with one setting on one cell, all seeds together.

    Args:
        rows: One a seed.
    """

    rows: tuple[Row, ...]

    @property
    def contender(self) -> str:
        """Who."""
        return self.rows[0].contender

    @property
    def setting(self) -> str:
        """Which of its grid."""
        return self.rows[0].setting

    @property
    def documented(self) -> bool:
        """Whether that is its documented setting."""
        return self.rows[0].documented

    def mean(self, name: str) -> float:
        """Return the mean over seeds of a number.

        Args:
            name: A column of ``Row``.

        Returns:
            The mean.
        """
        return sum(getattr(row, name) for row in self.rows) / len(self.rows)


@dataclass(frozen=True)
class Ratio:
    """Ours beside another on one cell.

    Args:
        cell: The cell's name.
        mine: Our result.
        other: The other's, None if nobody of that kind ran.
        figure: The column of ``Row`` that is compared.
    """

    cell: str
    mine: Result
    other: Result | None
    figure: str = FEASIBLE

    @property
    def value(self) -> float:
        """Our loss divided by the other's: 0 where only we have a feasible student, infinite where only it has one.

        Not a number where nobody has one.
        """
        mine, other = self.losses
        if math.isnan(other) or (math.isinf(mine) and math.isinf(other)):
            return math.nan
        return math.inf if math.isinf(mine) else mine / other

    @property
    def losses(self) -> tuple[float, float]:
        """Our loss and the other's, which is not a number if nobody of that kind ran."""
        return self.mine.mean(self.figure), math.nan if self.other is None else self.other.mean(self.figure)


@dataclass(frozen=True)
class Tally:
    """Ratios of many cells in a few numbers.

    Args:
        cells: How many ratios are numbers.
        close: How many of them are at most CLOSE.
        median: Of them.
        worst: The largest.
        where: The cell of the largest.
    """

    cells: int
    close: int
    median: float
    worst: float
    where: str


def group_results(rows: Iterable[Row]) -> list[Result]:
    """Return rows of one cell by contender and setting.

    Args:
        rows: Of one cell.

    Returns:
        One result each, in the order of the rows; contenders that did not run are left out.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if math.isfinite(row.seconds):
            groups.setdefault((row.contender, row.setting), []).append(row)
    return [Result(tuple(group)) for group in groups.values()]


def choose_best(
    rows: Iterable[Row], names: Sequence[str], documented: bool = False, figure: str = FEASIBLE
) -> Result | None:
    """Return the result of least loss among some contenders on one cell.

    Args:
        rows: Of one cell.
        names: Of the contenders.
        documented: Whether only documented settings count.
        figure: The column of ``Row`` that decides.

    Returns:
        The result, the documented one among equals; None where nobody ran.
    """
    results = group_results(rows)
    mine = [one for one in results if one.contender in names and (one.documented or not documented)]
    return min(mine, key=lambda one: (one.mean(figure), not one.documented), default=None)


def group_by_cell(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return rows by the name of their cell.

    Args:
        rows: Of all cells.

    Returns:
        The rows of each cell, in order.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.cell, []).append(row)
    return groups


def compare(
    rows: Iterable[Row], ours: str, others: Sequence[str], documented: bool = False, figure: str = FEASIBLE
) -> list[Ratio]:
    """Return our ratio to the best of some others, cell by cell.

    Args:
        rows: Of all cells.
        ours: Name of our contender.
        others: Names of the others.
        documented: Whether others keep their documented settings.
        figure: The column of ``Row`` that is compared, and by which the others' best is chosen.

    Returns:
        One ratio a cell in which ours ran.
    """
    ratios = []
    for cell, here in group_by_cell(rows).items():
        mine = choose_best(here, [ours], figure=figure)
        if mine is not None:
            ratios.append(Ratio(cell, mine, choose_best(here, others, documented, figure), figure))
    return ratios


def tally(ratios: Sequence[Ratio]) -> Tally:
    """Return how many ratios are close, their median and the worst.

    Args:
        ratios: One a cell.

    Returns:
        The numbers; ratios that are no numbers are left out.
    """
    known = [ratio for ratio in ratios if not math.isnan(ratio.value)]
    if not known:
        return Tally(0, 0, math.nan, math.nan, "")
    worst = max(known, key=lambda ratio: ratio.value)
    values = [ratio.value for ratio in known]
    close = sum(value <= CLOSE for value in values)
    return Tally(len(known), close, statistics.median(values), worst.value, worst.cell)


OPPONENTS: dict[str, tuple[tuple[str, ...], bool]] = {
    "best peer, best setting": (PEER_NAMES, False),
    "best peer, documented settings": (PEER_NAMES, True),
    "by hand, best setting": ((BY_HAND.name,), False),
    "by hand, default": ((BY_HAND.name,), True),
    "fixed penalty, best setting": ((PENALTY.name,), False),
    "best of all these": ((*PEER_NAMES, BY_HAND.name, PENALTY.name), False),
}
OURS = (TRAINER, LOOP.name)
