"""First and second derivatives in full, many rows in one pass where that is faster and torch can batch the functions.

Axes: n variables, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_FEW = 2  # rows: one by one is as fast, and asks nothing of the functions
_WIDE = 256  # variables: beyond, a batched product of matrix and vector (16 times a plain one) costs more than it saves
_SHARE = 128  # rows of one pass: a network's activations are kept once for each


def weighed_gradient(parts: Sequence[Tensor], weights: Sequence[Tensor], x: Tensor, *, again: bool = False) -> Tensor:
    """Return the gradient of ``sum(weight . part)`` by one pass; ``again``: it can itself be differentiated."""
    used = [(p, w.to(p)) for p, w in zip(parts, weights, strict=True) if p.requires_grad and p.numel()]
    if not used:
        return torch.zeros_like(x)
    outputs, given = [p for p, _ in used], [w for _, w in used]
    (found,) = torch.autograd.grad(
        outputs, [x], given, create_graph=again, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return found


def jacobian(rows_R: Tensor, x: Tensor) -> Tensor:
    """Return the gradients of rows, (R, n), float64; zeros where a row does not depend on x."""
    if not rows_R.requires_grad or not rows_R.numel():
        return torch.zeros(rows_R.numel(), x.numel(), dtype=torch.float64, device=x.device)
    eye_RR = torch.eye(rows_R.numel(), dtype=rows_R.dtype, device=rows_R.device)
    if len(eye_RR) > _FEW and x.numel() <= _WIDE:
        try:
            parts = [eye_RR[first : first + _SHARE] for first in range(0, len(eye_RR), _SHARE)]
            found = torch.cat([_pulled(rows_R, x, part, batched=True) for part in parts])
            return found.reshape(len(eye_RR), -1).double()
        except RuntimeError:  # vmap does not know an operation of theirs
            pass
    return torch.stack([_pulled(rows_R, x, row, batched=False) for row in eye_RR]).reshape(len(eye_RR), -1).double()


def _pulled(rows_R: Tensor, x: Tensor, weights: Tensor, *, batched: bool) -> Tensor:
    (found,) = torch.autograd.grad(
        [rows_R],
        [x],
        [weights],
        retain_graph=True,
        allow_unused=True,
        materialize_grads=not batched,
        is_grads_batched=batched,
    )
    # where nothing arrives, there is nothing to batch
    return x.new_zeros(len(weights), *x.shape) if found is None else found
