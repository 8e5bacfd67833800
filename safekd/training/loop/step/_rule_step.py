"""The step of a weighting rule that learns beside the student."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ....data import Batch
from ....weights import StudentStep
from ..._objective import PooledTeachers
from ..._training_problem import TrainingProblem


class RuleStep:
    """Adds up the gradients of a rule's parameters over the parts of a step, and moves them.

    Args:
        problem: What is trained.
    """

    def __init__(self, problem: TrainingProblem) -> None:
        self._problem = problem
        own, groups = {id(p) for p in problem.trained.parameters.values()}, problem.optimizer.param_groups
        self._group = next(i for i, group in enumerate(groups) if any(id(p) in own for p in group["params"]))

    def snapshot(self) -> Callable[[], None]:
        """Remember all that a step can change; return what puts it back."""
        learning = self._problem.learning
        return learning.snapshot() if learning.modules else lambda: None

    def add(self, pool: PooledTeachers, batch: Batch, logits_V: Tensor, share: float = 1.0) -> str | None:
        """Work out the gradients from what this part shows, the student still as it was; say what was not finite.

        Args:
            pool: The teachers, weighed.
            batch: The examples.
            logits_V: The student's, without gradient.
            share: Of the step's positions that the part holds; below 1, gradients are added to those of other parts.
        """
        problem = self._problem
        rate = float(problem.optimizer.param_groups[self._group]["lr"])
        step = StudentStep(pool.signals, pool.weights_K, problem.student, batch.inputs, rate)
        return problem.learning.gradients(
            step, lambda: batch.average_positions(problem.objective.loss(pool.log_q_V, logits_V)), share
        )

    def move(self) -> str | None:
        """Move the rule's parameters; say what is not finite then."""
        return self._problem.learning.step()
