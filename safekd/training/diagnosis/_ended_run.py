"""A run that has stopped, and what verdicts say of it in numbers and names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from torch import Tensor

from solvers.kkt import KKTResiduals

from .._fit_result import Finding
from .._full_pass import FullPass
from ..checkpoints import rank_point
from ..trace import TracePoint
from ._next_moves import RunFacts
from ._student_restoration import StudentRestoration


@dataclass(frozen=True)
class StatusSettings:
    """Numbers by which endings are told apart; ``tests/safekd/training/diagnosis/test_verdict_truth.py`` notices them.

    Attributes:
        least_points: Of a trace: with fewer, its second half shows no tendency.
        most_passes: Passes over the data that probes may cost, nor do they take more than the run did.
        flat_log_safety: Gradient norm of the mean of -log(safety) that counts as none, a unit of parameters.
        stalled: A least violation above this share of the one of the first half of the run has stalled.
        stationary: Multiples of the tolerance that stationarity may reach while a multiplier grows without end.
        heavy: Multiples of the tolerance that such a multiplier's force must reach beside the loss's gradient.
        steady_force: Largest over smallest force, multiplier times gradient norm, that counts as steady.
        shrinking: Share of its first violation below which a violation shrinks.
        growing: Multiple of its first value above which a multiplier grows.
        decrease: Share of the tolerance that a step must lower the merit by to refute a minimum.
        least_weight: Farkas weight above which a constraint is named.
    """

    least_points: int = 4
    most_passes: int = 150
    flat_log_safety: float = 1e-2
    stalled: float = 0.9
    stationary: float = 3.0
    heavy: float = 30.0
    steady_force: float = 1.05
    shrinking: float = 0.7
    growing: float = 1.3
    decrease: float = 0.1
    least_weight: float = 1e-6


SETTINGS = StatusSettings()


@dataclass(frozen=True)
class EndedRun:
    """A run that has stopped by itself or spent its budget.

    Attributes:
        points: Its trace.
        jacobian_Mn: Gradients of g at the last point, (M, n); None where they are more than the budget holds.
        tolerance: Of the run.
        capped: Names of constraints whose multiplier stands at its cap.
        facts: What it was given.
        targets_move: Whether targets change as the run goes on.
    """

    points: Sequence[TracePoint]
    jacobian_Mn: Tensor | None
    tolerance: float
    capped: Sequence[str]
    facts: RunFacts
    targets_move: bool = False

    @property
    def last(self) -> TracePoint:
        return self.points[-1]

    def gradient_norm(self, m: int) -> float:
        """Return the norm of a constraint's gradient at the last point; NaN where it was not read."""
        return math.nan if self.jacobian_Mn is None else float(self.jacobian_Mn[m].norm())

    @property
    def passes(self) -> int:
        """How many passes over the data evidence may cost."""
        return min(SETTINGS.most_passes, max(self.last.epoch, 1))

    @property
    def violated(self) -> bool:
        return self.last.residuals.primal > self.tolerance

    @property
    def numbers(self) -> str:
        return f"{format_residuals(self.last.residuals)} at step {self.last.step}"

    @property
    def best(self) -> TracePoint:
        """The point whose student ``most_feasible`` is."""
        return min(self.points, key=rank_point)


def is_converged(point: TracePoint, tolerance: float) -> bool:
    """Say whether all four residuals are small; what is no number never is.

    An estimated stationarity must be small with two standard errors added.  A counted mix moves in steps, and its slack
    cannot be brought below one: its complementarity may be as large as that step, primal feasibility never.

    Args:
        point: What was read.
        tolerance: Residuals up to this are small.
    """
    residuals = point.residuals
    step = max((reading.resolution for reading in point.readings if not reading.equality), default=0.0)
    adjusted = replace(
        residuals, stationarity=point.stationarity_bound, complementarity=residuals.complementarity - step
    )
    return adjusted.holds(tolerance)


def format_residuals(residuals: KKTResiduals) -> str:
    """Write the four residuals with two digits each.

    Args:
        residuals: Of a point.
    """
    return ", ".join(f"{name} {value:.2g}" for name, value in asdict(residuals).items())


def is_stalled(points: Sequence[TracePoint]) -> bool:
    """Say whether the least violation fell by less than a tenth over the second half of the points.

    Args:
        points: A trace.
    """
    half = len(points) // 2
    if len(points) < SETTINGS.least_points:
        return False
    return min(map(largest_violation, points)) > SETTINGS.stalled * min(map(largest_violation, points[:half]))


def largest_violation(point: TracePoint | FullPass) -> float:
    return max((reading.violation for reading in point.readings), default=0.0)


def format_safety(point: TracePoint | FullPass) -> str:
    return ", ".join(f"{reading.name} {reading.measured:.4g}" for reading in point.readings)


def format_names(point: TracePoint, chosen: Sequence[int]) -> str:
    return ", ".join(f"'{point.readings[m].name}'" for m in chosen)


def residual_findings(run: EndedRun) -> dict[str, Finding]:
    return {**asdict(run.last.residuals), "tolerance": run.tolerance}


def suggest_thresholds(point: TracePoint | FullPass) -> str:
    """Say which thresholds a student has reached."""
    missed = [reading for reading in point.readings if reading.violation > 0]
    wanted = ", ".join(f"'{reading.name}' to {format_reachable(reading.measured)}" for reading in missed)
    return f"Lower {wanted}: result.most_feasible reaches that" if wanted else "result.most_feasible meets all of them"


def format_reachable(value: float) -> str:
    """Write a value that can be reached, rounded down."""
    return f"{int(value * 1e4) / 1e4:.4g}"


def choose_safer(restored: StudentRestoration, best: TracePoint) -> FullPass | TracePoint:
    return restored.full if restored.least < largest_violation(best) else best


def best_findings(point: TracePoint | FullPass) -> dict[str, Finding]:
    return {
        "best_safety": [reading.measured for reading in point.readings],
        "best_violation": largest_violation(point),
    }
