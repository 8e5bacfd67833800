"""What the weight of a constraint is measured in: the multiplier at which its gradient is as large as the objective's.

A row g with multiplier lambda adds ``lambda grad g`` to the objective's gradient.  Its multiplier scale is the lambda
at which the two are equally large,

    scale  =  |grad f| / (C |grad g|)

At a solution with one active row it is the multiplier itself, since ``grad f = -lambda grad g`` there.  C rows share
the objective's gradient.  A start at the minimum of f, whose gradient vanishes, has no such scale: there it is what the
objective's curvature asks for on the way to the boundary of g,

    |d . H d| |g| / |grad g|^2,      d = grad g / |grad g|,  H the Hessian of f

A gain rho adds the curvature ``rho |grad g|^2`` along d to the objective.  Where that is several times as much as the
objective has there itself, a step that suits the objective is too long for it, and the row oscillates:

    largest gain  =  3 max(|grad f . d|, |d . H d|) / |grad g|^2

Factors on f or g change both as they change multipliers and gains.  Axes: C rows, n parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Parts = Sequence[Tensor | None]  # one a leaf; gradients of large models are never joined into one row


@dataclass(frozen=True)
class ScaleSettings:
    """How scales are read; ``tests/solvers/primal_dual/test_gains.py`` notices each of them.

    Attributes:
        one_by_one: Rows up to which each has a backward pass of its own; beyond, they share a scale, read off a sum
            with random signs.
        curvature_factor: The largest gain, in units of the objective's own curvature.
        vanishing: Share of what curvature asks for below which the objective's gradient counts as zero.
    """

    one_by_one: int = 32
    curvature_factor: float = 3.0
    vanishing: float = 1e-3


SETTINGS = ScaleSettings()

_LEAST_NORM = 1e-12  # of a gradient: below, it has no direction


@dataclass(frozen=True)
class MultiplierScales:
    """What gradients show of each row, float64, shape (C,); NaN where they show nothing.

    Attributes:
        multiplier: Multiplier at which the row's gradient is as large as its share of the objective's.
        largest_gain: Gain beyond which the row's curvature outgrows the objective's.
    """

    multiplier: Tensor
    largest_gain: Tensor


def read_scales(
    objective: Tensor, rows_C: Tensor, *, rows_each: float = 1.0, largest_distance: float = math.inf
) -> MultiplierScales:
    """Return the scales of each row.  The graph stays as it is, for the backward pass that follows.

    A row whose gradient would have to carry the variables further than ``largest_distance`` to make up the violation
    tells nothing of what it costs to meet it: its gradient has to grow on the way, and a scale read off a vanishing one
    would be as good as infinite.  So the least gradient that could make it up stands in the denominator, and the scale
    falls by the share of it that is there: the multiplier waits until the row has a gradient.

    Args:
        objective: Scalar f with its graph.
        rows_C: Values g and h with their graphs, shape (C,).
        rows_each: How many rows of the problem each of these stands for, where a batch speaks of some only.
        largest_distance: How far variables may have to move, in their own units.
    """
    leaves = _find_leaves([objective, rows_C])
    if not leaves or not rows_C.requires_grad:
        unknown_C = torch.full(rows_C.shape, torch.nan, dtype=torch.float64, device=rows_C.device)
        return MultiplierScales(unknown_C, unknown_C)
    few = rows_C.numel() <= SETTINGS.one_by_one
    gradients = [_gradient_parts(row, leaves) for row in (rows_C if few else [_mix_rows(rows_C)])]
    f_gradient = _gradient_parts(objective, leaves)
    f_norm = _norm(f_gradient, rows_C)
    norm_C = torch.stack([_norm(gradient, rows_C) for gradient in gradients])
    pairs = list(zip(gradients, norm_C, strict=True))
    curvature_C = torch.stack([_curvature_along(objective, leaves, gradient, norm) for gradient, norm in pairs])
    derivative_C = torch.stack([_derivative_along(f_gradient, gradient, norm) for gradient, norm in pairs])
    distance_C = rows_C.detach().double().abs()
    if not few:  # what one row has of a sum with random signs, and how far off rows are
        norm_C, distance_C = norm_C / len(rows_C) ** 0.5, (distance_C**2).mean().sqrt()
    norm_C, curvature_C, derivative_C = (
        value_C.expand(rows_C.shape) for value_C in (norm_C, curvature_C, derivative_C)
    )
    usable_C = (norm_C > _LEAST_NORM) & torch.isfinite(norm_C)
    share = f_norm / (rows_each * usable_C.sum()).clamp_min(1)
    on_the_way_C = curvature_C * distance_C / norm_C
    scale_C = torch.where(share > SETTINGS.vanishing * on_the_way_C, share, on_the_way_C) / norm_C
    largest_gain_C = SETTINGS.curvature_factor * torch.maximum(derivative_C, curvature_C) / norm_C**2
    there_C = (norm_C * largest_distance / distance_C).clamp_max(1.0) if math.isfinite(largest_distance) else 1.0
    scale_C = scale_C * there_C**2
    return MultiplierScales(_mask_unknown(scale_C, usable_C), _mask_unknown(largest_gain_C, usable_C))


def _mask_unknown(value_C: Tensor, usable_C: Tensor) -> Tensor:
    return torch.where(usable_C & torch.isfinite(value_C) & (value_C > 0), value_C, torch.nan)


def _gradient_parts(value: Tensor, leaves: Sequence[Tensor]) -> Parts:
    if not value.requires_grad:
        return [None] * len(leaves)
    return torch.autograd.grad(value, list(leaves), retain_graph=True, allow_unused=True)


def _mix_rows(rows_C: Tensor) -> Tensor:
    """Return a sum whose squared gradient is, in expectation, the sum of the rows' squared gradients."""
    sign_C = torch.randint(0, 2, rows_C.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return (rows_C * sign_C.to(rows_C)).sum()


def _norm(parts: Parts, like: Tensor) -> Tensor:
    squares = [torch.linalg.vector_norm(part, dtype=torch.float64) ** 2 for part in parts if part is not None]
    none = torch.zeros((), dtype=torch.float64, device=like.device)
    return torch.stack([square.to(none) for square in squares]).sum().sqrt() if squares else none


def _derivative_along(f_gradient: Parts, gradient: Parts, norm: Tensor) -> Tensor:
    """Return the size of the objective's directional derivative along the direction of a gradient."""
    shared = _dot(f_gradient, gradient)
    return torch.zeros_like(norm) if shared is None else shared.to(norm).abs() / norm.clamp_min(_LEAST_NORM)


def _curvature_along(objective: Tensor, leaves: Sequence[Tensor], gradient: Parts, norm: Tensor) -> Tensor:
    """Return ``|d . H d|`` along the direction of a gradient, 0 where the objective cannot be differentiated twice."""
    none = torch.zeros_like(norm)
    if not objective.requires_grad or not bool(norm > _LEAST_NORM):
        return none
    try:
        first = torch.autograd.grad(objective, list(leaves), create_graph=True, allow_unused=True)
        along = _dot(first, gradient)
        if along is None or not along.requires_grad:
            return none
        product = _dot(_gradient_parts(along, leaves), gradient)
    except RuntimeError:  # a kernel without a second derivative
        return none
    curvature = none if product is None else product.detach().to(norm).abs() / norm**2
    return curvature if bool(torch.isfinite(curvature)) else none


def _dot(one: Parts, other: Parts) -> Tensor | None:
    terms = [
        (a * b).sum(dtype=torch.float64) for a, b in zip(one, other, strict=True) if a is not None and b is not None
    ]
    return torch.stack(terms).sum() if terms else None


def _find_leaves(outputs: Sequence[Tensor]) -> list[Tensor]:
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
