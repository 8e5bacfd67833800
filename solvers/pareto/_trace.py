"""The door: what is asked, which sweep answers it, and what it came to in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from ..errors import InvalidInput
from ._anchors import Ends, find_ends
from ._epsilon import Sweep
from ._frontier import Frontier, Gap, Row
from ._inputs import check_counts, check_targets
from ._rows import epsilon_row, gap_row, judge, solutions, weight_row
from ._task import Answer, Bounds, Function, Task
from ._weights import Weighted

_SOLVES, _BESIDES, _PER_START = 6, 60, 25  # the default budget: solves a target, for ends and gaps, and a start


def trace_frontier(
    objective: Function,
    constrained: Function,
    x0: Tensor,
    *,
    targets: int | Sequence[float] = 21,
    method: str = "epsilon",
    inequality: Function | None = None,
    equality: Function | None = None,
    bounds: Bounds = None,
    budget: int | None = None,
    tolerance: float = 1e-8,
    steps: int = 60,
    starts: int = 4,
    smallest_gap: float = 0.02,
    seed: int = 0,
    on_point: Callable[[Mapping[str, Any]], None] | None = None,
) -> Frontier:
    """Trace the least ``objective(x)`` at each level of ``constrained(x)``, both to be minimised.

    objective, constrained: x to one number; inequality (``<= 0``), equality (``= 0``): x to a row of values; bounds:
    (lower, upper); x0: where to start; all as for ``minimize``, which makes every solve.

    method "epsilon": minimise the objective subject to ``constrained <= target``.  targets: how many, spread evenly
    from the least value of ``constrained`` to its value where the objective alone is least, both ends included; or
    the targets, in any order.  Concave parts are reached.  Every target has a row.  What targets leave of the budget
    goes to gaps: by default only to those that their neighbours' multipliers do not explain, and with a ``budget`` to
    all wider than ``smallest_gap``, the widest first.  What does not close is listed in ``gaps``.
    method "mu": minimise ``objective + mu constrained``.  targets: how many points, or the weights, each at least 0.
    What lies between two answers that the same weight values equally is out of reach of any weight; that is said.

    budget: solves at most, ends included; None: six a target, 25 a start, and sixty.  tolerance, steps: of each solve.
    starts: how many the objective alone is minimised from, x0 among them; the other end and a target in the middle get
    one besides, and each up to four times ``starts`` once another minimum was seen; 1 for x0 alone.
    smallest_gap: 1 is the whole range of an objective.  seed: of starts.  on_point: called with a row, as far as it is
    known, when its target is first answered.

    Local solves prove no global optimum: several minima are noticed by the other starts and by neighbours that
    contradict each other, and then mended from the better one.
    Raises InvalidInput for what cannot be used, and where there is no frontier: an end without bottom whose targets
    were not given, or rows that nothing meets.
    Source: epsilon constraints, Haimes, Lasdon and Wismer 1971; slopes at the ends, Gauvin and Dubeau 1982; weights,
    Aneja and Nair 1979.

    >>> import torch
    >>> f = trace_frontier(lambda x: (x - 2).square().sum(), lambda x: x.square().sum(), torch.ones(1), targets=5)
    >>> f.table[["target", "objective", "multiplier"]].round(4).to_numpy().tolist()[1:]
    [[1.0, 1.0, 1.0], [2.0, 0.3431, 0.4142], [3.0, 0.0718, 0.1547], [4.0, 0.0, 0.0]]
    """
    wanted = check_targets(targets)
    check_counts(budget, starts, steps, tolerance, smallest_gap)
    if method not in ("epsilon", "mu"):
        raise InvalidInput(f"`method` is {method!r}; wanted 'epsilon' (all of the frontier) or 'mu' (weighted sums).")
    if method == "mu" and not isinstance(wanted, int) and wanted[0] < 0:
        raise InvalidInput(f"`targets` of a mu sweep are weights; found {wanted[0]:g}, wanted none below 0.")
    count = wanted if isinstance(wanted, int) else len(wanted)
    most = _SOLVES * count + _BESIDES + _PER_START * starts if budget is None else budget
    task = Task(objective, constrained, x0, inequality, equality, bounds, tolerance, steps, seed, most)
    ends = find_ends(task, starts)
    _check_ends(ends, task)
    if method == "mu":
        return _by_weights(task, ends, wanted, smallest_gap, on_point)
    if isinstance(wanted, int):
        wanted = [ends.right.c] if ends.is_point else _spread(ends, wanted)
    return _by_targets(task, ends, wanted, starts, smallest_gap, budget is not None, on_point)


def _spread(ends: Ends, count: int) -> list[float]:
    levels = np.linspace(ends.left.c, ends.right.c, count)
    levels[0], levels[-1] = ends.left.c, ends.right.c
    found: list[float] = levels.tolist()
    return found


def _check_ends(ends: Ends, task: Task) -> None:
    for answer, what in ((ends.right, "objective"), (ends.left, "constrained")):
        if answer.status == "infeasible" or not (answer.sound or answer.violation <= task.feasible):
            raise InvalidInput(f"There is no frontier, for no point met the rows and bounds: {answer.message}")
        if answer.status in ("diverged", "unbounded"):
            raise InvalidInput(
                f"There is no end of the frontier where `{what}` alone is least: {answer.message} Bound the variables, "
                "or start elsewhere."
            )


def _by_targets(
    task: Task,
    ends: Ends,
    wanted: list[float],
    starts: int,
    smallest: float,
    everywhere: bool,
    on_point: Callable[[Mapping[str, Any]], None] | None,
) -> Frontier:
    def tell(target: float, answer: Answer) -> None:
        if on_point is not None:
            on_point(epsilon_row(sweep, target, answer))

    sweep = Sweep(task, ends, sorted(set(wanted)), starts, smallest, everywhere, tell)
    sweep.run()
    rows: list[Row] = []
    answers: list[Answer | None] = []
    for target in sorted([*wanted, *sweep.filled]):
        answer = sweep.best.get(target)
        rows.append(epsilon_row(sweep, target, answer) | {"filled": target in sweep.filled})
        answers.append(answer)
    said = [gap.message for gap in sweep.gaps]
    if ends.is_point:
        said.append("One point is best in both: the frontier is that point.")
    table = judge(rows, answers, task, ends)
    flagged = table["slope_contradicted"].tolist()
    targets = [row["target"] for row in rows]
    table["slope_contradicted"] = [wrong and not sweep.confirms(t) for wrong, t in zip(flagged, targets, strict=True)]
    return _frontier(task, ends, "epsilon", table, answers, sweep.gaps, said)


def _by_weights(
    task: Task,
    ends: Ends,
    wanted: int | list[float],
    smallest: float,
    on_point: Callable[[Mapping[str, Any]], None] | None,
) -> Frontier:
    def tell(weight: float, answer: Answer) -> None:
        if on_point is not None:
            on_point(weight_row(answer, weight, 0, ""))

    sweep = Weighted(task, ends, wanted, smallest, tell)
    sweep.run()
    names = {id(ends.right): "the objective", id(ends.left): "`constrained`"}
    lines: list[tuple[Row, Answer | None]] = [
        (weight_row(answer, weight, spent, names.get(id(answer), "")), answer) for weight, answer, spent in sweep.found
    ]
    for (weight, left, right, spent), gap in zip(sweep.unreached, sweep.gaps, strict=False):
        lines.append((gap_row((left.c + right.c) / 2, weight, spent, gap.message), None))
    lines.sort(key=lambda line: (line[0]["target"], -line[0]["mu"]))
    said = [gap.message for gap in sweep.gaps]
    answers = [answer for _, answer in lines]
    table = judge([row for row, _ in lines], answers, task, ends)
    return _frontier(task, ends, "mu", table, answers, sweep.gaps, said)


def _frontier(
    task: Task,
    ends: Ends,
    method: str,
    table: pd.DataFrame,
    answers: list[Answer | None],
    gaps: list[Gap],
    said: list[str],
) -> Frontier:
    if task.solves >= task.budget:
        said.append(f"The budget of {task.budget} solves was spent.")
    if ends.several:
        said.append("Several local minima were seen; more `starts` may find better ones.")
    flagged = table.loc[table["slope_contradicted"], "target"]
    if len(flagged):
        said.append(f"Multipliers contradict the slope at {', '.join(f'{t:.6g}' for t in flagged)}.")
    counts = ", ".join(f"{n} {status}" for status, n in table["status"].value_counts().items())
    message = " ".join([f"{len(table)} rows ({counts}).", *said])
    return Frontier(table, solutions(answers, task.x0), gaps, method, message, task.solves, task.evaluations)
