"""Dual methods: the rules by which multipliers move.  Small frozen values, no state of their own.

Every rule is a case of one controller.  With e the violation that is seen:

    PI gain                lambda <- relu(lambda + step e + rho (e - e before)),   weight = lambda
    augmented Lagrangian   lambda <- relu(lambda + step e),                        weight = relu(lambda + rho e)

Within the bounds the two are one rule, written once as its differences and once as a sum.  They differ where lambda is
cut off at 0: the first then keeps nothing of what the violation was worth on the way, so that a weight grows only while
a violation falls by less than the share ``step / rho`` a step, and nothing winds up while the objective itself brings
it down.  ``rho = 0`` is plain gradient ascent (Arrow, Hurwicz and Uzawa 1958).

A new rule is a subclass of ``DualMethod`` with a ``name``, written here and added to ``DUAL_METHODS`` at the end, and
an export in the door.  It moves arrays of numpy on the processor and tensors elsewhere (``_native_arrays``).
Axes: C rows, inequalities first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, NamedTuple

from ..errors import InvalidInput
from ..lagrangian import bounded_weights
from ._native_arrays import Array, namespace_of


@dataclass(frozen=True)
class DualMethodSettings:
    """What methods with an explicit penalty do where they are not told.

    Attributes:
        integral_time: Steps in which the multiplier takes over what the penalty adds: the step is ``rho / 20``, so that
            the multiplier follows more slowly than the damping acts (``tests/solvers/primal_dual/test_methods.py``).
    """

    integral_time: float = 20.0


SETTINGS = DualMethodSettings()


class DualInputs(NamedTuple):
    """What a dual method looks at in one step, each float64 of shape (C,): arrays on the processor, else tensors.

    Attributes:
        e_C: The violation now, smoothed: g, or h with its sign, in units of each row.
        e_before_C: The violation at the step before.
        rho_C: Penalty coefficients, in units of f a squared unit of the row.
        step_C: Multiplier steps, in the same units.
        floor_C: The least multiplier: 0 for an inequality, minus infinity for an equality.
    """

    e_C: Array
    e_before_C: Array
    rho_C: Array
    step_C: Array
    floor_C: Array


@dataclass(frozen=True)
class DualMethod:
    """What every rule has: gain, multiplier step, smoothing of noisy values, limits.

    Attributes:
        rho0: Proportional gain, the penalty coefficient, >= 0: in units of objective per squared unit of constraint,
            or, where the rule is scale-free, in multiples of what ``_gains`` says.
        step: Multiplier step a unit of violation, >= 0, in the same units.
        ema: How much of the past stays in the smoothed value, in [0, 1).  None: a scale-free rule finds out how much
            of what it sees is noise, others smooth nothing; ``ConstrainedTrainer`` decides by its batches.
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

    name: ClassVar[str] = "dual_method"  # by which ``DUAL_METHODS`` knows the rule

    def __post_init__(self) -> None:
        rules: dict[str, tuple[float | None, Callable[[float], bool], str]] = {
            "rho": (self.rho0, lambda x: x >= 0, "at least 0"),
            "step": (self.step, lambda x: x >= 0, "at least 0"),
            "ema": (self.ema, lambda x: 0 <= x < 1, "in [0, 1)"),
            "cap": (self.cap, lambda x: x > 0, "above 0"),
            "start": (self.start, lambda x: x >= 0, "at least 0"),
            "dead_band": (self.dead_band, lambda x: x >= 0, "at least 0"),
        }
        for name, (value, fits, wanted) in rules.items():
            left_out = value is None and name in ("ema", "cap")
            if not left_out and not _is_number(value, fits):
                raise InvalidInput(f"`{name}` of {type(self).__name__} is {value!r}; it must be {wanted} and finite.")

    @classmethod
    def describe(cls) -> str:
        """Return what the rule is, in one line: the first of its docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    def update(self, lambda_C: Array, inputs: DualInputs) -> tuple[Array, Array]:
        """Return multipliers after the step, and the weights of the rows in the primal gradient.

        Args:
            lambda_C: Multipliers before the step, shape (C,).
            inputs: What the rule looks at.

        Returns:
            Multipliers and weights, shape (C,) each, in units of f a unit of the row.
        """
        e_C, floor_C = inputs.e_C, inputs.floor_C
        lambda_C = self.bound_weights(lambda_C, e_C, inputs.step_C, floor_C)
        if self.restart:
            lambda_C = namespace_of(e_C).where((e_C < 0) & (floor_C == 0), 0.0, lambda_C)
        if self.rho0 == 0:
            return lambda_C, lambda_C
        return lambda_C, self.bound_weights(lambda_C, e_C, inputs.rho_C, floor_C)

    def bound_weights(self, lambda_C: Array, e_C: Array, rho_C: Array, floor_C: Array) -> Array:
        """Return ``lambda + rho e`` within floor and cap.  What is cut off is forgotten: nothing winds up.

        Args:
            lambda_C: Multipliers, shape (C,).
            e_C: Violations, shape (C,).
            rho_C: Penalties or multiplier steps, shape (C,).
            floor_C: The least weight of each row, shape (C,): 0, or minus infinity.

        Returns:
            Weights, or multipliers after a step, shape (C,).
        """
        if self.cap is None:
            return bounded_weights(lambda_C, e_C, rho_C, floor_C)
        return bounded_weights(lambda_C, e_C, rho_C, floor_C.clip(min=-self.cap)).clip(max=self.cap)


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
        dead_band: Violations that move nothing, in units of the constraint.

    Raises:
        InvalidInput: A number is out of range.

    Source: Sohrabi, Ramirez, Zhang, Lacoste-Julien and Gallego-Posada 2024, algorithm 1.
    """

    name = "pi_gain"

    def __init__(
        self,
        gain: float | None = None,
        step: float | None = None,
        ema: float | None = None,
        cap: float | None = None,
        dead_band: float = 0.0,
    ) -> None:
        super().__init__(*_default_gain_and_step(gain, step), ema, cap, dead_band=dead_band, scale_free=gain is None)

    def update(self, lambda_C: Array, inputs: DualInputs) -> tuple[Array, Array]:
        """Return multipliers after the step, which are the weights too.

        Args:
            lambda_C: Multipliers before the step, shape (C,).
            inputs: What the rule looks at.

        Returns:
            Multipliers, twice, shape (C,), in units of f a unit of the row.
        """
        e_C, floor_C = inputs.e_C, inputs.floor_C
        integral_C = lambda_C + inputs.step_C * e_C
        new_C = self.bound_weights(integral_C, e_C - inputs.e_before_C, inputs.rho_C, floor_C)
        free_C = (lambda_C <= floor_C) & (e_C <= 0)  # met, and without a weight: noise is not to give it one
        new_C = namespace_of(e_C).where(free_C, lambda_C, new_C)
        return new_C, new_C


