"""Rules by which multipliers move: small frozen values, no state of their own.

Every rule is a case of one controller.  With e the violation that is seen:

    PI gain                lambda <- relu(lambda + step e + rho (e - e before)),   weight = lambda
    augmented Lagrangian   lambda <- relu(lambda + step e),                        weight = relu(lambda + rho e)

Within the bounds the two are one rule, written once as its differences and once as a sum.  They differ where lambda is
cut off at 0: the first then keeps nothing of what the violation was worth on the way, so that a weight grows only while
a violation falls by less than the share ``step / rho`` a step, and nothing winds up while the objective itself brings
it down.  ``rho = 0`` is plain gradient ascent (Arrow, Hurwicz and Uzawa 1958).  Axes: C rows, inequalities first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InvalidInput

_SLOWER = 20.0  # explicit rho: the multiplier follows at a twentieth of it


class Seen(NamedTuple):
    """What a rule looks at, (C,) each.

    The violation e now and at the step before; rho; the multiplier step; the least multiplier, 0 or minus infinity.
    """

    e_C: Tensor
    e_before_C: Tensor
    rho_C: Tensor
    step_C: Tensor
    floor_C: Tensor


@dataclass(frozen=True)
class DualMethod:
    """What every rule has: gain, multiplier step, smoothing of noisy values, limits.

    Attributes:
        rho0: Proportional gain, the penalty coefficient, >= 0: in units of objective per squared unit of constraint,
            or, where the rule is scale-free, in multiples of what ``_gains`` says.
        step: Multiplier step a unit of violation, >= 0, in the same units.
        ema: How much of the past stays in the smoothed value, in [0, 1); None: the caller decides by its noise.
        cap: Largest multiplier and largest weight allowed; None for no cap.
        start: First multiplier of each inequality, >= 0.
        dead_band: Violations and slacks smaller than this move nothing, >= 0, in units of the constraint.
        restart: Whether a multiplier falls to 0 as soon as its inequality is met with room to spare.
        scale_free: Whether gain and step are multiples of what the engine measures, so that factors on objective
            or constraints change nothing but the multipliers.

    Raises:
        InvalidInput: A number is out of range.
    """

    rho0: float
    step: float
    ema: float | None = None
    cap: float | None = None
    start: float = 0.0
    dead_band: float = 0.0
    restart: bool = False
    scale_free: bool = False

    def __post_init__(self) -> None:
        rules = {
            "rho": (self.rho0, self.rho0 >= 0, "at least 0"),
            "step": (self.step, self.step >= 0, "at least 0"),
            "ema": (self.ema, self.ema is None or 0 <= self.ema < 1, "in [0, 1)"),
            "cap": (self.cap, self.cap is None or self.cap > 0, "above 0"),
            "start": (self.start, self.start >= 0, "at least 0"),
            "dead_band": (self.dead_band, self.dead_band >= 0, "at least 0"),
        }
        for name, (value, fits, wanted) in rules.items():
            if not fits or (value is not None and not math.isfinite(value)):
                raise InvalidInput(f"`{name}` of {type(self).__name__} is {value!r}; it must be {wanted} and finite.")

    def update(self, lambda_C: Tensor, seen: Seen) -> tuple[Tensor, Tensor]:
        """Return multipliers after the step, and the weights of the rows in the primal gradient, (C,) each."""
        moved_C = self.limited(torch.addcmul(lambda_C, seen.step_C, seen.e_C), seen.floor_C)
        if self.restart:
            moved_C = torch.where((seen.e_C < 0) & (seen.floor_C == 0), 0.0, moved_C)
        if self.rho0 == 0:
            return moved_C, moved_C
        return moved_C, self.limited(torch.addcmul(moved_C, seen.rho_C, seen.e_C), seen.floor_C)

    def limited(self, weight_C: Tensor, floor_C: Tensor) -> Tensor:
        """Return multipliers or weights within floor and cap.  What is cut off is forgotten: nothing winds up."""
        if self.cap is None:
            return torch.maximum(weight_C, floor_C)
        return torch.maximum(weight_C, floor_C.clamp_min(-self.cap)).clamp_max(self.cap)


class AugmentedLagrangian(DualMethod):
    """Augmented Lagrangian with one multiplier step before every primal step.

    Args:
        rho: Penalty coefficient, in units of objective per squared unit of constraint; left out, measured, which makes
            the rule scale-free.
        step: Multiplier step, by default ``rho / 20``, so that the multiplier follows more slowly than the damping
            acts; a multiple of the measured one, by default 1, where the rule is scale-free.
        ema: See DualMethod, as all that follow.
        cap: Largest multiplier and weight.
        dead_band: Violations that move nothing.
        restart: Whether a met inequality loses its multiplier at once.

    Raises:
        InvalidInput: A number is out of range.

    Source: Hestenes 1969, Powell 1969, Rockafellar 1973.
    """

    def __init__(
        self,
        rho: float | None = None,
        step: float | None = None,
        ema: float | None = None,
        cap: float | None = None,
        dead_band: float = 0.0,
        restart: bool = False,
    ) -> None:
        if rho is not None and not rho > 0:
            raise InvalidInput(
                f"`rho` of AugmentedLagrangian is {rho!r}; it must be above 0. For rho = 0 use PlainAscent()."
            )
        super().__init__(
            *_gain_and_step(rho, step), ema, cap, dead_band=dead_band, restart=restart, scale_free=rho is None
        )


class PIGain(DualMethod):
    """A controller on the multipliers: an integral of the violation, and a share of its change; the default.

    On equalities the same as AugmentedLagrangian with rho = gain, but for the first value, whose change is 0; on
    inequalities the sum, not the integral alone, is kept at 0 or above, which is its anti-windup.

    Args:
        gain: Proportional gain, in units of objective per squared unit of constraint; left out, measured, which makes
            the rule scale-free.
        step: Integral gain, by default ``gain / 20``; a multiple of the measured one, by default 1, where the rule is
            scale-free.
        ema: Smoothing of what is seen, the nu of nuPI; see DualMethod.
        cap: Largest multiplier.
        dead_band: Violations that move nothing.

    Raises:
        InvalidInput: A number is out of range.

    Source: Sohrabi, Ramirez, Zhang, Lacoste-Julien and Gallego-Posada 2024, algorithm 1.
    """

    def __init__(
        self,
        gain: float | None = None,
        step: float | None = None,
        ema: float | None = None,
        cap: float | None = None,
        dead_band: float = 0.0,
    ) -> None:
        super().__init__(*_gain_and_step(gain, step), ema, cap, dead_band=dead_band, scale_free=gain is None)

    def update(self, lambda_C: Tensor, seen: Seen) -> tuple[Tensor, Tensor]:
        """Return multipliers after the step; they are the weights too.  See DualMethod."""
        pushed_C = torch.addcmul(lambda_C, seen.step_C, seen.e_C)
        moved_C = self.limited(torch.addcmul(pushed_C, seen.rho_C, seen.e_C - seen.e_before_C), seen.floor_C)
        free_C = (lambda_C <= seen.floor_C) & (seen.e_C <= 0)  # met, and without a weight: noise is not to give it one
        moved_C = torch.where(free_C, lambda_C, moved_C)
        return moved_C, moved_C


class PlainAscent(DualMethod):
    """Gradient ascent on the multipliers alone, rho = 0: simple, and it cycles on bilinear problems.

    step: multiplier step a unit of violation.  restart: see DualMethod, and Gallego-Posada et al. 2022.
    Source: Arrow, Hurwicz and Uzawa 1958.
    """

    def __init__(
        self,
        step: float = 0.1,
        ema: float | None = None,
        cap: float | None = None,
        dead_band: float = 0.0,
        restart: bool = False,
    ) -> None:
        super().__init__(0.0, step, ema, cap, dead_band=dead_band, restart=restart)


class FixedPenalty(DualMethod):
    """``f + weight g`` with a coefficient that never moves: what is used by hand, kept here to compare with.

    Minimises one Lagrangian for good (Theorem VIII.5's mu) and promises nothing about g.  weight >= 0.
    """

    def __init__(self, weight: float = 1.0) -> None:
        if not (weight >= 0 and math.isfinite(weight)):
            raise InvalidInput(f"`weight` of FixedPenalty is {weight!r}; it must be at least 0 and finite.")
        super().__init__(0.0, 0.0, start=weight)


def _gain_and_step(gain: float | None, step: float | None) -> tuple[float, float]:
    """Return both, where left out by their defaults: a gain of 1 in measured units."""
    if gain is None:
        return 1.0, 1.0 if step is None else step
    return gain, gain / _SLOWER if step is None else step
