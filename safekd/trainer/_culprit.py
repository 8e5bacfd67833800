"""Which constraint or parameter made a step unusable.  Read only once something is not finite.

Axes: ... positions, V classes, M constraints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..safety import SafetyConstraint


def of_loss(student: nn.Module, logits_V: Tensor) -> str:
    """Say where a distillation loss that is not finite comes from, first cause first; teachers are checked earlier."""
    for name, value in student.named_parameters():
        if not _finite(value):
            return f"The student's parameter '{name}' is not finite"
    if not _finite(logits_V):
        return "The student's output is not finite"
    return "The distillation loss is not finite"


def of_values(constraints: Sequence[SafetyConstraint], *values_M: Tensor) -> str | None:
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