class AugmentedLagrangian(DualMethod):
    """Augmented Lagrangian with one multiplier step before every primal step.

    Args:
        rho: Penalty coefficient, in units of objective per squared unit of constraint; left out, measured, which makes
            the rule scale-free.
        step: Multiplier step, by default ``rho / 20``, so that the multiplier follows more slowly than the damping
            acts; a multiple of the measured one, by default 1, where the rule is scale-free.
        ema: See DualMethod, as all that follow.
        cap: Largest multiplier and weight.
        dead_band: Violations that move nothing, in units of the constraint.
        restart: Whether a met inequality loses its multiplier at once.

    Raises:
        InvalidInput: A number is out of range.

    Source: Hestenes 1969, Powell 1969, Rockafellar 1973.
    """

    name = "augmented_lagrangian"

    def __init__(
        self,
        rho: float | None = None,
        step: float | None = None,
        ema: float | None = None,
        cap: float | None = None,
        dead_band: float = 0.0,
        restart: bool = False,
    ) -> None:
        if rho is not None and not _is_number(rho, lambda x: x > 0):
            raise InvalidInput(
                f"`rho` of AugmentedLagrangian is {rho!r}; it must be above 0 and finite. For rho = 0 use "
                "PlainAscent()."
            )
        gain, step = _default_gain_and_step(rho, step)
        super().__init__(gain, step, ema, cap, dead_band=dead_band, restart=restart, scale_free=rho is None)


class PlainAscent(DualMethod):
    """Gradient ascent on the multipliers alone, rho = 0: simple, and it cycles on bilinear problems.

    Args:
        step: Multiplier step a unit of violation, >= 0.
        ema: See DualMethod, as all that follow.
        cap: Largest multiplier.
        dead_band: Violations that move nothing, in units of the constraint.
        restart: Whether a met inequality loses its multiplier at once (Gallego-Posada et al. 2022).

    Raises:
        InvalidInput: A number is out of range.

    Source: Arrow, Hurwicz and Uzawa 1958.
    """

    name = "plain_ascent"

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

    Minimizes one Lagrangian for good (Theorem VIII.5's mu) and promises nothing about g.

    Args:
        weight: Coefficient of each inequality, >= 0, in units of f a unit of g.

    Raises:
        InvalidInput: The weight is negative or not finite.
    """

    name = "fixed_penalty"

    def __init__(self, weight: float = 1.0) -> None:
        if not _is_number(weight, lambda x: x >= 0):
            raise InvalidInput(f"`weight` of FixedPenalty is {weight!r}; it must be at least 0 and finite.")
        super().__init__(0.0, 0.0, start=weight)


# every rule that can be built without arguments, by its name; ``describe()`` says in a line what it is
DUAL_METHODS: dict[str, type[DualMethod]] = {
    rule.name: rule for rule in (PIGain, AugmentedLagrangian, PlainAscent, FixedPenalty)
}


def _default_gain_and_step(gain: float | None, step: float | None) -> tuple[float, float]:
    """Return both, where left out by their defaults: a gain of 1 in measured units."""
    if gain is None:
        return 1.0, 1.0 if step is None else step
    if step is None:  # what is no gain is refused by the method
        step = gain / SETTINGS.integral_time if _is_number(gain, lambda _: True) else 0.0
    return gain, step


def _is_number(value: object, fits: Callable[[float], bool]) -> bool:
    """Say whether something is a finite real number, numpy's included, of the range that is wanted."""
    return isinstance(value, Real) and math.isfinite(value) and fits(float(value))
