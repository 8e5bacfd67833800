"""Gradients held tensor by tensor, as the parameters are: those of a large model are never joined into one row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Parts = Sequence[Tensor | None]  # one a parameter; None where nothing depends on it


def differentiate(value: Tensor, leaves: Sequence[Tensor]) -> Parts:
    """Return the gradient of a scalar by some leaves.  The graph stays, for the backward pass that follows."""
    if not value.requires_grad:
        return [None] * len(leaves)
    return torch.autograd.grad(value, list(leaves), retain_graph=True, allow_unused=True)


def differentiate_twice(value: Tensor, leaves: Sequence[Tensor]) -> Parts:
    """Return the gradient of a scalar with a graph of its own; all None where there is no second derivative."""
    if not value.requires_grad:
        return [None] * len(leaves)
    try:
        return torch.autograd.grad(value, list(leaves), create_graph=True, allow_unused=True)
    except RuntimeError:  # a kernel without a second derivative
        return [None] * len(leaves)


def read_curvature(first: Parts, leaves: Sequence[Tensor], along: Parts) -> Tensor:
    """Return ``v . H v`` in float64, with its sign; 0 where a second derivative is missing.

    Args:
        first: What ``differentiate_twice`` gave.
        leaves: By what it was differentiated.
        along: The direction v, of any length.
    """
    try:
        return multiply_parts(differentiate(multiply_parts(first, along), leaves), along).detach()
    except RuntimeError:  # a kernel without a second derivative
        return torch.zeros((), dtype=torch.float64)


def multiply_parts(one: Parts, other: Parts) -> Tensor:
    """Return the scalar product of two gradients in float64, where they are, or 0 on the processor."""
    terms = [
        (a * b).sum(dtype=torch.float64) for a, b in zip(one, other, strict=True) if a is not None and b is not None
    ]
    return torch.stack(terms).sum() if terms else torch.zeros((), dtype=torch.float64)


def measure_parts(parts: Parts) -> Tensor:
    """Return the norm of a gradient in float64, where it is, or 0 on the processor."""
    squares = [torch.linalg.vector_norm(part, dtype=torch.float64) ** 2 for part in parts if part is not None]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), dtype=torch.float64)


def draw_signs(rows_C: Tensor) -> Tensor:
    """Return a random sign for each row, of their type, the same in every call.

    The squared gradient of a sum that is mixed by them is, in expectation, the sum of the rows' squared gradients.
    """
    sign_C = torch.randint(0, 2, rows_C.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return sign_C.to(rows_C)


def find_leaves(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors that gradients of these outputs would be left in, in the order in which they are met."""
    leaves: dict[int, Tensor] = {id(x): x for x in outputs if x.is_leaf and x.requires_grad}
    todo = [x.grad_fn for x in outputs if x.grad_fn is not None]
    seen = set(todo)
    while todo:
        node = todo.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaves.setdefault(id(leaf), leaf)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                todo.append(following)
    return list(leaves.values())
