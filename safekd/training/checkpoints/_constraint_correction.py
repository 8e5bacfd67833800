"""The last correction of a student: onto the active constraints, by a small change of its parameters.

A run ends near its constraints, not on them: a multiplier that is still rising leaves a violation, one that is still
falling leaves safety that nobody asked for, and both cost.  So a few steps, each judged by a full pass, take the
student onto the rows that are violated, or that have a multiplier (``_correction_step``).  At a point of Karush, Kuhn
and Tucker every direction buys safety at the same rate, lambda, to first order.  Where a run ends early, or the
gradient of a constraint lies where the loss bends most, the smallest step costs several times that, and a step that
looks at the loss does not.

What counts changes by whole examples, and a step follows the gradient of its surrogate.  So a count may rest while the
surrogate rises: such a step is taken too, and the next one goes on.  A step that carried counts beyond their thresholds
is shortened to what meets them.  A count that is met has no gap, whatever it has to spare.
Source: the restoration step of sequential quadratic programming (Nocedal and Wright, chapter 18).
Axes: M constraints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ._correction_step import ConstraintGaps, LossCurvature, find_steps, move_parameters, restore_parameters


@dataclass(frozen=True)
class CorrectionSettings:
    """Numbers of the correction.

    Attributes:
        steps: Gauss-Newton steps at most; each costs a full pass with gradients.  Far thresholds that a short run has
            not reached need four, others one or two (cells of ``benchmarks.primal_dual``).
        counted_steps: The same while something that counts is missed (``python -m benchmarks.counted``).
        halvings: How often a step that carried a count beyond its threshold is halved, to find what meets it.
        inside: Where to land, as a share of the tolerance inside of the threshold, so that rounding leaves it met.
        near: Share of the violation at the start up to which a student counts as near its constraints.  It is a last
            step, not training: a student that a few steps left where it was is handed back as it is.
        tolerances: Gaps of so many tolerances count as near wherever the run began.
            ``tests/safekd/training/loop/test_averaged_iterate.py`` notices all of them but those of counts, which
            ``tests/safekd/training/checkpoints/test_counted_correction.py`` does.
    """

    steps: int = 4
    counted_steps: int = 10
    halvings: int = 3
    inside: float = 0.1
    near: float = 0.25
    tolerances: float = 10.0


SETTINGS = CorrectionSettings()


def is_near_constraints(g_M: Tensor, first_gap: float, tolerance: float) -> bool:
    """Tell whether gaps are small enough to be corrected.

    Args:
        g_M: Gaps now, (M,); safety to spare is none.
        first_gap: Largest violation at the start of the run.
        tolerance: Of the run.
    """
    gap = float(g_M.max()) if len(g_M) else 0.0
    return gap <= max(SETTINGS.near * first_gap, SETTINGS.tolerances * tolerance)


@torch.no_grad()
def correct_constraints(
    student: nn.Module,
    here: ConstraintGaps,
    read: Callable[[], ConstraintGaps],
    lambda_M: Tensor,
    smooth_M: Tensor,
    tolerance: float,
    curvature: LossCurvature | None = None,
) -> ConstraintGaps | None:
    """Move the student onto its active constraints; return where it stands then, None where nothing was to be done.

    The student is left at the last point at which less was missed than before.

    Args:
        student: Changed in place.
        here: Where it stands.
        read: Reads it anew.
        lambda_M: Multipliers, (M,); an equality counts as active whatever its multiplier.
        smooth_M: Whether a constraint's value moves smoothly, (M,): safety to spare is given back there only.
        tolerance: Gaps up to this are none.
        curvature: Of the loss, for steps that look at it; None for the smallest steps.
    """
    parameters = [p for p in student.parameters() if p.requires_grad]
    corrected: ConstraintGaps | None = None
    for number in range(SETTINGS.counted_steps):
        active_M = (here.g_M > tolerance) | ((lambda_M != 0) & smooth_M)
        counted_M = active_M & ~smooth_M

        def measure(at: ConstraintGaps, active_M: Tensor = active_M) -> tuple[float, float]:
            return _measure_misses(at, active_M | (at.g_M > tolerance), smooth_M)

        if measure(here)[0] <= tolerance or (number >= SETTINGS.steps and not bool(counted_M.any())):
            break
        moved = False
        for step_n in find_steps(here, here.g_M + SETTINGS.inside * tolerance, active_M, tolerance, curvature):
            before = move_parameters(parameters, step_n)
            there = read()
            moved = measure(there) < measure(here)  # not where that is NaN
            if moved:
                break
            restore_parameters(parameters, before)
        if not moved:
            break
        if bool((there.g_M[counted_M] < -tolerance).any()) and measure(there)[0] <= tolerance:
            there = _shorten_step(parameters, step_n, there, read, lambda at: measure(at)[0] <= tolerance)
        here = corrected = there
    return corrected


def _shorten_step(
    parameters: Sequence[nn.Parameter],
    step_n: Tensor,
    here: ConstraintGaps,
    read: Callable[[], ConstraintGaps],
    is_met: Callable[[ConstraintGaps], bool],
) -> ConstraintGaps:
    """Go back along a step after which all is met, as far as it stays so; return where the student stands then."""
    for number in range(SETTINGS.halvings):
        before = move_parameters(parameters, -(0.5 ** (number + 1)) * step_n)
        there = read()
        if is_met(there):
            here = there
        else:
            restore_parameters(parameters, before)
    return here


def _measure_misses(here: ConstraintGaps, active_M: Tensor, smooth_M: Tensor) -> tuple[float, float]:
    """Return the largest gap of active constraints, then the largest in surrogates of those that miss a count."""
    missed_M = torch.where(smooth_M, here.g_M.abs(), here.g_M.clamp_min(0.0))
    counted_M = active_M & ~smooth_M & (missed_M > 0)
    gap = float(missed_M[active_M].max()) if bool(active_M.any()) else 0.0
    if here.surrogate_g_M is None or not bool(counted_M.any()):
        return gap, -math.inf
    return gap, float(here.surrogate_g_M[counted_M].max())
