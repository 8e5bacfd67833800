"""Is a map that updates weights a contraction, and where does it come to rest?  (Theorem VII.1)

Axes: B starts, K teachers, N iterations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.polytope import WeightPolytope
from solvers.projection import project
from solvers.short_repr import ShortRepr

from .._number_checks import is_whole, require_seed
from ..errors import InvalidInput
from ._rate_fits import RateFit, fit_factor


@dataclass(frozen=True)
class ContractionSettings:
    """How a map is looked at.

    Attributes:
        near: Distance of the close pairs, which show the local factor.  Larger than rounding by far, smaller than any
            polytope (``tests/safekd/theory/test_weight_contraction.py``).
        rounding: Distances below this are none: float64 after some hundred additions.
        fit_floor: Distances are fitted down to this one, well above rounding.
    """

    near: float = 1e-4
    rounding: float = 1e-9
    fit_floor: float = 1e-7


_CONTRACTION = ContractionSettings()


@dataclass(frozen=True, repr=False)
class Contraction(ShortRepr):
    """What iterating a map on weights shows.

    Attributes:
        factor: Largest ``|T(w) - T(w')| / |w - w'|`` over the pairs tried, Euclidean norm; the true one is not
            smaller.
        factor_max_norm: The same in the maximum norm, which the theorem states.
        fixed_point: Where all starts come to rest, (K,); None where they do not, or at different points.
        spread: Largest maximum-norm distance between the ends of the starts.
        still_moving: Largest maximum-norm distance of the last step.
        distances: Largest maximum-norm distance of a start to the fixed point after each iteration, (N + 1,); empty
            without a fixed point.
        rate: Geometric rate fitted to ``distances``; None where there are too few above rounding.
    """

    factor: float
    factor_max_norm: float
    fixed_point: Tensor | None
    spread: float
    still_moving: float
    distances: Tensor
    rate: RateFit | None

    @property
    def contracts(self) -> bool:
        """Whether no pair that was tried contradicts a factor below 1 in the Euclidean norm."""
        return self.factor < 1

    def __str__(self) -> str:
        """Return the finding in a sentence."""
        ends = f"{self.spread:.3g} apart at the end" if self.fixed_point is None else "one fixed point from all starts"
        return f"factor {self.factor:.4g} (maximum norm {self.factor_max_norm:.4g}); {ends}"


def measure_contraction(
    update: Callable[[Tensor], Tensor],
    polytope: WeightPolytope,
    *,
    starts: int = 64,
    iterations: int = 200,
    seed: int = 0,
) -> Contraction:
    """Iterate a map of weights from many starts in a polytope, and measure by how much it brings them together.

    Args:
        update: The map T, from weights (B, K), float64, to weights (B, K), row by row.
        polytope: Where starts are drawn: projections of random rows.  T need not stay in it.
        starts: How many, at least 2; each is also tried against a neighbor close by.
        iterations: How often T is applied, at least 3.
        seed: Which starts.

    Returns:
        Factor, fixed point and rate.

    Raises:
        InvalidInput: A number is out of range, or T gives another shape or what is not finite.

    Source: Theorem VII.1; Banach's fixed-point theorem.

    >>> P = WeightPolytope(n_teachers=3, lower=0.1, upper=0.6)
    >>> found = measure_contraction(lambda w: 0.5 * w + 0.5 / 3, P)
    >>> round(found.factor, 6), found.fixed_point
    (0.5, tensor([0.3333, 0.3333, 0.3333], dtype=torch.float64))
    """
    for name, value, least in (("starts", starts, 2), ("iterations", iterations, 3)):
        if not is_whole(value) or value < least:
            raise InvalidInput(f"`{name}` is {value!r}; wanted a whole number, at least {least}.")
    generator = torch.Generator().manual_seed(require_seed(seed))
    start_BK = _draw_weights(polytope, starts, generator)
    beside_BK = project(
        start_BK + _CONTRACTION.near * torch.randn(start_BK.shape, generator=generator).to(start_BK), polytope
    )
    w_BK, path = start_BK, [start_BK]
    for _ in range(iterations):
        path.append(w_BK := _apply(update, w_BK))
    pairs = [(start_BK, path[1], beside_BK, _apply(update, beside_BK))]
    pairs += [(start_BK, path[1], start_BK.roll(1, 0), path[1].roll(1, 0))]
    # T outside the starts too: pairs of later iterates lie closer and elsewhere
    pairs += [(path[n], path[n + 1], path[n].roll(1, 0), path[n + 1].roll(1, 0)) for n in range(1, min(8, iterations))]
    spread = float((w_BK - w_BK[0]).abs().max())
    still_moving = float((path[-1] - path[-2]).abs().max())
    rests = max(spread, still_moving) <= _CONTRACTION.rounding
    distance_N = torch.stack([(one - w_BK).abs().max() for one in path]) if rests else torch.empty(0)
    fitted = distance_N[distance_N > _CONTRACTION.fit_floor]
    return Contraction(
        factor=max(_largest_ratio(*pair, order=2.0) for pair in pairs),
        factor_max_norm=max(_largest_ratio(*pair, order=torch.inf) for pair in pairs),
        fixed_point=w_BK.mean(0) if rests else None,
        spread=spread,
        still_moving=still_moving,
        distances=distance_N,
        rate=fit_factor(fitted.numpy()) if len(fitted) >= 3 else None,
    )


def _draw_weights(polytope: WeightPolytope, rows: int, generator: torch.Generator) -> Tensor:
    """Return weights all over the polytope, its faces included, (B, K)."""
    score_BK = torch.randn(rows, polytope.n_teachers, generator=generator, dtype=torch.float64)
    return project(score_BK, polytope)


def _apply(update: Callable[[Tensor], Tensor], w_BK: Tensor) -> Tensor:
    moved_BK = update(w_BK)
    if not isinstance(moved_BK, Tensor) or moved_BK.shape != w_BK.shape:
        shape = tuple(moved_BK.shape) if isinstance(moved_BK, Tensor) else type(moved_BK).__name__
        raise InvalidInput(f"`update` gives {shape} for weights of shape {tuple(w_BK.shape)}; wanted the same shape.")
    if not bool(torch.isfinite(moved_BK).all()):
        raise InvalidInput("`update` gives weights that are not finite.")
    return moved_BK.detach()


def _largest_ratio(a_BK: Tensor, to_a_BK: Tensor, b_BK: Tensor, to_b_BK: Tensor, order: float) -> float:
    before_B = torch.linalg.vector_norm(a_BK - b_BK, ord=order, dim=-1)
    after_B = torch.linalg.vector_norm(to_a_BK - to_b_BK, ord=order, dim=-1)
    apart_B = before_B > _CONTRACTION.rounding
    return float((after_B[apart_B] / before_B[apart_B]).max()) if bool(apart_B.any()) else 0.0
