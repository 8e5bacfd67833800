"""One step of the last correction: onto the active constraints, then along them to where the loss is least.

With gaps g, their Jacobian J, the gradient c of the loss and its Hessian H,

    onto     d = -J_A' (J_A J_A')^-1 g_A,   the smallest d with g_A + J_A d = 0
    along    minimize (c + H d)' z + 1/2 z' H z   subject to   J_A z = 0,  |z| <= |d|

The second one is solved by a few steps of conjugate gradients in the null space of J_A, cut off at the radius |d|: a
correction moves no further along its constraints than onto them, so what was linearized holds for both.  A row outside
of A that the step would violate joins A.  H is asked for products alone, each a difference of two gradients on a
sample of the training data, as long as there are passes for it.
Source: the composite step of Byrd and Omojokun with Steihaug's conjugate gradients (Nocedal and Wright, 18.5 and 7.2).
Axes: M constraints, A of them active, n parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._parameter_vectors import split_vector


@dataclass(frozen=True)
class CorrectionStepSettings:
    """Numbers of a step; ``tests/safekd/training/checkpoints/test_correction_step.py`` notices all of them.

    Attributes:
        conjugate: Steps of conjugate gradients at most; three do nearly as well in the cells of
            ``benchmarks.primal_dual``.
        converged: Share of its first norm below which a residual is none.
        perturbation: How far, in norms of the parameters, two gradients of a difference lie apart at least; in float32
            a nearer one is mostly rounding.
        ridge: Share of the largest diagonal entry of J J' that is added to the diagonal, so that constraints whose
            gradients agree share their correction.
    """

    conjugate: int = 5
    converged: float = 1e-2
    perturbation: float = 1e-3
    ridge: float = 1e-10


SETTINGS = CorrectionStepSettings()


@dataclass(frozen=True)
class ConstraintGaps:
    """Where a student stands: the gap of each constraint, its gradient, and that of the loss.

    Attributes:
        jacobian_Mn: Gradients of g, (M, n).
        g_M: Threshold less what is measured, > 0 where it is missed, (M,).
        gradient_n: Of the loss, (n,); None where corrections are not to look at it.
        surrogate_g_M: The same as g of what the gradients are of, (M,); None where that is what is measured.
        loss: The loss itself, nats.
    """

    jacobian_Mn: Tensor
    g_M: Tensor
    gradient_n: Tensor | None = None
    surrogate_g_M: Tensor | None = None
    loss: float = math.nan


class LossCurvature:
    """Products with the Hessian of the loss, by differences of gradients, as long as there are passes for them.

    Args:
        parameters: Moved for a moment, and put back to the last bit.
        read_gradient: Gradient of the loss where the parameters stand, (n,); on a sample of the data.
        passes: How often it may be asked.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], read_gradient: Callable[[], Tensor], passes: int) -> None:
        self._parameters, self._read_gradient, self.passes = parameters, read_gradient, passes
        self._here_n = torch.zeros(0)

    def begin(self, length: Tensor) -> None:
        """Read the gradient where the parameters stand.

        Args:
            length: Of the step that is asked about: differences are taken at that distance.
        """
        self._here_n = self._ask()
        norm = torch.linalg.vector_norm(torch.cat([p.detach().reshape(-1) for p in self._parameters]).double())
        self._length = torch.maximum(length, SETTINGS.perturbation * norm.to(length))

    def multiply(self, v_n: Tensor) -> Tensor:
        """Return H v.

        Args:
            v_n: Not 0, (n,).
        """
        share = self._length / torch.linalg.vector_norm(v_n)
        before = move_parameters(self._parameters, share * v_n)
        there_n = self._ask()
        restore_parameters(self._parameters, before)
        bent_n: Tensor = (there_n - self._here_n) / share
        return bent_n

    def _ask(self) -> Tensor:
        self.passes -= 1
        return self._read_gradient()


@torch.no_grad()
def move_parameters(parameters: Sequence[nn.Parameter], step_n: Tensor) -> list[Tensor]:
    """Add a step to parameters; return copies of what they were.

    Args:
        parameters: Changed in place.
        step_n: (n,).
    """
    before = [p.detach().clone() for p in parameters]
    for p, part in zip(parameters, split_vector(step_n, parameters), strict=True):
        p.add_(part)
    return before


@torch.no_grad()
def restore_parameters(parameters: Sequence[nn.Parameter], before: Sequence[Tensor]) -> None:
    """Put parameters back.

    Args:
        parameters: Changed in place.
        before: What ``move_parameters`` returned.
    """
    for p, old in zip(parameters, before, strict=True):
        p.copy_(old)


