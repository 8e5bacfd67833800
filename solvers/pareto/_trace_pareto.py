"""Trace a frontier: what is asked, which sweep answers it, and what it came to in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor

from ..errors import InvalidInput
from ._check_arguments import check_counts, check_targets
from ._epsilon import EpsilonSweep
from ._frontier_ends import EndSettings, FrontierEnds, find_ends
from ._pareto_frontier import FrontierGap, ParetoFrontier, Row
from ._pareto_rows import (
    annotate_pareto_rows,
    build_epsilon_row,
    build_gap_row,
    build_weight_row,
    collect_solutions,
)
from ._point_solver import Bounds, Function, PointSolver, SolvedPoint
from ._sweep_planner import RunBudget, spread_targets
from ._weighted_sum import WeightedSumSweep

OnRow = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class BudgetSettings:
    """How many solves are allowed where nobody says.  benchmarks/frontier.py would notice.

    Attributes:
        per_target: Solves a target: one forward, and passes back and forth that mend what neighbors contradict.
        besides: Solves for ends and gaps.
        per_start: Solves a start: at both ends and three targets, four times as many once other minima were seen.
    """

    per_target: int = 6
    besides: int = 60
    per_start: int = 25

    def count(self, targets: int, starts: int) -> int:
        """Return the solves for so many targets and starts."""
        return self.per_target * targets + self.besides + self.per_start * starts


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
    on_point: OnRow | None = None,
) -> ParetoFrontier:
    """Trace the Pareto frontier: the least ``objective(x)`` at each level of ``constrained(x)``, both to be minimized.

    Method "epsilon" minimizes the objective subject to ``constrained <= target``; concave parts are reached too, and
    every target has a row.  What targets leave of the budget goes to gaps; what does not close is listed in ``gaps``.
    Method "mu" minimizes the weighted sum ``objective + mu constrained``.  What lies between two points that the same
    weight values equally is out of reach of any weight; that is said.

    Local solves prove no global optimum: several minima are noticed by the other starts and by neighbors that
    contradict each other, and then mended from the better one.

    Args:
        objective: x to one number.
        constrained: x to one number, which targets bound.
        x0: Where to start, of any shape, float; solves are made in float64 where the functions take it.
        targets: How many, at least 2, spread evenly from the least value of ``constrained`` to its value where the
            objective alone is least, both ends included; or the targets, in any order, in units of ``constrained``.
            For "mu": how many points, or the weights, each at least 0.
        method: "epsilon" or "mu".
        inequality: x to a row of values (M,), each <= 0; as for ``minimize``.
        equality: x to a row of values (E,), each = 0.
        bounds: (lower, upper) of x, each a number, a tensor of x0's shape, or None.
        budget: Solves at most, ends included.  None: six a target, 25 a start, and sixty; gaps are then filled only
            where their neighbors' multipliers do not explain them, else all wider than ``smallest_gap``.
        tolerance: Of the KKT residuals of each solve.
        steps: Outer steps of each solve at most.
        starts: How many starts the objective alone is minimized from, x0 among them; the other end and a target in
            the middle get one besides, and each up to four times ``starts`` once another minimum was seen; 1 for x0
            alone.
        smallest_gap: Gaps up to this distance are left; 1 is the whole range of an objective.
        seed: Of the starts.
        on_point: Called with a row, as far as it is known, when its target is first answered.

    Returns:
        The table, a row a target, with solutions, gaps and what it came to in words.

    Raises:
        InvalidInput: Something cannot be used, or there is no frontier: an end without bottom, or rows that nothing
            meets.

    Source: epsilon constraints, Haimes, Lasdon and Wismer 1971; derivatives at the ends, Gauvin and Dubeau 1982;
    weights, Aneja and Nair 1979.

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
    limit = BudgetSettings().count(count, starts) if budget is None else budget
    solver = PointSolver(
        objective, constrained, x0, inequality, equality, bounds, tolerance, steps, seed, RunBudget(limit)
    )
    ends = find_ends(solver, starts, EndSettings())
    _check_ends(ends, solver)
    if method == "mu":
        return _trace_by_weights(solver, ends, wanted, smallest_gap, on_point)
    if isinstance(wanted, int):
        wanted = [ends.right.c] if ends.is_point else spread_targets(ends.left.c, ends.right.c, wanted)
    return _trace_by_targets(solver, ends, wanted, starts, smallest_gap, budget is not None, on_point)


