"""Units of variables: what counts as one step in each, read off bounds, start, gradient and curvature.

Units are powers of two, so that dividing by them is exact, and 1 where a variable needs none: within
``least_unit`` and ``largest_unit`` of 1.  Axes: n variables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._user_functions import Floats


@dataclass(frozen=True)
class UnitSettings:
    """When a variable gets a unit of its own; ``test_minimize_sizes.py`` notices them.

    Attributes:
        least_unit: Size below which a variable gets a unit.
        largest_unit: Size above which it gets one.
        spread: Units are taken only where the sizes of variables differ by more than this factor.
        hidden: Share of the largest gradient below which a variable at 0 is asked for its curvature: it may be a large
            one.
        curved_variables: Variables up to which curvature is asked.
        confirmed: Share of the largest effect, gradient times size, that a variable with a small start is to have.
        no_bound: Bounds further apart say nothing of a size.
        least_size: Least unit.
        largest_size: Largest unit.
    """

    least_unit: float = 1e-2
    largest_unit: float = 1e3
    spread: float = 1e3
    hidden: float = 1e-5
    curved_variables: int = 300
    confirmed: float = 1e-2
    no_bound: float = 1e10
    least_size: float = 1e-12
    largest_size: float = 1e12


SETTINGS = UnitSettings()


def choose_units(
    x_n: Floats, lower_n: Floats, upper_n: Floats, gradient_n: Floats, hessian: Callable[[], Floats]
) -> Floats:
    """Return the unit of each variable.

    Args:
        x_n: The start.
        lower_n: Lower bounds.
        upper_n: Upper bounds.
        gradient_n: Gradient of the objective at the start.
        hessian: Computes its second derivatives there, (n, n); may raise RuntimeError.
    """
    range_n, start_n = upper_n - lower_n, np.abs(x_n)
    boxed_n = (range_n > 0) & (range_n < SETTINGS.no_bound)
    width_n = np.where(boxed_n, range_n, 1.0)
    in_box_n = np.where(start_n > 0, np.sqrt(start_n * width_n), 0.1 * width_n)
    size_n = np.where(boxed_n, in_box_n, start_n)
    steepness_n = np.abs(gradient_n)
    unknown_n = (x_n == 0) & ~boxed_n & (steepness_n > 0)
    if unknown_n.any() and (size_n > 0).any():  # as much as makes the objective as steep as known ones do
        effect = float(np.median((steepness_n * size_n)[size_n > 0]))
        matched_n = np.clip(effect / np.where(unknown_n, steepness_n, 1.0), size_n[size_n > 0].min(), size_n.max())
        size_n = np.where(unknown_n, matched_n, size_n)
    hidden_n = (
        (x_n == 0) & ~boxed_n & (steepness_n > 0) & (steepness_n <= SETTINGS.hidden * steepness_n.max(initial=0.0))
    )
    if hidden_n.any() and len(x_n) <= SETTINGS.curved_variables:
        try:
            curvature_n = np.abs(np.diag(hessian()))
        except RuntimeError:
            curvature_n = np.zeros_like(x_n)
        hidden_n = unknown_n  # where one is, no other at 0 is known by its gradient alone
        size_n = np.where(
            hidden_n & (curvature_n > 0), steepness_n / np.where(curvature_n > 0, curvature_n, 1.0), size_n
        )
    size_n = np.where((size_n > 0) & np.isfinite(size_n), size_n, 1.0).clip(SETTINGS.least_size, SETTINGS.largest_size)
    plain_n = (size_n >= SETTINGS.least_unit) & (size_n <= SETTINGS.largest_unit)
    # a start near 0 is no size, unless the objective is as steep there as that makes it
    effect_n = steepness_n * size_n
    plain_n |= (size_n < 1) & ~boxed_n & (effect_n <= SETTINGS.confirmed * float(effect_n.max()))
    if size_n.max() <= SETTINGS.spread * size_n.min():
        plain_n[:] = True  # all of one size: nothing to even out
    units_n: Floats = np.where(plain_n, 1.0, 2.0 ** np.round(np.log2(size_n)))
    return units_n