def find_steps(
    here: ConstraintGaps, target_M: Tensor, active_M: Tensor, tolerance: float, curvature: LossCurvature | None
) -> Iterator[Tensor]:
    """Yield steps that are worth a try, the best one first, (n,) each.

    Args:
        here: Where the student stands.
        target_M: By how much each constraint is to fall, (M,).
        active_M: Constraints that are to fall by just that, (M,).
        tolerance: Gaps up to this are none.
        curvature: Of the loss; None where steps are not to look at it.
    """
    onto_n, active_M = go_onto(here, target_M, active_M, tolerance)
    if curvature is not None and here.gradient_n is not None:
        along_n = go_along(here, active_M, onto_n, torch.linalg.vector_norm(onto_n), curvature)
        missed_M = _find_missed(here, onto_n + along_n, active_M, tolerance)
        if bool(missed_M.any()):
            onto_n, active_M = go_onto(here, target_M, active_M | missed_M, tolerance)
            along_n = go_along(here, active_M, onto_n, torch.linalg.vector_norm(onto_n), curvature)
        if bool(along_n.any()):
            yield onto_n + along_n
    yield onto_n


def go_onto(here: ConstraintGaps, target_M: Tensor, active_M: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return the smallest step, and the active constraints together with those that it would have violated.

    Args:
        here: Where the student stands.
        target_M: By how much each constraint is to fall, (M,).
        active_M: Constraints that are to fall by just that, (M,).
        tolerance: Gaps up to this are none.
    """
    while True:
        jacobian_An = here.jacobian_Mn[active_M]
        step_n = -jacobian_An.T @ _solve_gram(jacobian_An, target_M[active_M])
        missed_M = _find_missed(here, step_n, active_M, tolerance)
        if not bool(missed_M.any()):
            return step_n, active_M
        active_M = active_M | missed_M


def _find_missed(here: ConstraintGaps, step_n: Tensor, active_M: Tensor, tolerance: float) -> Tensor:
    return (here.g_M + here.jacobian_Mn @ step_n > tolerance) & ~active_M


def go_along(
    here: ConstraintGaps, active_M: Tensor, onto_n: Tensor, radius: Tensor, curvature: LossCurvature
) -> Tensor:
    """Return the step along the active constraints, (n,), 0 where there are no passes left for it.

    Args:
        here: Where the student stands, with the gradient of the loss.
        active_M: Constraints that are to stay as they are, (M,).
        onto_n: The step before it, (n,).
        radius: How long this one is at most.
        curvature: Of the loss.
    """
    along_n = torch.zeros_like(onto_n)
    if here.gradient_n is None or curvature.passes < 3 or not radius > 0:
        return along_n
    jacobian_An = here.jacobian_Mn[active_M]

    def flatten(v_n: Tensor) -> Tensor:
        return v_n - jacobian_An.T @ _solve_gram(jacobian_An, jacobian_An @ v_n)

    curvature.begin(radius)
    moved_gradient_n = here.gradient_n + curvature.multiply(onto_n) if bool(onto_n.any()) else here.gradient_n
    residual_n = flatten(moved_gradient_n)
    direction_n, square = -residual_n, residual_n @ residual_n
    least = SETTINGS.converged**2 * square
    for _ in range(min(SETTINGS.conjugate, curvature.passes)):
        if not square > least:  # NaN included
            break
        bent_n = curvature.multiply(direction_n)
        bend = direction_n @ bent_n
        longest = _find_longest_step(along_n, direction_n, radius)
        length = square / bend if bend > 0 else longest
        along_n = along_n + torch.minimum(length, longest) * direction_n
        if not length < longest:
            break
        residual_n = flatten(residual_n + length * bent_n)
        before, square = square, residual_n @ residual_n
        direction_n = square / before * direction_n - residual_n
    return along_n


def _find_longest_step(at_n: Tensor, direction_n: Tensor, radius: Tensor) -> Tensor:
    """Return the length a >= 0 at which ``|at + a direction|`` is the radius."""
    a, b, c = direction_n @ direction_n, 2 * (at_n @ direction_n), at_n @ at_n - radius**2
    return (-b + (b**2 - 4 * a * c).clamp_min(0).sqrt()) / (2 * a)


def _solve_gram(jacobian_An: Tensor, gap_A: Tensor) -> Tensor:
    """Return ``(J J')^-1 gap``; where there is none, what leaves the least gap."""
    gram_AA = jacobian_An @ jacobian_An.T
    gram_AA = gram_AA + torch.eye(len(gram_AA)).to(gram_AA) * (
        SETTINGS.ridge * float(gram_AA.diagonal().max()) + 1e-300
    )
    share_A: Tensor = torch.linalg.lstsq(gram_AA, gap_A[:, None]).solution[:, 0]
    return share_A
