"""Rules by which multipliers move: small frozen values, no state of their own.

Every rule is a case of one controller (Powell, Hestenes, Rockafellar; in control terms a PI controller):

    lambda <- relu(lambda + step g)            integral part, taken first
    weight  = relu(lambda + rho g)             proportional part, what the primal gradient sees

``rho = 0`` is plain gradient ascent (Arrow, Hurwicz and Uzawa 1958).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InvalidInput


@dataclass(frozen=True)
class DualMethod:
    """What every rule has: first penalty, multiplier step, smoothing of noisy values, a cap.

    rho0     first penalty coefficient, >= 0, in units of objective per squared unit of constraint
    step     multiplier step a unit of violation, >= 0
    ema      how much of the past stays in the smoothed g, in [0, 1); None: the caller decides by its noise
    cap      largest multiplier allowed; None for no cap
    growth   factor by which rho grows when a violation fails to fall, >= 1
    rho_max  where that growth ends
    start    first multiplier of each inequality, >= 0
    """

    rho0: float
    step: float
    ema: float | None = None
    cap: float | None = None
    growth: float = 1.0
    rho_max: float = 1e6
    start: float = 0.0

    def __post_init__(self) -> None:
        rules = {
            "rho": (self.rho0, self.rho0 >= 0, "at least 0"),
            "step": (self.step, self.step >= 0, "at least 0"),
            "ema": (self.ema, self.ema is None or 0 <= self.ema < 1, "in [0, 1)"),
            "cap": (self.cap, self.cap is None or self.cap > 0, "above 0"),
            "growth": (self.growth, self.growth >= 1, "at least 1"),
            "start": (self.start, self.start >= 0, "at least 0"),
            "rho_max": (self.rho_max, self.rho_max >= self.rho0, f"at least rho, {self.rho0:g}"),
        }
        for name, (value, fits, wanted) in rules.items():
            if not fits or (value is not None and not math.isfinite(value)):
                raise InvalidInput(f"`{name}` of {type(self).__name__} is {value!r}; it must be {wanted} and finite.")


class AugmentedLagrangian(DualMethod):
    """Augmented Lagrangian with one multiplier step before every primal step; the default.

    rho: penalty coefficient (10 suits objectives and constraints of order one).  step: multiplier step, by
    default ``rho / 10``, so that the multiplier follows more slowly than the damping acts.  ema, cap: see DualMethod.
    growth: rho and step are multiplied by this when three audits in a row find a violation that has not fallen by a
    tenth since the one before, until rho reaches rho_max.  Source: Hestenes 1969, Powell 1969, Rockafellar 1973.
    """

    def __init__(
        self,
        rho: float = 10.0,
        step: float | None = None,
        ema: float | None = None,
        cap: float | None = None,
        growth: float = 2.0,
        rho_max: float = 1e4,
    ) -> None:
        if not rho > 0:
            raise InvalidInput(
                f"`rho` of AugmentedLagrangian is {rho!r}; it must be above 0. For rho = 0 use PlainAscent()."
            )
        super().__init__(rho, rho / 10 if step is None else step, ema, cap, growth, max(rho_max, rho))


class PlainAscent(DualMethod):
    """Gradient ascent on the multipliers alone, rho = 0: simple, and it cycles on bilinear problems.

    step: multiplier step a unit of violation.  Source: Arrow, Hurwicz and Uzawa 1958.
    """

    def __init__(self, step: float = 0.1, ema: float | None = None, cap: float | None = None) -> None:
        super().__init__(0.0, step, ema, cap)


class FixedPenalty(DualMethod):
    """``f + weight g`` with a coefficient that never moves: what is used by hand, kept here to compare with.

    Minimises one Lagrangian for good (Theorem VIII.5's mu) and promises nothing about g.  weight >= 0.
    """

    def __init__(self, weight: float = 1.0) -> None:
        if not (weight >= 0 and math.isfinite(weight)):
            raise InvalidInput(f"`weight` of FixedPenalty is {weight!r}; it must be at least 0 and finite.")
        super().__init__(0.0, 0.0, start=weight)
