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

Factors on f or g change both as they change multipliers and gains.

A row whose gradient would have to carry the variables further than ``largest_distance`` to make up its violation tells
nothing of what it costs to meet it: its gradient has to grow on the way, and a scale read off a vanishing one would be
as good as infinite.  So the least gradient that could make it up stands in the denominator, and the scale falls by the
share of it that is there: the multiplier waits until the row has a gradient.

``read_scales`` reads gradients off one graph; ``GradientSums`` (``_gradient_sums``) adds them up over microbatches and
processes; both end in ``combine_scales``.  Axes: C rows, n parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ._gradient_parts import (
    differentiate,
    differentiate_twice,
    draw_signs,
    find_leaves,
    measure_parts,
    multiply_parts,
    read_curvature,
)


@dataclass(frozen=True)
class ScaleSettings:
    """How scales are read; ``tests/solvers/primal_dual/test_gains.py`` notices each of them.

    Attributes:
        one_by_one: Rows up to which each has a backward pass of its own; beyond, they share a scale, read off a sum
            with random signs.
        curvature_factor: The largest gain, in units of the objective's own curvature.
        vanishing: Share of what curvature asks for below which the objective's gradient counts as zero.
        least_norm: Of a gradient: below, it has no direction.
    """

    one_by_one: int = 32
    curvature_factor: float = 3.0
    vanishing: float = 1e-3
    least_norm: float = 1e-12


SETTINGS = ScaleSettings()


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
    objective: Tensor,
    rows_C: Tensor,
    *,
    inequalities: int | None = None,
    rows_each: float = 1.0,
    largest_distance: float = math.inf,
) -> MultiplierScales:
    """Return the scales of each row, read off the graph, which stays as it is for the backward pass that follows.

    Args:
        objective: Scalar f with its graph.
        rows_C: Values g and h with their graphs, shape (C,).
        inequalities: How many of them are inequalities, which come first; None for all.
        rows_each: See ``combine_scales``.
        largest_distance: See ``combine_scales``.
    """
    leaves = find_leaves([objective, rows_C])
    if not leaves or not rows_C.requires_grad:
        unknown_C = torch.full(rows_C.shape, torch.nan, dtype=torch.float64, device=rows_C.device)
        return MultiplierScales(unknown_C, unknown_C)
    few = rows_C.numel() <= SETTINGS.one_by_one
    f_gradient, first = differentiate(objective, leaves), differentiate_twice(objective, leaves)
    read = []
    for row in rows_C if few else [(rows_C * draw_signs(rows_C)).sum()]:  # one gradient of a row is held at a time
        gradient = differentiate(row, leaves)
        curvature = read_curvature(first, leaves, gradient)
        read.append((measure_parts(gradient), curvature, multiply_parts(f_gradient, gradient)))
    norm_C, curvature_C, product_C = (
        torch.stack([x.to(rows_C.device) for x in column]) for column in zip(*read, strict=True)
    )
    return combine_scales(
        measure_parts(f_gradient).to(rows_C.device),
        norm_C,
        curvature_C,
        product_C,
        measure_distances(rows_C.detach(), inequalities),
        rows_each=rows_each,
        largest_distance=largest_distance,
    )


def measure_distances(value_C: Tensor, inequalities: int | None) -> Tensor:
    """Return how far off each row is in float64, in its own units: 0 where an inequality is met.

    Args:
        value_C: Values g and h, shape (C,).
        inequalities: How many of them are inequalities, which come first; None for all.
    """
    off_C = value_C.double()
    M = len(off_C) if inequalities is None else inequalities
    return torch.cat([off_C[:M].clamp_min(0.0), off_C[M:].abs()])


def combine_scales(
    f_norm: Tensor,
    norm_C: Tensor,
    curvature_C: Tensor,
    product_C: Tensor,
    distance_C: Tensor,
    *,
    rows_each: float = 1.0,
    largest_distance: float = math.inf,
) -> MultiplierScales:
    """Return the scales that gradients of the whole problem show, whoever added them up.

    Of more than ``SETTINGS.one_by_one`` rows, or where that many gradients have no room, a single mix of the rows with
    random signs (``draw_signs``) may stand for all: its norm, curvature and product then have the shape (1,).

    Args:
        f_norm: |grad f|, a scalar, float64 like all others.
        norm_C: |grad g| of each row, shape (C,).
        curvature_C: ``grad g . H grad g`` with the Hessian H of f, shape (C,); what is not finite counts as 0.
        product_C: ``grad f . grad g``, shape (C,).
        distance_C: How far off each row is, shape (C,) (``measure_distances``).
        rows_each: How many rows of the problem each of these stands for, where a batch speaks of some only.
        largest_distance: How far variables may have to move, in their own units.
    """
    bent_C = curvature_C.abs() / norm_C**2
    bent_C = torch.where(torch.isfinite(bent_C), bent_C, 0.0)
    derivative_C = product_C.abs() / norm_C.clamp_min(SETTINGS.least_norm)
    if len(norm_C) < len(distance_C):  # what one row has of a mix, and how far off rows are
        norm_C = (norm_C / len(distance_C) ** 0.5).expand(distance_C.shape)
        distance_C = (distance_C**2).mean().sqrt().expand(distance_C.shape)
    usable_C = (norm_C > SETTINGS.least_norm) & torch.isfinite(norm_C)
    share = f_norm / (rows_each * usable_C.sum()).clamp_min(1)
    on_the_way_C = bent_C * distance_C / norm_C
    scale_C = torch.where(share > SETTINGS.vanishing * on_the_way_C, share, on_the_way_C) / norm_C
    largest_gain_C = SETTINGS.curvature_factor * torch.maximum(derivative_C, bent_C) / norm_C**2
    there_C = (norm_C * largest_distance / distance_C).clamp_max(1.0) if math.isfinite(largest_distance) else 1.0
    scale_C = scale_C * there_C**2
    return MultiplierScales(_mask_unknown(scale_C, usable_C), _mask_unknown(largest_gain_C, usable_C))


def _mask_unknown(value_C: Tensor, usable_C: Tensor) -> Tensor:
    return torch.where(usable_C & torch.isfinite(value_C) & (value_C > 0), value_C, torch.nan)
