"""The last steps of a student: along its active constraints, to where the loss is less.

A run of a given length ends on its constraints before its loss is at rest: gradient descent is slow along directions in
which the loss bends little.  Conjugate gradients are not, and the passes that the correction has left over pay for a
few steps of them.  Each is a step of sequential quadratic programming within a radius (``go_along``), put back onto
the constraints where it missed them, judged by a full pass, and taken back unless the loss has fallen.
Source: Nocedal and Wright, chapter 18.  Axes: M constraints, n parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ._correction_step import ConstraintGaps, LossCurvature, go_along, go_onto, move_parameters, restore_parameters


@dataclass(frozen=True)
class DescentAlongSettings:
    """Numbers of the descent; ``tests/safekd/training/checkpoints/test_descent_along.py`` notices all of them.

    Attributes:
        steps: Steps at most; each costs one full pass with gradients, or two.
        first: Radius of the first one, as a share of the norm of the parameters: no more than they move by in a few
            steps of training.
        growth: By how much the radius grows after a step that was taken, and shrinks after one that was not.
        inside: Gaps up to this share of the tolerance are none: a student that misses no more may not miss more later.
    """

    steps: int = 6
    first: float = 3e-3
    growth: float = 4.0
    inside: float = 0.1


SETTINGS = DescentAlongSettings()


@torch.no_grad()
def descend_along_constraints(
    student: nn.Module,
    here: ConstraintGaps,
    read: Callable[[], ConstraintGaps],
    active_M: Tensor,
    tolerance: float,
    curvature: LossCurvature | None,
) -> bool:
    """Move the student along its active constraints where that lowers the loss; say whether it moved.

    A student that misses a constraint, or has no active one, stays where it is.

    Args:
        student: Changed in place.
        here: Where it stands, with the gradient of the loss.
        read: Reads it anew.
        active_M: Constraints that hold it back, (M,).
        tolerance: Gaps up to this are none.
        curvature: Of the loss; None where there is none to be had.
    """
    if curvature is None or not bool(active_M.any()) or not bool((here.g_M <= tolerance).all()):
        return False
    parameters = [p for p in student.parameters() if p.requires_grad]
    norm = torch.linalg.vector_norm(torch.cat([p.reshape(-1) for p in parameters])).to(here.jacobian_Mn)
    radius, descended = SETTINGS.first * norm, False
    most_M = here.g_M.clamp_min(SETTINGS.inside * tolerance)  # no loss is bought with safety
    for _ in range(SETTINGS.steps):
        step_n = go_along(here, active_M, torch.zeros_like(here.jacobian_Mn[0]), radius, curvature)
        if not bool(step_n.any()):
            break
        before = move_parameters(parameters, step_n)
        there = read()
        missed_M = there.g_M > most_M
        if bool(missed_M.any()):
            move_parameters(parameters, go_onto(there, there.g_M, active_M | missed_M, tolerance)[0])
            there = read()
        if bool((there.g_M <= most_M).all()) and there.loss < here.loss:  # not where it is NaN
            here, radius, descended = there, SETTINGS.growth * radius, True
        else:
            restore_parameters(parameters, before)
            radius = radius / SETTINGS.growth
    return descended
