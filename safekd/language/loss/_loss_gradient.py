"""A loss whose gradients are known already, as autograd sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...errors import InvalidInput
from ._loss_pass import LossGradients


class _KnownGradients(torch.autograd.Function):
    """Hands gradients over that were worked out beside the value; they are given away, not copied."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor | None], *inputs: Tensor | None) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_loss: Tensor) -> Any:
        if ctx.gradients is None:
            raise InvalidInput(
                "The gradients of this loss were handed over already: backward() runs once. Call distillation_loss "
                "again."
            )
        gradients, ctx.gradients = ctx.gradients, None
        found: list[Tensor | None] = []
        while gradients:  # no reference stays, or autograd would copy what it could keep
            gradient = gradients.pop(0)
            found.append(None if gradient is None else gradient.mul_(of_loss.to(gradient)))
            del gradient
        return None, None, *found


def attach_gradients(
    value: Tensor,
    trained: Sequence[Tensor | None],
    weights_PK: Tensor | None,
    learned: Sequence[Tensor],
    gradients: LossGradients,
) -> Tensor:
    """Return a loss whose backward pass hands over gradients that are known.

    Args:
        value: The loss.
        trained: Student, weight and bias of the head; None for what there is not.
        weights_PK: Weights that were given, with their graph; or None.
        learned: Parameters of a weighting rule.
        gradients: Of all these.
    """
    inputs = [*trained, weights_PK, *learned]
    known = [gradients.student_PH, gradients.weight_VH, gradients.bias_V, gradients.given_PK, *gradients.learned]
    gradients.student_PH = gradients.weight_VH = gradients.bias_V = gradients.given_PK = None
    gradients.learned = []
    if all(x is None for x in known):
        return value
    narrow = [
        g if g is None or x is None or g.dtype == x.dtype else g.to(x.dtype) for g, x in zip(known, inputs, strict=True)
    ]
    del known
    loss: Tensor = _KnownGradients.apply(value, narrow, *inputs)  # type: ignore[no-untyped-call]
    return loss
