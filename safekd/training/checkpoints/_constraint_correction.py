"""The last correction of a student: onto the active constraints, by the smallest change of its parameters.

A run ends near its constraints, not on them: a multiplier that is still rising leaves a violation, one that is still
falling leaves safety that nobody asked for, and both cost.  With g and its Jacobian J from a full pass,

    minimize 1/2 |d|^2   subject to   g_A + J_A d = 0,      d = -J_A' (J_A J_A')^-1 g_A

over the rows A that are violated, or that have a multiplier: Gauss-Newton steps, a few of them.  At a point of Karush,
Kuhn and Tucker every direction buys safety at the same rate, lambda, so the smallest step is as good as any.
Source: the restoration step of sequential quadratic programming (Nocedal and Wright, chapter 18).
Axes: M constraints, A of them active, n parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._parameter_vectors import split_vector


@dataclass(frozen=True)
class CorrectionSettings:
    """Numbers of the correction.

    Attributes:
        steps: Gauss-Newton steps at most; each costs a full pass with gradients.  Far thresholds that a short run has
            not reached need four, others one or two (cells of ``benchmarks.primal_dual``).
        inside: Where to land, as a share of the tolerance inside of the threshold, so that rounding leaves it met.
        near: Share of the violation at the start up to which a student counts as near its constraints.  It is a last
            step, not training: a student that a few steps left where it was is handed back as it is.
        tolerances: Gaps of so many tolerances count as near wherever the run began.
        ridge: Share of the largest diagonal entry of J J' that is added to the diagonal, so that constraints whose
            gradients agree share their correction.  ``tests/safekd/training/loop/test_averaged_iterate.py`` notices
            all of them.
    """

    steps: int = 4
    inside: float = 0.1
    near: float = 0.25
    tolerances: float = 10.0
    ridge: float = 1e-10


SETTINGS = CorrectionSettings()


@dataclass(frozen=True)
class ConstraintGaps:
    """Where a student stands: the gap of each constraint, and its gradient.

    Attributes:
        jacobian_Mn: Gradients of g, (M, n).
        g_M: Threshold less what is measured, > 0 where it is missed, (M,).
    """

    jacobian_Mn: Tensor
    g_M: Tensor


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
) -> ConstraintGaps | None:
    """Move the student onto its active constraints; return where it stands then, None where nothing was to be done.

    The student is left at the last point at which the largest gap of an active constraint was smaller than before.

    Args:
        student: Changed in place.
        here: Where it stands.
        read: Reads it anew.
        lambda_M: Multipliers, (M,); an equality counts as active whatever its multiplier.
        smooth_M: Whether a constraint's value moves smoothly, (M,): safety to spare is given back there only.
        tolerance: Gaps up to this are none.
    """
    parameters = [p for p in student.parameters() if p.requires_grad]
    corrected: ConstraintGaps | None = None
    for _ in range(SETTINGS.steps):
        active_M = (here.g_M > tolerance) | ((lambda_M != 0) & smooth_M)
        gap = _largest_gap(here.g_M, active_M)
        if gap <= tolerance:
            break
        before = [p.detach().clone() for p in parameters]
        step_n = _smallest_step(here.jacobian_Mn[active_M], here.g_M[active_M] + SETTINGS.inside * tolerance)
        for p, part in zip(parameters, split_vector(step_n, parameters), strict=True):
            p.add_(part)
        there = read()
        if not _largest_gap(there.g_M, active_M | (there.g_M > tolerance)) < gap:  # NaN included
            for p, old in zip(parameters, before, strict=True):
                p.copy_(old)
            break
        here = corrected = there
    return corrected


def _largest_gap(g_M: Tensor, active_M: Tensor) -> float:
    return float(g_M[active_M].abs().max()) if bool(active_M.any()) else 0.0


def _smallest_step(jacobian_An: Tensor, gap_A: Tensor) -> Tensor:
    """Return the d of least norm with ``gap + J d = 0``; where there is none, of least gap."""
    gram_AA = jacobian_An @ jacobian_An.T
    gram_AA = gram_AA + torch.eye(len(gram_AA)).to(gram_AA) * (
        SETTINGS.ridge * float(gram_AA.diagonal().max()) + 1e-300
    )
    share_A: Tensor = torch.linalg.lstsq(gram_AA, gap_A[:, None]).solution[:, 0]
    return -jacobian_An.T @ share_A
