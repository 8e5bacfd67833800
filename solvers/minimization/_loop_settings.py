"""Numbers of the outer loop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OuterLoopSettings:
    """Numbers of the outer loop; ``tests/solvers/minimization`` notices them by verdicts and cost.

    Attributes:
        largest_rho: Penalty at which the loop ends.
        growth: Factor on the penalty where violations do not fall.
        progress: Share of a violation that may be left after an outer step that made progress.
        settled: Relative change of multipliers that have settled, or ten times the tolerance.
        first_goal: Projected gradient that the first inner minimization is to reach.
        goal_factor: Factor on that goal from one outer step to the next; it ends at a tenth of the tolerance.
        saddle_goal: Goal after a saddle: gradients are small there, and anything coarser stops before it has begun.
        escapes: Stationary points that are left, at most.
        returns: Returns to one of them before it is taken for the answer.
        unbounded_tries: Inner minimizations without an end before no penalty is trusted to hold the objective.
        least_f: Scaled objective below which one looks whether it falls without end.
        deeper: Factor on that where it does not.
        restorations: Looks for a feasible point, at most.
        rescalings: How often scales are taken anew.
        stuck_steps: Outer steps without motion that end the loop.
        unmoved: Motion, in units of 1 + |x|, that counts as none.
        growing_steps: Outer steps with growing multipliers before one looks for a point that has none.
        multiplier_growth: Factor on the sum of multipliers that counts as growth.
        nearly_feasible: Violation up to which growing multipliers are counted.
        exact_residual: Points with multipliers get below this residual.
        large_multiplier: Multipliers of scaled rows beyond this are doubted all the same.
        steep: A scaled gradient beyond this was far too flat at the start.
        wrong_scale: Scales that are wrong by more than this factor are taken again.
        trust_radius: First trust radius of an inner minimization, in units of 1 + |x|.
        held_radius: The same after an objective fell without end: a stronger penalty may hold it near the start.
        plain_residual: Stationarity in the user's units beyond which curvature has to speak for a minimum.
        saddle_steps: Lengths of steps off a saddle, in units of 1 + |x|.
        saddle_growth: Factor on the longest of them while it leads further down.
        saddle_growths: How often it is taken at most.
    """

    largest_rho: float = 1e14
    growth: float = 10.0
    progress: float = 0.25
    settled: float = 1e-5
    first_goal: float = 1e-2
    goal_factor: float = 0.1
    saddle_goal: float = 1e-5
    escapes: int = 6
    returns: int = 3
    unbounded_tries: int = 6
    least_f: float = -1e10
    deeper: float = 1e4
    restorations: int = 3
    rescalings: int = 3
    stuck_steps: int = 3
    unmoved: float = 1e-7
    growing_steps: int = 3
    multiplier_growth: float = 1.2
    nearly_feasible: float = 1e-3
    exact_residual: float = 1e-12
    large_multiplier: float = 1e4
    steep: float = 100.0
    wrong_scale: float = 10.0
    trust_radius: float = 100.0
    held_radius: float = 1.0
    plain_residual: float = 1e-5
    saddle_steps: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    saddle_growth: float = 2.0
    saddle_growths: int = 10


SETTINGS = OuterLoopSettings()