def _check_ends(ends: FrontierEnds, solver: PointSolver) -> None:
    for point, what in ((ends.right, "objective"), (ends.left, "constrained")):
        if point.status == "infeasible" or not (point.converged or point.violation <= solver.feasible):
            raise InvalidInput(f"There is no frontier, for no point met the rows and bounds: {point.message}")
        if point.status in ("diverged", "unbounded"):
            raise InvalidInput(
                f"There is no end of the frontier where `{what}` alone is least: {point.message} Bound the variables, "
                "or start elsewhere."
            )


def _trace_by_targets(
    solver: PointSolver,
    ends: FrontierEnds,
    wanted: list[float],
    starts: int,
    smallest_gap: float,
    everywhere: bool,
    on_point: OnRow | None,
) -> ParetoFrontier:
    def report(target: float, point: SolvedPoint) -> None:
        if on_point is not None:
            on_point(build_epsilon_row(sweep, target, point))

    sweep = EpsilonSweep(
        solver, ends, sorted(set(wanted)), starts, report, smallest_gap=smallest_gap, everywhere=everywhere
    )
    sweep.run()
    targets = sorted([*wanted, *sweep.filled])
    points = [sweep.best.get(target) for target in targets]
    rows = [
        build_epsilon_row(sweep, target, point) | {"filled": target in sweep.filled}
        for target, point in zip(targets, points, strict=True)
    ]
    messages = [gap.message for gap in sweep.gaps]
    if ends.is_point:
        messages.append("One point is best in both: the frontier is that point.")
    table = annotate_pareto_rows(rows, points, solver, ends)
    flags = table["multiplier_contradicted"].tolist()
    table["multiplier_contradicted"] = [
        flag and not sweep.confirms(target) for flag, target in zip(flags, targets, strict=True)
    ]
    return _collect(solver, ends, "epsilon", table, points, sweep.gaps, messages)


def _trace_by_weights(
    solver: PointSolver,
    ends: FrontierEnds,
    wanted: int | list[float],
    smallest_gap: float,
    on_point: OnRow | None,
) -> ParetoFrontier:
    def report(weight: float, point: SolvedPoint) -> None:
        if on_point is not None:
            on_point(build_weight_row(point, weight, 0, ""))

    sweep = WeightedSumSweep(solver, ends, wanted, smallest_gap, report)
    sweep.run()
    names = {id(ends.right): "the objective", id(ends.left): "`constrained`"}
    lines: list[tuple[Row, SolvedPoint | None]] = [
        (build_weight_row(point, weight, evaluations, names.get(id(point), "")), point)
        for weight, point, evaluations in sweep.solved
    ]
    for (weight, left, right, evaluations), gap in zip(sweep.unreached, sweep.gaps, strict=False):
        lines.append((build_gap_row((left.c + right.c) / 2, weight, evaluations, gap.message), None))
    lines.sort(key=lambda line: (line[0]["target"], -line[0]["mu"]))
    points = [point for _, point in lines]
    table = annotate_pareto_rows([row for row, _ in lines], points, solver, ends)
    return _collect(solver, ends, "mu", table, points, sweep.gaps, [gap.message for gap in sweep.gaps])


def _collect(
    solver: PointSolver,
    ends: FrontierEnds,
    method: str,
    table: pd.DataFrame,
    points: list[SolvedPoint | None],
    gaps: list[FrontierGap],
    messages: list[str],
) -> ParetoFrontier:
    budget = solver.budget
    if budget.left == 0:
        messages.append(f"The budget of {budget.limit} solves was spent.")
    if ends.several:
        messages.append("Several local minima were seen; more `starts` may find better ones.")
    flagged = table.loc[table["multiplier_contradicted"], "target"]
    if len(flagged):
        messages.append(f"Multipliers contradict their neighbors at {', '.join(f'{t:.6g}' for t in flagged)}.")
    counts = ", ".join(f"{n} {status}" for status, n in table["status"].value_counts().items())
    message = " ".join([f"{len(table)} rows ({counts}).", *messages])
    solutions = collect_solutions(points, solver.x0)
    return ParetoFrontier(table, solutions, gaps, method, message, budget.spent, solver.evaluations)
