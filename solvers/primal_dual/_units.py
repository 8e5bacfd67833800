"""What one unit of penalty is for each row, and how gently it begins, read off the gradients of one step.

A row g weighs in through rho g: along its own gradient that adds the curvature ``rho |grad g|^2`` to the objective.
Its unit is the rho at which this is as much as the objective itself has there,

    unit  =  max(|grad f . d|, |d . H d|) / |grad g|^2,      d = grad g / |grad g|,  H the Hessian of f

The whole slope |grad f| stands in where the objective does next to nothing along d.  A start far from the row's
boundary, where its gradient is still small, makes that unit far too stiff for later; there one begins at the rho at
which the first pulls of all C rows are together at most as strong as the objective's,

    first  =  max(|grad f| / C, SHARE |d . H d| |g| / |grad g|) / (|grad g| |g|),      never above GAIN units

A factor on f or g multiplies both just so that the iterates stay what they were.  Axes: C rows, n parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Parts = Sequence[Tensor | None]  # one a leaf; gradients of large models are never joined into one row

_ONE_BY_ONE = 32  # beyond so many rows they share a unit, read off a sum with random signs
_LEAST = 1e-12
_NOTHING = 0.03  # of the whole slope
_SHARE = 0.03  # of the slope that a linear model expects at the boundary: where the start is f's minimum, nothing pulls


@dataclass(frozen=True)
class Units:
    """unit, first: a unit of penalty, and the rho to begin with, float64 (C,); NaN where nothing shows them."""

    unit: Tensor
    first: Tensor


def units(objective: Tensor, rows_C: Tensor, gain: float, stands_for: float = 1.0) -> Units:
    """Return the unit of each row, and the rho to begin with: at most ``gain`` units.

    stands_for: how many rows of the problem each of these stands for.  The graph stays as it is, for the backward that
    follows.
    """
    leaves = _leaves([objective, rows_C])
    if not leaves or not rows_C.requires_grad:
        unknown_C = torch.full(rows_C.shape, torch.nan, dtype=torch.float64, device=rows_C.device)
        return Units(unknown_C, unknown_C)
    few = rows_C.numel() <= _ONE_BY_ONE
    slopes = [_gradient(row, leaves) for row in (rows_C if few else [_mixed(rows_C)])]
    pull = _gradient(objective, leaves)
    steepness = _norm(pull, rows_C)
    size_C = torch.stack([_norm(slope, rows_C) for slope in slopes])
    along_C = torch.stack([_along(pull, slope, size) for slope, size in zip(slopes, size_C, strict=True)])
    curved_C = torch.stack(
        [_curvature(objective, leaves, slope, size) for slope, size in zip(slopes, size_C, strict=True)]
    )
    tallest_C = torch.maximum(along_C, curved_C)
    tallest_C = torch.where(tallest_C > _NOTHING * steepness, tallest_C, steepness).expand(rows_C.shape)
    size_C, curved_C = size_C.expand(rows_C.shape), curved_C.expand(rows_C.shape)
    usable_C = (size_C > _LEAST) & torch.isfinite(size_C) & torch.isfinite(tallest_C) & (tallest_C > 0)
    away_C = rows_C.detach().double().abs()
    if not few:  # what one row has of a sum with random signs, and how far off rows are
        size_C, away_C = size_C / len(rows_C) ** 0.5, (away_C**2).mean().sqrt().expand(rows_C.shape)
    share = steepness / (stands_for * usable_C.sum()).clamp_min(1)
    pull_C = torch.maximum(share, _SHARE * curved_C * away_C / size_C) / (size_C * away_C)
    unit_C = torch.where(usable_C, tallest_C / size_C**2, torch.nan)
    return Units(unit_C, torch.fmin(pull_C.where(usable_C, torch.nan), gain * unit_C))


def _gradient(value: Tensor, leaves: Sequence[Tensor]) -> Parts:
    if not value.requires_grad:
        return [None] * len(leaves)
    return torch.autograd.grad(value, list(leaves), retain_graph=True, allow_unused=True)


def _mixed(rows_C: Tensor) -> Tensor:
    """Return a sum whose squared gradient is, in expectation, the sum of the rows' squared gradients."""
    sign_C = torch.randint(0, 2, rows_C.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return (rows_C * sign_C.to(rows_C)).sum()


def _norm(parts: Parts, like: Tensor) -> Tensor:
    squares = [torch.linalg.vector_norm(part, dtype=torch.float64) ** 2 for part in parts if part is not None]
    none = torch.zeros((), dtype=torch.float64, device=like.device)
    return torch.stack([square.to(none) for square in squares]).sum().sqrt() if squares else none


def _along(parts: Parts, slope: Parts, size: Tensor) -> Tensor:
    """Return how steep the objective is along the direction of a slope."""
    shared = _dot(parts, slope)
    return torch.zeros_like(size) if shared is None else shared.to(size).abs() / size.clamp_min(_LEAST)


def _curvature(objective: Tensor, leaves: Sequence[Tensor], slope: Parts, size: Tensor) -> Tensor:
    """Return ``|d . H d|`` along the direction of a slope, 0 where the objective cannot be differentiated twice."""
    none = torch.zeros_like(size)
    if not objective.requires_grad or not bool(size > _LEAST):
        return none
    try:
        first = torch.autograd.grad(objective, list(leaves), create_graph=True, allow_unused=True)
        along = _dot(first, slope)
        if along is None or not along.requires_grad:
            return none
        turned = _dot(_gradient(along, leaves), slope)
    except RuntimeError:  # a kernel without a second derivative
        return none
    found = none if turned is None else turned.detach().to(size).abs() / size**2
    return found if bool(torch.isfinite(found)) else none


def _dot(one: Parts, other: Parts) -> Tensor | None:
    terms = [
        (a * b).sum(dtype=torch.float64) for a, b in zip(one, other, strict=True) if a is not None and b is not None
    ]
    return torch.stack(terms).sum() if terms else None


def _leaves(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors that gradients of these outputs would be left in, in the order in which they are met."""
    found: dict[int, Tensor] = {id(x): x for x in outputs if x.is_leaf and x.requires_grad}
    todo = [x.grad_fn for x in outputs if x.grad_fn is not None]
    seen = set(todo)
    while todo:
        node = todo.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.setdefault(id(leaf), leaf)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                todo.append(following)
    return list(found.values())
