"""What the rows of a frontier tell of each other: which are beaten, which are one point, whose multiplier cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from solvers.indicators import nondominated
from solvers.pareto import contradicts_slope

from ._schema import in_order, parts

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SAME = 1e-6  # of the range: two solves of one problem agree to their tolerance, and targets are farther apart


def mark(table: pd.DataFrame, constraint: str) -> pd.DataFrame:
    """Return the table with columns ``nondominated``, ``duplicate`` and ``slope_contradicted``, in the order of files.

    Rows of one seed and one set of held thresholds are compared with each other.  nondominated: feasible, and no other
    feasible row has loss and safety as good and one better; of equal ones the first that was solved.  duplicate: the
    same loss and safety as an earlier one, to a millionth of their range.  slope_contradicted: the multiplier of a
    nondominated row is not the slope of loss against safety that its neighbours show, see
    ``solvers.pareto.contradicts_slope``; sampling errors are not granted, since loss, safety and multiplier are read
    from the same examples.
    """
    loss, safety, price = (_numbers(table, name) for name in _own(constraint))
    finite = np.isfinite(loss) & np.isfinite(safety)
    usable = table["feasible"].to_numpy(bool) & finite
    best, twin, wrong = (np.zeros(len(table), dtype=bool) for _ in range(3))
    taken_over = table["status"].isin(["redundant", "taken"]).to_numpy(bool)  # of equal rows the one solved counts
    for rows in parts(table):
        rows = rows[np.argsort(taken_over[rows], kind="stable")]
        at = rows[usable[rows]]
        best[at] = nondominated(np.stack([loss[at], -safety[at]], axis=1))
        there = rows[finite[rows]]
        twin[there] = _repeats(np.stack([loss[there], safety[there]], axis=1))
        front = rows[best[rows] & ~twin[rows]]
        wrong[front] = contradicts_slope(-safety[front], loss[front], price[front])
    marked = table.assign(nondominated=best, duplicate=twin, slope_contradicted=wrong)
    return marked[in_order(marked.columns)]


def _own(constraint: str) -> tuple[str, str, str]:
    return "distillation_loss", f"safety_{constraint}", f"lambda_{constraint}"


def _numbers(table: pd.DataFrame, column: str) -> Floats:
    return np.asarray(table[column].to_numpy(), dtype=np.float64)


def _repeats(point_N2: Floats) -> Mask:
    """Say which points repeat an earlier one."""
    if len(point_N2) == 0:
        return np.zeros(0, dtype=bool)
    near_2 = _SAME * np.ptp(point_N2, axis=0)
    near: Any = (np.abs(point_N2[:, None] - point_N2) <= near_2).all(axis=-1)
    return np.asarray(np.tril(near, -1).any(axis=1), dtype=bool)
