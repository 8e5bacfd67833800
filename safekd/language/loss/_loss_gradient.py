"""A loss whose gradients are known already, as autograd sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._loss_pass import LossGradients


class _KnownGradients(torch.autograd.Function):
    """Hands over gradients that were worked out beside the value, without a copy.

    They are saved for the backward pass, so autograd drops its own reference first, and a parameter takes what it is
    given; where the graph is retained it does not, and copies.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *inputs: Tensor | None) -> Tensor:
        ctx.save_for_backward(*gradients)
        ctx.applied = None  # by what they were multiplied in place, once they were handed over
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_loss: Tensor) -> Any:
        factor, gradients = float(of_loss), ctx.saved_tensors
        if ctx.applied is None and factor != 0:
            ctx.applied = factor
            if factor != 1:
                for gradient in gradients:
                    if gradient is not None:
                        gradient.data.mul_(factor)  # what is saved counts as unchanged
        elif factor != ctx.applied:  # handed over before, with another factor
            factor /= ctx.applied or 1.0
            gradients = tuple(None if gradient is None else gradient * factor for gradient in gradients)
        return None, None, *gradients


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
    # float16 cannot hold what a gradient scaler has not multiplied yet: autograd narrows that when it is handed over
    narrow = [
        g if g is None or x is None or x.dtype == torch.float16 else g.to(x.dtype)
        for g, x in zip(known, inputs, strict=True)
    ]
    del known
    loss: Tensor = _KnownGradients.apply(value, narrow, *inputs)  # type: ignore[no-untyped-call]
    return loss
