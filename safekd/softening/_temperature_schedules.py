"""How a temperature moves over the steps of a run.  Axes: S steps.

A conforming schedule stays within bounds, moves one way only, and by no more than so much a step: then what a student
is asked to learn changes slowly, and no distribution is softened beyond what was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from .._number_checks import is_whole
from .._operator_audit import AxiomFinding, OperatorAudit
from ..divergences import require_temperature
from ..errors import InvalidInput

Schedule = Callable[[int], float]
Shape = Literal["linear", "geometric", "cosine"]
_SHAPES = ("linear", "geometric", "cosine")


@dataclass(frozen=True)
class TemperatureSchedule:
    """A temperature that goes from one number to another in so many steps, and stays there; conforming by its form.

    Attributes:
        start: At step 0.
        end: From step ``steps`` on.
        steps: How many optimizer steps it takes, at least 1; fewer than the run has, so that it ends on a target that
            stands still.
        shape: "linear"; "geometric", by the same factor each step; or "cosine", slowly at both ends.

    Raises:
        InvalidInput: A number is none, or there is no such shape.

    >>> schedule = TemperatureSchedule(4.0, 1.0, steps=3)
    >>> [schedule(step) for step in (0, 1, 2, 3, 100)]
    [4.0, 3.0, 2.0, 1.0, 1.0]
    """

    start: float
    end: float
    steps: int
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        require_temperature(self.start)
        require_temperature(self.end)
        if not is_whole(self.steps) or self.steps < 1:
            raise InvalidInput(f"`steps` is {self.steps!r}; wanted a whole number of optimizer steps, at least 1.")
        if self.shape not in _SHAPES:
            raise InvalidInput(f"`shape` is {self.shape!r}; wanted 'linear', 'geometric' or 'cosine'.")

    def __call__(self, step: int) -> float:
        """Return the temperature after so many steps.

        Args:
            step: From 0.
        """
        share = min(max(step, 0), self.steps) / self.steps
        if share in (0, 1):
            return float(self.end if share else self.start)
        if self.shape == "geometric":
            return float(self.start * (self.end / self.start) ** share)
        share = (1 - math.cos(math.pi * share)) / 2 if self.shape == "cosine" else share
        return float(self.start + (self.end - self.start) * share)

    @property
    def most_change(self) -> float:
        """By how much it moves in a step at most: its Lipschitz constant."""
        gap = abs(self.end - self.start)
        if self.shape == "geometric":
            high, low = max(self.start, self.end), min(self.start, self.end)
            return float(high * -math.expm1(-math.log(high / low) / self.steps))
        return float(gap * math.sin(math.pi / (2 * self.steps)) if self.shape == "cosine" else gap / self.steps)


def audit_schedule(
    schedule: Schedule, steps: int, *, lowest: float = 0.25, highest: float = 20.0, most_change: float = 0.1
) -> OperatorAudit:
    """Judge a schedule over a run: whether it stays within bounds, moves one way, and moves slowly.

    Args:
        schedule: From the number of a step, from 0, to a temperature: a ``TemperatureSchedule``, or your own function.
        steps: How many steps the run has.
        lowest: Smallest temperature that is asked for.
        highest: Largest.
        most_change: By how much it may move in a step.

    Returns:
        A printable report with the step of the worst violation.

    Raises:
        InvalidInput: A number is none, or the schedule gives none.
    """
    if not is_whole(steps) or steps < 1:
        raise InvalidInput(f"`steps` is {steps!r}; wanted how many optimizer steps the run has, at least 1.")
    T_S = [require_temperature(schedule(step)) for step in range(steps + 1)]
    moves = [after - before for before, after in pairwise(T_S)]
    outside = [max(lowest - T, T - highest, 0.0) for T in T_S]
    direction = math.copysign(1.0, T_S[-1] - T_S[0])
    back = [max(-direction * move, 0.0) for move in moves]
    sizes = [max(abs(move) - most_change, 0.0) for move in moves]

    def find(axiom: str, misses: list[float], evidence: str) -> AxiomFinding:
        worst, rounding = max(misses), 1e-12 * max(T_S)
        if worst <= rounding:
            return AxiomFinding(axiom, "holds", 0.0, evidence)
        step = misses.index(worst)
        example = {"step": step, "temperature": T_S[step], "at the next step": T_S[min(step + 1, steps)]}
        return AxiomFinding(axiom, "violated", worst, evidence, example)

    findings = (
        find("bounds", outside, f"farthest beyond {lowest:g} to {highest:g}"),
        find("monotone", back, "largest move against the way from start to end"),
        find("lipschitz", sizes, f"largest move in a step beyond {most_change:g}"),
    )
    return OperatorAudit(f"{schedule!r} over {steps} steps", findings)
