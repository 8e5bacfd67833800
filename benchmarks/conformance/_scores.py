"""Scores that are hard on a projection's arithmetic, in families, each at scales from 1e-8 to 1e8.

Axes: B rows, K teachers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from solvers import WeightPolytope

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_TWINS = 8  # one row in so many is drawn again


@dataclass(frozen=True)
class _Draw:
    """What a family may look at.  scale_B1: 1e-8 to 1e8, uniform in the exponent."""

    random: np.random.Generator
    scale_B1: Floats
    polytope: WeightPolytope
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.scale_B1), self.polytope.n_teachers


def _spread(draw: _Draw) -> Floats:
    return draw.scale_B1 * draw.random.standard_normal(draw.shape)


def _ties(draw: _Draw) -> Floats:
    return draw.scale_B1 * draw.random.integers(-2, 3, draw.shape) / 3


def _near_ties(draw: _Draw) -> Floats:
    """A few ulp apart."""
    noise_BK = torch.finfo(draw.dtype).eps * draw.random.integers(-2, 3, draw.shape)
    return _ties(draw) * (1 + noise_BK) + draw.scale_B1 * noise_BK


def _level(draw: _Draw) -> Floats:
    """All teachers alike: one over K, or any other number."""
    level_B1 = np.where(draw.random.random(draw.scale_B1.shape) < 0.5, 1 / draw.shape[1], draw.scale_B1)
    return np.broadcast_to(level_B1, draw.shape)


def _on_bounds(draw: _Draw) -> Floats:
    """Every score is a bound, or one over K."""
    values_3K = np.array([draw.polytope.lower, draw.polytope.upper, np.full(draw.shape[1], 1 / draw.shape[1])])
    return values_3K[draw.random.integers(0, 3, draw.shape), np.arange(draw.shape[1])]


def _conforming(draw: _Draw) -> Floats:
    """Weights already, where bounds are uniform: any distribution in the order of the teachers, drawn in to 1/K."""
    B, K = draw.shape
    falling_BK = -np.sort(-draw.random.dirichlet(np.full(K, 0.5), B), axis=1)
    apart_BK = np.empty((B, K))
    apart_BK[:, list(draw.polytope.downward)] = falling_BK - 1 / K
    room = np.where(apart_BK > 0, np.array(draw.polytope.upper) - 1 / K, 1 / K - np.array(draw.polytope.lower))
    reach_BK = np.abs(room) / np.maximum(np.abs(apart_BK), 1e-300)
    return 1 / K + apart_BK * np.minimum(1.0, reach_BK.min(axis=1, keepdims=True))


def _denormal(draw: _Draw) -> Floats:
    """The smallest numbers of the type and zeros of both signs, in half of the rows beside ordinary ones."""
    random, shape = draw.random, draw.shape
    tiny_BK = random.integers(0, 4, shape) * torch.finfo(draw.dtype).smallest_normal * torch.finfo(draw.dtype).eps
    tiny_BK = np.copysign(tiny_BK, random.integers(0, 2, shape) - 0.5)
    ordinary_BK = (random.random((shape[0], 1)) < 0.5) & (random.random(shape) < 0.3)
    return np.where(ordinary_BK, random.standard_normal(shape), tiny_BK)


def _one_huge(draw: _Draw) -> Floats:
    """One score far from the others, above or below."""
    B, K = draw.shape
    v_BK = draw.random.standard_normal(draw.shape) / K
    huge_B = 10.0 ** draw.random.uniform(0, 8, B) * draw.random.choice([-1.0, 1.0], B)
    v_BK[np.arange(B), draw.random.integers(0, K, B)] = huge_B
    return v_BK


def _far_away(draw: _Draw) -> Floats:
    """All scores far from the polytope, close together: what tells them apart is in their last digits."""
    return draw.random.standard_normal(draw.shape) / draw.shape[1] + draw.scale_B1


def _all_sizes(draw: _Draw) -> Floats:
    """Each score has a size of its own."""
    size_BK = 10.0 ** draw.random.uniform(-8, 8, draw.shape)
    return np.copysign(size_BK, draw.random.standard_normal(draw.shape))


FAMILIES: tuple[Callable[[_Draw], Floats], ...] = (
    _spread,
    _ties,
    _near_ties,
    _level,
    _on_bounds,
    _conforming,
    _denormal,
    _one_huge,
    _far_away,
    _all_sizes,
)


def draw_scores(
    random: np.random.Generator, rows: int, polytope: WeightPolytope, dtype: torch.dtype, positive: bool
) -> tuple[torch.Tensor, Integers]:
    """Return scores (B, K) of all families, mixed, and for each row the first row that it repeats, itself if none.

    positive: for kl; zeros become the smallest number of the type.  What a type cannot hold becomes its largest number.
    """
    distinct = rows - rows // _TWINS
    edges = np.arange(len(FAMILIES) + 1) * distinct // len(FAMILIES)
    parts = [
        family(_Draw(random, 10.0 ** random.uniform(-8, 8, (count, 1)), polytope, dtype))
        for family, count in zip(FAMILIES, np.diff(edges), strict=True)
    ]
    source_B = np.concatenate([np.arange(distinct), random.integers(0, max(distinct, 1), rows - distinct)])
    source_B = random.permutation(source_B)
    limits = torch.finfo(dtype)
    v_BK = np.concatenate(parts)[source_B].clip(limits.min, limits.max)
    scores_BK = torch.from_numpy(np.abs(v_BK) if positive else v_BK).to(dtype)
    if positive:
        scores_BK = scores_BK.clamp_min(limits.smallest_normal * limits.eps)
    _, first_D, which_B = np.unique(source_B, return_index=True, return_inverse=True)
    return scores_BK, first_D[which_B]
