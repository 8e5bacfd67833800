"""From answers to the table: a row a target, checked against its neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ._anchors import Ends
from ._checks import contradicts_slope
from ._epsilon import Sweep
from ._frontier import Row, nondominated, repeated
from ._task import Answer, Task

_SAME = 1e-9  # in units of the range: points that are one
_BALANCED = 1e-3  # stationarity beyond which a multiplier means nothing, as at a kink
_EQUAL = 1e-6  # and what a solve may leave


def epsilon_row(sweep: Sweep, target: float, answer: Answer | None) -> Row:
    """Return the row of a target."""
    if answer is None:
        row = _row(target, None)
        row.update(status="not_solved", message="The budget was spent before this target; allow more solves.")
        return row
    ends = sweep.ends
    row = _row(target, answer)
    row["evaluations"] = sweep.spent.get(target, 0)
    if sweep.below(target):
        row["status"], row["multiplier"] = "infeasible", math.nan
        row["message"] = (
            f"`constrained` gets no lower than {ends.left.c:.6g}, by {ends.left.c - target:.3g} more than this target; "
            "shown is the point that reaches that."
        )
    elif answer is ends.left or answer is ends.right:
        _as_end(row, ends, answer, target, sweep.slack_c)
    elif answer.asked != target and answer.sound:
        row["status"], row["warm_from"] = "redundant", answer.asked
        row["message"] = f"The answer to {answer.asked:.6g} is the answer here too: the row is slack."
        row["multiplier"] = 0.0
    return row


def _as_end(row: Row, ends: Ends, answer: Answer, target: float, slack_c: float) -> None:
    which = "`constrained`" if answer is ends.left else "the objective"
    if abs(target - answer.c) <= slack_c:
        if answer.sound:
            row["status"] = "anchor"
        row["message"] = f"An end of the frontier: the least that {which} reaches. {answer.message}"
        return
    row["multiplier"], row["warm_from"] = 0.0, answer.c
    if answer.sound:
        row["status"] = "redundant"
    row["message"] = f"Met already where {which} is least, at {answer.c:.6g}: the row is slack. {answer.message}"


def weight_row(answer: Answer, weight: float, spent: int, end: str) -> Row:
    """Return the row of a weight; ``end``: which end of the frontier it is, if it is one."""
    row = _row(answer.c, answer)
    row.update(mu=weight, evaluations=spent)
    if end:
        if answer.sound:
            row["status"] = "anchor"
        row["message"] = f"An end of the frontier: {end} alone. {answer.message}"
    else:
        row["multiplier"] = weight
    return row


def gap_row(target: float, weight: float, spent: int, message: str) -> Row:
    """Return the row that stands for what no weight reaches."""
    row = _row(target, None)
    row.update(mu=weight, evaluations=spent, status="unreachable", message=message)
    return row


def _row(target: float, answer: Answer | None) -> Row:
    nan, residuals = math.nan, None if answer is None else answer.residuals
    return {
        "target": target,
        "objective": nan if answer is None else answer.f,
        "constrained": nan if answer is None else answer.c,
        "violation": nan if answer is None else answer.missed(target),
        "multiplier": nan if answer is None or not answer.residuals.stationarity <= _BALANCED else answer.price,
        "penalty": nan if answer is None else answer.penalty,
        "kkt_stationarity": nan if residuals is None else residuals.stationarity,
        "kkt_primal": nan if residuals is None else residuals.primal,
        "kkt_dual": nan if residuals is None else residuals.dual,
        "kkt_complementarity": nan if residuals is None else residuals.complementarity,
        "status": "" if answer is None else answer.status,
        "feasible": answer is not None,
        "nondominated": False,
        "duplicate": False,
        "slope_contradicted": False,
        "filled": False,
        "warm_from": nan if answer is None else answer.origin,
        "evaluations": 0,
        "message": "" if answer is None else answer.message,
    }


def judge(rows: Sequence[Row], answers: Sequence[Answer | None], task: Task, ends: Ends) -> pd.DataFrame:
    """Return the table, with what points say of each other filled in."""
    width_2 = np.array(ends.width_2)
    for row, answer in zip(rows, answers, strict=True):
        row["feasible"] = (
            answer is not None
            and row["status"] != "infeasible"
            and (answer.sound or answer.violation <= task.feasible)
            and answer.c <= row["target"] + _EQUAL * width_2[0]
        )
    table = pd.DataFrame(list(rows))
    points_N2 = table[["constrained", "objective"]].to_numpy(dtype=np.float64)
    feasible_N = table["feasible"].to_numpy(dtype=bool)
    table["nondominated"] = nondominated(points_N2, feasible_N, _EQUAL * width_2)
    table["duplicate"] = repeated(points_N2, _SAME * width_2)
    seen_N = (table["nondominated"] & ~table["status"].isin(["redundant", "unreachable"])).to_numpy(dtype=bool)
    c_N, f_N = (np.where(seen_N, points_N2[:, i], np.nan) for i in (0, 1))
    price_N = table["multiplier"].to_numpy(dtype=np.float64)
    # a wall, where the frontier is vertical, has neighbours that tell nothing of it
    table["slope_contradicted"] = contradicts_slope(c_N, f_N, np.where(np.isinf(price_N), np.nan, price_N))
    return table


def solutions(answers: Sequence[Answer | None], x0: Tensor) -> list[Tensor]:
    """Return x of each row, of x0's shape and dtype."""
    return [torch.full_like(x0, math.nan) if a is None else a.x.to(x0).reshape(x0.shape) for a in answers]
