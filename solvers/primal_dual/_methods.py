"""Rules by which multipliers move: small frozen values, no state of their own.

Every rule is a case of one controller.  With e the violation that is seen:

    augmented Lagrangian   lambda <- relu(lambda + step e),   weight = relu(lambda + rho e)
    PI gain                lambda <- relu(lambda + step e + gain e - (gain e) before),   weight = lambda

``rho = 0`` is plain gradient ascent (Arrow, Hurwicz and Uzawa 1958).  On equalities the two lines are the same rule,
written once as a sum and once as its differences, so with gain = rho all iterates agree.  Extragradient looks ahead
before it steps.  Axes: C rows, inequalities first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..errors import InvalidInput

# Eight known problems by gradient descent (rates .1, .01) and Adam (.05, .01) reach residuals of 1e-3 in all 32 runs,
# within 2,050 steps.  A fixed rho of 10 with a step of a tenth fails on six of the 32.
_GAIN, _SLOWER = 3.0, 20.0


class Seen(NamedTuple):
    """What a rule looks at, (C,) each: the violation e and rho, now and at the step before; the multiplier step; the
    least multiplier, 0 or minus infinity.
    """

    e_C: Tensor
    e_before_C: Tensor
    rho_C: Tensor
    rho_before_C: Tensor
    step_C: Tensor
    floor_C: Tensor


@dataclass(frozen=True)
class DualMethod:
    """What every rule has: first penalty, multiplier step, smoothing of noisy values, limits.

    rho0        first penalty coefficient, >= 0, in units of objective per squared unit of constraint
    step        multiplier step a unit of violation, >= 0
    ema         how much of the past stays in the smoothed value, in [0, 1); None: the caller decides by its noise
    cap         largest multiplier and largest weight allowed; None for no cap
    growth      factor by which rho grows when a violation fails to fall, >= 1
    rho_max     where that growth ends
    start       first multiplier of each inequality, >= 0
    dead_band   violations and slacks smaller than this move nothing, >= 0, in units of the constraint
    restart     whether a multiplier falls to 0 as soon as its inequality is met with room to spare
    scale_free  whether rho0, where a gentler start ends, and rho_max are multiples of a unit that the engine reads off
                the first gradients, and step is a share of rho, so that factors on objective or constraints change
                nothing but the multipliers
    """

    rho0: float
    step: float
    ema: float | None = None
    cap: float | None = None
    growth: float = 1.0
    rho_max: float = 1e6
    start: float = 0.0
    dead_band: float = 0.0
    restart: bool = False
    scale_free: bool = False

    looks_ahead: ClassVar[bool] = False  # whether a step needs values at a second point

    def __post_init__(self) -> None:
        rules = {
            "rho": (self.rho0, self.rho0 >= 0, "at least 0"),
            "step": (self.step, self.step >= 0, "at least 0"),
            "ema": (self.ema, self.ema is None or 0 <= self.ema < 1, "in [0, 1)"),
            "cap": (self.cap, self.cap is None or self.cap > 0, "above 0"),
            "growth": (self.growth, self.growth >= 1, "at least 1"),
            "start": (self.start, self.start >= 0, "at least 0"),
            "dead_band": (self.dead_band, self.dead_band >= 0, "at least 0"),
            "rho_max": (self.rho_max, self.rho_max >= self.rho0, f"at least rho, {self.rho0:g}"),
        }
        for name, (value, fits, wanted) in rules.items():
            if not fits or (value is not None and not math.isfinite(value)):
                raise InvalidInput(f"`{name}` of {type(self).__name__} is {value!r}; it must be {wanted} and finite.")

    def respond(self, lambda_C: Tensor, seen: Seen) -> tuple[Tensor, Tensor]:
        """Return multipliers after the step, and the weights of the rows in the primal gradient, (C,) each."""
        moved_C = self.limited(torch.addcmul(lambda_C, seen.step_C, seen.e_C), seen.floor_C)
        if self.restart:
            moved_C = torch.where((seen.e_C < 0) & (seen.floor_C == 0), 0.0, moved_C)
        if self.rho0 == 0:
            return moved_C, moved_C
        return moved_C, self.limited(torch.addcmul(moved_C, seen.rho_C, seen.e_C), seen.floor_C)

    def limited(self, price_C: Tensor, floor_C: Tensor) -> Tensor:
        """Return multipliers or weights within floor and cap.  What is cut off is forgotten: nothing winds up."""
        if self.cap is None:
            return torch.maximum(price_C, floor_C)
        return torch.maximum(price_C, floor_C.clamp_min(-self.cap)).clamp_max(self.cap)


class AugmentedLagrangian(DualMethod):
    """Augmented Lagrangian with one multiplier step before every primal step; the default.

    rho: penalty coefficient, in units of objective per squared unit of constraint; left out, read off the first
    gradients, which makes the rule scale-free: it begins where the rows pull as strongly as the objective, and grows
    tenfold, up to three units, when the number of steps has doubled and a violation has come to rest.  step:
    multiplier step, by default ``rho / 20``, so that the multiplier follows more slowly than the damping acts; where
    the rule is scale-free, smaller as long as the row moves more slowly than that, so that multipliers do not wind up
    on a long way.  ema, cap, dead_band, restart: see DualMethod.  growth: rho and step are multiplied by this when
    three audits in a row find a violation that has not fallen by a tenth since the one before, until rho reaches
    rho_max.
    Source: Hestenes 1969, Powell 1969, Rockafellar 1973.
    """

    def __init__(
        self,
        rho: float | None = None,
        step: float | None = None,
        ema: float | None = None,
        cap: float | None = None,
        growth: float = 2.0,
        rho_max: float = 1e4,
        dead_band: float = 0.0,
        restart: bool = False,
    ) -> None:
        if rho is not None and not rho > 0:
            raise InvalidInput(
                f"`rho` of AugmentedLagrangian is {rho!r}; it must be above 0. For rho = 0 use PlainAscent()."
            )
        first = _GAIN if rho is None else rho
        super().__init__(
            first,
            first / _SLOWER if step is None else step,
            ema,
            cap,
            growth,
            max(rho_max, first),
            dead_band=dead_band,
            restart=restart,
            scale_free=rho is None,
        )


class PIGain(DualMethod):
    """A controller on the multipliers: an integral of the violation, and a share of its change.

    gain: proportional gain, in units of objective per squared unit of constraint; left out, read off the first
    gradients, as AugmentedLagrangian's rho is.  step: integral gain, by default ``gain / 20``, or less, as there.  ema:
    smoothing of what is seen, the nu of nuPI.  On equalities the same as AugmentedLagrangian with rho = gain; on
    inequalities the sum, not the integral alone, is kept at 0 or above.
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
        first = _GAIN if gain is None else gain
        super().__init__(
            first,
            first / _SLOWER if step is None else step,
            ema,
            cap,
            rho_max=max(1e6, first),
            dead_band=dead_band,
            scale_free=gain is None,
        )

    def respond(self, lambda_C: Tensor, seen: Seen) -> tuple[Tensor, Tensor]:
        """Return multipliers after the step; they are the weights too.  See DualMethod."""
        pushed_C = torch.addcmul(lambda_C, seen.step_C, seen.e_C)
        pushed_C = torch.addcmul(pushed_C, seen.rho_before_C, seen.e_before_C, value=-1)
        moved_C = self.limited(torch.addcmul(pushed_C, seen.rho_C, seen.e_C), seen.floor_C)
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


class Extragradient(DualMethod):
    """Plain ascent that looks ahead: the step from here takes the gradients found one step further.

    step: multiplier step a unit of violation.  Needs ``PrimalDual.take``, which evaluates the problem twice a step;
    settles on bilinear problems without any penalty.  Source: Korpelevich 1976.
    """

    looks_ahead = True

    def __init__(self, step: float = 0.1, cap: float | None = None, dead_band: float = 0.0) -> None:
        super().__init__(0.0, step, 0.0, cap, dead_band=dead_band)


class FixedPenalty(DualMethod):
    """``f + weight g`` with a coefficient that never moves: what is used by hand, kept here to compare with.

    Minimises one Lagrangian for good (Theorem VIII.5's mu) and promises nothing about g.  weight >= 0.
    """

    def __init__(self, weight: float = 1.0) -> None:
        if not (weight >= 0 and math.isfinite(weight)):
            raise InvalidInput(f"`weight` of FixedPenalty is {weight!r}; it must be at least 0 and finite.")
        super().__init__(0.0, 0.0, start=weight)
