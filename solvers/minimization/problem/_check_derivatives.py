"""Are second derivatives those of the gradient?  Functions that torch differentiates once may hand out zeros silently.

Axes: n variables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._user_functions import Floats


@dataclass(frozen=True)
class CheckSettings:
    """How Hessians are compared with differences of gradients; ``test_minimize_once.py`` notices them.

    Attributes:
        lengths: Of the differences, in units of the cube root of rounding and of each variable's 1 + |x|.
        error: Share of a difference by which a product with the Hessian may be off.
        rounding: Rounding of a gradient, in units of that of its functions.
        higher_order: Share of the error a unit of length that may be left over a shorter step: third derivatives and
            kinks nearby shrink, a missing second derivative stays.
        linear: Share of the largest gradient by which those of a linear function may differ.
    """

    lengths: tuple[float, ...] = (1.0, 30.0, 0.2, 3e-2, 1e-3)
    error: float = 0.1
    rounding: float = 100.0
    higher_order: float = 0.3
    linear: float = 1e-9


SETTINGS = CheckSettings()


def check_hessian(
    hessian_nn: Floats,
    x_n: Floats,
    gradient_n: Floats,
    gradient: Callable[[Floats], Floats],
    clip: Callable[[Floats], Floats],
    rounding: float,
    canceled: float = 0.0,
) -> None:
    """Raise RuntimeError where a Hessian is not that of the gradient, over several lengths, each variable in its size.

    Args:
        hessian_nn: What is checked, at x_n.
        x_n: The point.
        gradient_n: The gradient there.
        gradient: Computes the gradient elsewhere.
        clip: Moves a point within its bounds.
        rounding: Relative rounding of the functions.
        canceled: Size of gradients that canceled in this one.
    """
    draw, size_n = np.random.default_rng(0).uniform(-1, 1, len(x_n)), 1 + np.abs(x_n)
    noise = SETTINGS.rounding * rounding * float((np.maximum(np.abs(gradient_n), canceled) * size_n).max())
    errors: dict[float, float] = {}
    for length in SETTINGS.lengths:
        step_n = clip(x_n + length * rounding ** (1 / 3) * size_n * draw) - x_n
        change_n, predicted_n = gradient(x_n + step_n) - gradient_n, hessian_nn @ step_n
        error, change, predicted = (
            float((np.abs(part_n) * size_n).max()) for part_n in (change_n - predicted_n, change_n, predicted_n)
        )
        seen = not errors or noise <= change + predicted
        if not error > SETTINGS.error * (change + predicted) + noise and seen:  # a NaN says nothing
            return
        errors[length] = error
        if any(
            max(errors[short], noise) / short < SETTINGS.higher_order * errors[long] / long
            for short in errors
            for long in errors
            if short < long
        ):
            return
    raise RuntimeError("second derivatives are not those of the gradient")


def moves(gradients: Floats, others: Floats) -> bool:
    """Say whether gradients of what has no second derivatives differ all the same: then it is not linear."""
    return bool(np.abs(gradients - others).max(initial=0.0) > SETTINGS.linear * np.abs(gradients).max(initial=0.0))
