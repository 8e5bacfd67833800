"""From solved points to the table: a row a target, annotated by what its neighbors say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ._annotations import annotate_duplicates, annotate_nondominated, contradicts_neighbors
from ._epsilon import EpsilonSweep
from ._frontier_ends import FrontierEnds
from ._pareto_frontier import Row
from ._point_solver import PointSolver, SolvedPoint


@dataclass(frozen=True)
class RowSettings:
    """What rows are compared with.  tests/solvers/pareto/test_pareto.py would notice (known fronts, kinks).

    Attributes:
        duplicate: In units of the range: points nearer than this are one.
        equal: In units of the range: what a solve may leave of a difference.
        balanced: Stationarity beyond which a multiplier means nothing, as at a kink.
    """

    duplicate: float = 1e-9
    equal: float = 1e-6
    balanced: float = 1e-3


SETTINGS = RowSettings()


def build_epsilon_row(sweep: EpsilonSweep, target: float, point: SolvedPoint | None) -> Row:
    """Return the row of a target."""
    if point is None:
        row = _build_row(target, None)
        row.update(status="not_solved", message="The budget was spent before this target; allow more solves.")
        return row
    ends = sweep.ends
    row = _build_row(target, point)
    row["evaluations"] = sweep.evaluations.get(target, 0)
    if sweep.is_below(target):
        row["status"], row["multiplier"] = "infeasible", math.nan
        row["message"] = (
            f"`constrained` gets no lower than {ends.left.c:.6g}, by {ends.left.c - target:.3g} more than this target; "
            "shown is the point that reaches that."
        )
    elif point is ends.left or point is ends.right:
        _describe_end(row, ends, point, target, sweep.slack_c)
    elif point.target != target and point.converged:
        row["status"], row["warm_from"] = "redundant", point.target
        row["message"] = f"The answer to {point.target:.6g} is the answer here too: the row is slack."
        row["multiplier"] = 0.0
    return row


def _describe_end(row: Row, ends: FrontierEnds, point: SolvedPoint, target: float, slack_c: float) -> None:
    which = "`constrained`" if point is ends.left else "the objective"
    if abs(target - point.c) <= slack_c:
        if point.converged:
            row["status"] = "anchor"
        row["message"] = f"An end of the frontier: the least that {which} reaches. {point.message}"
        return
    row["multiplier"], row["warm_from"] = 0.0, point.c
    if point.converged:
        row["status"] = "redundant"
    row["message"] = f"Met already where {which} is least, at {point.c:.6g}: the row is slack. {point.message}"


def build_weight_row(point: SolvedPoint, weight: float, evaluations: int, end: str) -> Row:
    """Return the row of a weight; ``end``: which end of the frontier it is, if it is one."""
    row = _build_row(point.c, point)
    row.update(mu=weight, evaluations=evaluations)
    if end:
        if point.converged:
            row["status"] = "anchor"
        row["message"] = f"An end of the frontier: {end} alone. {point.message}"
    else:
        row["multiplier"] = weight
    return row


def build_gap_row(target: float, weight: float, evaluations: int, message: str) -> Row:
    """Return the row that stands for what no weight reaches."""
    row = _build_row(target, None)
    row.update(mu=weight, evaluations=evaluations, status="unreachable", message=message)
    return row


def _build_row(target: float, point: SolvedPoint | None) -> Row:
    nan, residuals = math.nan, None if point is None else point.residuals
    balanced = point is not None and point.residuals.stationarity <= SETTINGS.balanced
    return {
        "target": target,
        "objective": nan if point is None else point.f,
        "constrained": nan if point is None else point.c,
        "violation": nan if point is None else point.violation_with(target),
        "multiplier": point.multiplier if point is not None and balanced else nan,
        "penalty": nan if point is None else point.penalty,
        "kkt_stationarity": nan if residuals is None else residuals.stationarity,
        "kkt_primal": nan if residuals is None else residuals.primal,
        "kkt_dual": nan if residuals is None else residuals.dual,
        "kkt_complementarity": nan if residuals is None else residuals.complementarity,
        "status": "" if point is None else point.status,
        "feasible": point is not None,
        "nondominated": False,
        "duplicate": False,
        "multiplier_contradicted": False,
        "filled": False,
        "warm_from": nan if point is None else point.origin,
        "evaluations": 0,
        "message": "" if point is None else point.message,
    }


def annotate_pareto_rows(
    rows: Sequence[Row], points: Sequence[SolvedPoint | None], solver: PointSolver, ends: FrontierEnds
) -> pd.DataFrame:
    """Return the table, with what points say of each other filled in."""
    width_2 = np.array(ends.width_2)
    for row, point in zip(rows, points, strict=True):
        row["feasible"] = (
            point is not None
            and row["status"] != "infeasible"
            and (point.converged or point.violation <= solver.feasible)
            and point.c <= row["target"] + SETTINGS.equal * width_2[0]
        )
    table = pd.DataFrame(list(rows))
    points_N2 = table[["constrained", "objective"]].to_numpy(dtype=np.float64)
    feasible_N = table["feasible"].to_numpy(dtype=bool)
    table["nondominated"] = annotate_nondominated(points_N2, feasible_N, SETTINGS.equal * width_2)
    table["duplicate"] = annotate_duplicates(points_N2, SETTINGS.duplicate * width_2)
    solved_N = (table["nondominated"] & ~table["status"].isin(["redundant", "unreachable"])).to_numpy(dtype=bool)
    c_N, f_N = (np.where(solved_N, points_N2[:, i], np.nan) for i in (0, 1))
    multiplier_N = table["multiplier"].to_numpy(dtype=np.float64)
    # a wall, where the frontier is vertical, has neighbors that tell nothing of it
    finite_N = np.where(np.isinf(multiplier_N), np.nan, multiplier_N)
    table["multiplier_contradicted"] = contradicts_neighbors(c_N, f_N, finite_N)
    return table


def collect_solutions(points: Sequence[SolvedPoint | None], x0: Tensor) -> list[Tensor]:
    """Return x of each row, of x0's shape and dtype."""
    return [torch.full_like(x0, math.nan) if p is None else p.x.to(x0).reshape(x0.shape) for p in points]
