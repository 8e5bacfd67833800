"""The Pareto frontier between two objectives of any differentiable problem.

    f = trace_frontier(objective, constrained, x0, targets=21, bounds=(0.0, 1.0))     # both to be minimized
    f.table, f.points, f.solutions, f.gaps, f.message

In this order: both ends (``_frontier_ends``), then every target by constrained solves (``_epsilon_targets``), and gaps
between them (``_epsilon``), or by weights (``_weighted_sum``), then a row a target, annotated (``_pareto_rows``,
``_annotations``).  What a sweep decides, whoever solves its points, stands in ``_sweep_planner``; a sweep over training
runs uses the same.
"""

from ._annotations import ContradictionSettings, annotate_duplicates, annotate_nondominated, contradicts_neighbors
from ._pareto_frontier import FrontierGap, ParetoFrontier
from ._sweep_planner import (
    BudgetSpent,
    RunBudget,
    Standing,
    explain_fall,
    find_balancing_weight,
    is_better,
    lies_inside,
    list_largest_gaps,
    measure_extrapolation,
    spread_targets,
)
from ._trace_pareto import trace_frontier

__all__ = [
    "BudgetSpent",
    "ContradictionSettings",
    "FrontierGap",
    "ParetoFrontier",
    "RunBudget",
    "Standing",
    "annotate_duplicates",
    "annotate_nondominated",
    "contradicts_neighbors",
    "explain_fall",
    "find_balancing_weight",
    "is_better",
    "lies_inside",
    "list_largest_gaps",
    "measure_extrapolation",
    "spread_targets",
    "trace_frontier",
]
