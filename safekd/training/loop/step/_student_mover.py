"""The optimizer's part of a step: gradients scaled back, clipped, taken, or taken back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._training_problem import TrainingProblem
from ._step_or_rollback import clear_gradients, gradient_norm, step_or_rollback


@dataclass(frozen=True)
class LossScalingSettings:
    """When loss scaling gives up.

    Attributes:
        most_skipped: Steps in a row whose gradients overflow whatever the scale: each halves it, and after twenty of
            them a scale of 65,536 is below 1 (``tests/safekd/training/loop/test_mixed_precision.py``).
    """

    most_skipped: int = 20


SETTINGS = LossScalingSettings()


class StudentMover:
    """Goes back through a step's loss, and moves the student.

    Args:
        problem: What is trained.

    Attributes:
        clipped: Steps whose gradient was clipped, since somebody set this to 0.
        skipped: Steps that were left out because their gradients overflowed float16, likewise.
    """

    def __init__(self, problem: TrainingProblem) -> None:
        self._problem = problem
        self._parameters = list(problem.trained.parameters.values())
        self._factor = problem.trained.gradient_factor
        self.skipped_in_a_row = self.clipped = self.skipped = 0

    def clear(self) -> None:
        """Forget the gradients of the step before."""
        clear_gradients(self._problem.optimizer)

    def backward(self, total: Tensor) -> None:
        """Add a gradient to what is there.

        Args:
            total: A scalar with its graph.
        """
        scaler = self._problem.scaler
        if not total.requires_grad:
            return
        total = total * self._factor if self._factor != 1 else total
        (total if scaler is None else scaler.scale(total)).backward()  # type: ignore[no-untyped-call]

    def read_norm(self, total: Tensor) -> float | None:
        """Return the norm of the gradient that was added up, None where it or the value is not finite.

        Args:
            total: The value that was differentiated, a scalar.
        """
        if self._problem.scaler is not None:
            self._problem.scaler.unscale_(self._problem.optimizer)
        norm = gradient_norm(self._parameters, total.detach())
        return norm if math.isfinite(norm) else None

    def skips(self, total: Tensor) -> bool:
        """Say whether a step without a finite gradient is left out for float16's sake, and say so to the scaler.

        Args:
            total: The value that was differentiated.
        """
        scaler = self._problem.scaler
        if scaler is None or not bool(torch.isfinite(total.detach())) or self.skipped_in_a_row >= SETTINGS.most_skipped:
            return False
        self.skipped_in_a_row += 1
        self.skipped += 1
        scaler.update()
        self._problem.optimizer.zero_grad()
        return True

    def move(self, norm: float) -> str | None:
        """Take the step; say what would not have been finite, and leave everything as it was then.

        Args:
            norm: Of the gradient, finite.
        """
        problem, self.skipped_in_a_row = self._problem, 0
        if problem.clip_norm is not None and norm > problem.clip_norm:
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            torch._foreach_mul_(gradients, problem.clip_norm / norm)
            norm, self.clipped = problem.clip_norm, self.clipped + 1
        source = step_or_rollback(problem.optimizer, problem.trained.moved, norm, problem.ranks)
        if problem.scaler is not None:
            problem.scaler.update()
        if source is None and problem.scheduler is not None:
            problem.scheduler.step()
        return source
