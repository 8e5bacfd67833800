"""Which constraint, parameter or rule made a step unusable.  Read only once something is not finite.

Axes: ... positions, V classes, M constraints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..safety import Constraint
from ..weights import Learner


def of_loss(student: nn.Module, logits_V: Tensor) -> str:
    """Say where a distillation loss that is not finite comes from, first cause first; teachers are checked earlier."""
    for name, value in student.named_parameters():
        if not _finite(value):
            return f"The student's parameter '{name}' is not finite"
    if not _finite(logits_V):
        return "The student's output is not finite"
    return "The distillation loss is not finite"


def of_values(constraints: Sequence[Constraint], *values_M: Tensor) -> str | None:
    """Name the first constraint with a value that is not finite, or return None."""
    for m, rule in enumerate(constraints):
        if not all(_finite(value[m]) for value in values_M):
            return f"The value of constraint '{rule.name}' is not finite"
    return None


def of_gradient(student: nn.Module) -> str:
    """Name the first parameter whose gradient is not finite."""
    for name, value in student.named_parameters():
        if value.grad is not None and not _finite(value.grad):
            return f"The gradient of the student's parameter '{name}' is not finite"
    return "The gradient's norm is too large for its number type"


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())


def of_rule(learners: Sequence[Learner], losses: Mapping[str, Tensor]) -> str | None:
    """Name the first rule with a loss, by place, or a gradient that is not finite, or return None."""
    for learner in learners:
        if learner.place in losses and not _finite(losses[learner.place].detach()):
            return f"The loss of weighting rule {learner.name} is not finite"
        for name, value in learner.parameters.items():
            if value.grad is not None and not _finite(value.grad):
                return f"The gradient of '{name}' of weighting rule {learner.name} is not finite"
    return None


def of_rule_step(learners: Sequence[Learner]) -> str | None:
    """Name the first parameter of a rule that is not finite, or return None."""
    for learner in learners:
        for name, value in learner.parameters.items():
            if not _finite(value.detach()):
                return f"Parameter '{name}' of weighting rule {learner.name} is not finite after its step"
    return None
