"""Whether the rules of each row leave it any weights, where rows have bounds or tiers of their own.

Axes: B rows, K teachers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from solvers.errors import InfeasiblePolytope

from ._projection_orders import BoundedOrder
from .exact.cpu_kernels._bounded_batch_kernels import CROSSED, MIXED, TOO_MUCH, check_row_rules
from .exact.cpu_kernels._row_threads import run_over_rows


def find_mixed_tiers(
    order: BoundedOrder, rows: int, eps: float, name_row_at: Callable[[int], str]
) -> npt.NDArray[np.bool_]:
    """Return which rows, (B,), have several tiers and bounds that differ inside one: those have no exact path.

    Raises InfeasiblePolytope, naming the first row that its rules leave no weights; rows with mixed tiers are left to
    whoever projects them.  eps: of the weights' dtype, to whose rounding the rules are not held.
    """
    finding_B, number_B3 = np.zeros(rows, dtype=np.int64), np.zeros((rows, 3))
    arrays, margin = order.arrays, order.margin

    def run(start: int, stop: int) -> int:
        return check_row_rules(*arrays, margin, eps, finding_B, number_B3, start, stop)

    if run_over_rows(run, rows, order.tier_RK.shape[1]) > MIXED:
        row = int((finding_B > MIXED).argmax())
        raise InfeasiblePolytope(
            f"{name_row_at(row)}: {_describe_row_conflict(finding_B[row], number_B3[row].tolist(), margin)}"
        )
    mixed_B: npt.NDArray[np.bool_] = finding_B == MIXED
    return mixed_B


def _describe_row_conflict(finding: int, number_3: list[float], margin: float) -> str:
    teacher, low, high = number_3
    head = "No weights satisfy the rules"
    by = f" by margin={margin:g}" if margin else ""
    if finding == CROSSED:
        return (
            f"{head}: with everyone in order{by}, teacher {teacher:.0f} must weigh at least {low:g} and at most "
            f"{high:g}. Widen the bounds of those above or below it{', or lower the margin' if margin else ''}."
        )
    if finding == TOO_MUCH:
        return (
            f"{head}: with everyone in order{by}, lower bounds take at least {low:g} in total, and weights must sum to "
            f"1. Lower `lower`, by {low - 1:g} in total{', or the margin' if margin else ''}."
        )
    return (
        f"{head}: with everyone in order{by}, upper bounds allow at most {high:g} in total, and weights must sum to 1. "
        f"Raise `upper`, by {1 - high:g} in total{', or lower the margin' if margin else ''}."
    )
