"""What the rows of a frontier say of each other: dominated, duplicate, or with a multiplier that cannot be right."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from solvers.indicators import nondominated
from solvers.pareto import annotate_duplicates, contradicts_neighbors

from ._frontier_columns import order_columns, split_slices

ANNOTATIONS = ("nondominated", "duplicate", "multiplier_contradicted")
_SAME = 1e-6  # of the range, as COLUMNS_DOC has it: solves agree to their tolerance, and targets are farther apart


def annotate_rows(table: pd.DataFrame, constraint: str) -> pd.DataFrame:
    """Return the table with its annotations, ``nondominated``, ``duplicate`` and ``multiplier_contradicted``.

    Rows of one seed and one set of held thresholds are compared with each other.  nondominated: feasible, and no other
    feasible row has loss and safety as good and one better; of equal ones the first that was solved.  duplicate: the
    same loss and safety as an earlier one, to a millionth of their range.  multiplier_contradicted: the multiplier of a
    nondominated row is not the trade-off between loss and safety that its neighbors show, see
    ``solvers.pareto.contradicts_neighbors``; sampling errors are not granted, since loss, safety and multiplier are
    read from the same examples.

    Args:
        table: Columns as ``COLUMNS_DOC`` has them, without these three or with old ones.
        constraint: Name of the constraint whose threshold was swept.

    Returns:
        A new table, its columns in the order of files.
    """
    loss, safety, multiplier = (
        np.asarray(table[column].to_numpy(), dtype=np.float64)
        for column in ("distillation_loss", f"safety_{constraint}", f"lambda_{constraint}")
    )
    finite = np.isfinite(loss) & np.isfinite(safety)
    usable = table["feasible"].to_numpy(bool) & finite
    best, duplicate, contradicted = (np.zeros(len(table), dtype=bool) for _ in range(3))
    taken_over = table["status"].isin(["redundant", "taken"]).to_numpy(bool)  # of equal rows the one solved counts
    for rows in split_slices(table):
        rows = rows[np.argsort(taken_over[rows], kind="stable")]
        candidates = rows[usable[rows]]
        best[candidates] = nondominated(_stack(loss[candidates], -safety[candidates]))
        measured = rows[finite[rows]]
        points_N2 = _stack(loss[measured], safety[measured])
        if len(measured):
            duplicate[measured] = annotate_duplicates(points_N2, _SAME * np.ptp(points_N2, axis=0))
        front = rows[best[rows] & ~duplicate[rows]]
        contradicted[front] = contradicts_neighbors(-safety[front], loss[front], multiplier[front])
    annotated = table.assign(nondominated=best, duplicate=duplicate, multiplier_contradicted=contradicted)
    return annotated[order_columns(annotated.columns)]


def _stack(*columns: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack(columns, axis=1)
