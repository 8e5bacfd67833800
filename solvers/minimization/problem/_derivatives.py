"""First and second derivatives in full, many rows in one pass where that is faster and torch can batch the functions.

Axes: n variables, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DerivativeSettings:
    """When many rows are differentiated in one batched pass; ``benchmarks.primal_dual`` notices the times.

    Attributes:
        rows_one_by_one: Rows up to which one by one is as fast, and asks nothing of the functions.
        variables_batched: Variables beyond which a batched product of matrix and vector, 16 times a plain one, costs
            more than it saves.
        least_size: Size of a variable at least, for differences of gradients.
        rows_a_pass: Rows of one pass: a network's activations are kept once for each.
    """

    rows_one_by_one: int = 2
    variables_batched: int = 256
    least_size: float = 1e-4
    rows_a_pass: int = 128


SETTINGS = DerivativeSettings()


def weighted_gradient(
    parts: Sequence[Tensor], weights: Sequence[Tensor], x: Tensor, *, create_graph: bool = False
) -> Tensor:
    """Return the gradient of ``sum(weight . part)`` by one pass; ``create_graph``: it can be differentiated again."""
    used = [(p, w.to(p)) for p, w in zip(parts, weights, strict=True) if p.requires_grad and p.numel()]
    if not used:
        return torch.zeros_like(x)
    outputs, given = [p for p, _ in used], [w for _, w in used]
    (gradient,) = torch.autograd.grad(
        outputs, [x], given, create_graph=create_graph, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return gradient


def compute_jacobian(rows_R: Tensor, x: Tensor) -> Tensor:
    """Return the gradients of rows, (R, n), float64; zeros where a row does not depend on x."""
    if not rows_R.requires_grad or not rows_R.numel():
        return torch.zeros(rows_R.numel(), x.numel(), dtype=torch.float64, device=x.device)
    eye_RR = torch.eye(rows_R.numel(), dtype=rows_R.dtype, device=rows_R.device)
    if len(eye_RR) > SETTINGS.rows_one_by_one and x.numel() <= SETTINGS.variables_batched:
        try:
            parts = torch.split(eye_RR, SETTINGS.rows_a_pass)
            jacobian = torch.cat([_backpropagate(rows_R, x, part, batched=True) for part in parts])
            return jacobian.reshape(len(eye_RR), -1).double()
        except RuntimeError:  # vmap does not know an operation of theirs
            pass
    return (
        torch.stack([_backpropagate(rows_R, x, row, batched=False) for row in eye_RR]).reshape(len(eye_RR), -1).double()
    )


def _backpropagate(rows_R: Tensor, x: Tensor, weights: Tensor, *, batched: bool) -> Tensor:
    (gradient,) = torch.autograd.grad(
        [rows_R],
        [x],
        [weights],
        retain_graph=True,
        allow_unused=True,
        materialize_grads=not batched,
        is_grads_batched=batched,
    )
    # where nothing arrives, there is nothing to batch
    return x.new_zeros(len(weights), *x.shape) if gradient is None else gradient


def difference_gradients(
    gradient: Callable[[Floats], Floats], x_n: Floats, lower_n: Floats, upper_n: Floats, step: float, asymmetry: float
) -> Floats:
    """Return second derivatives as differences of gradients, (n, n), symmetric; RuntimeError where they are not.

    step: in units of each variable's size; a small one may be near 0 or of that size, so the root stands for it.
    asymmetry: share by which entries may differ.
    """
    here_n, hessian_nn = gradient(x_n), np.zeros((len(x_n), len(x_n)))
    size_n = np.where(x_n == 0, 1.0, np.maximum(np.abs(x_n), np.sqrt(np.abs(x_n)).clip(SETTINGS.least_size, 1.0)))
    for i, length in enumerate(step * size_n):
        if lower_n[i] == upper_n[i]:
            continue
        near_n = x_n.copy()
        near_n[i] += length if x_n[i] + length <= upper_n[i] else -length
        hessian_nn[i] = (gradient(near_n) - here_n) / (near_n[i] - x_n[i])
    movable_n = lower_n < upper_n
    inner = np.ix_(movable_n, movable_n)
    sized_nn = (hessian_nn * np.outer(size_n, size_n))[inner]
    if not np.isfinite(sized_nn).all() or np.abs(sized_nn - sized_nn.T).max(initial=0.0) > asymmetry * np.abs(
        sized_nn
    ).max(initial=0.0):
        raise RuntimeError("differences of gradients are not those of a smooth function")
    hessian_nn[inner] = (hessian_nn[inner] + hessian_nn[inner].T) / 2
    return hessian_nn
