"""Contenders that take steps inside a training loop: what a step is, and ours.

A contender is built on a problem's parameters and steps; between steps the judge reads parameters and multipliers.
All of them use the primal optimizer of the problem, as Cooper's documentation recommends (the one that one would use
without constraints), and all see the same stream of samples.  Their dual learning rate is their documented one times
``scale``; the grid tries the scales of ``SCALES``.
Axes: M inequalities, E equalities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from solvers import primal_dual
from solvers.primal_dual import DUAL_METHODS, DualMethod, FixedPenalty, PrimalDual

from ._problems import Problem

SCALES = (1.0, 0.1, 10.0)  # the documented setting first


class Walker(Protocol):
    """Something that steps.  cost: evaluations of f, g, h with gradients that one step takes."""

    cost: int

    def step(self) -> None:
        """Move the parameters and the multipliers once."""

    def multipliers(self) -> tuple[Tensor, Tensor]:
        """Return lambda (M,) and mu (E,) as they are now."""


Scale = Any  # a factor of the dual learning rate, the coefficient of a penalty, or a tuple of settings
Build = Callable[[Problem, Sequence[Tensor], Scale], Walker]


@dataclass(frozen=True)
class Contender:
    """Who, how it is built, its settings in words, where they come from, and what pip installs.

    grid: whether its dual learning rate is tried at all SCALES, or at the documented value alone.
    families: where it takes part; empty for everywhere.
    """

    name: str
    build: Build
    settings: str
    source: str
    package: str = ""
    grid: bool = True
    families: tuple[str, ...] = ()
    scales: tuple[Scale, ...] = SCALES

    def takes(self, problem: Problem) -> bool:
        """Tell whether it takes part in a problem."""
        return not self.families or problem.family in self.families


class _Ours:
    """``PrimalDual`` in a loop."""

    cost = 1

    def __init__(self, problem: Problem, x: Sequence[Tensor], method: DualMethod | None) -> None:
        self.x = x
        self.engine = PrimalDual(problem.M, problem.E, method=method)
        self.optimizer, self.samples = problem.optimizer(x), problem.stream()

    def step(self) -> None:
        sample = next(self.samples)
        named: dict[str, Any] = {"present": sample.present_M} if sample.present_M is not None else {}

        def evaluate() -> dict[str, Any]:
            values = sample.evaluate(self.x)
            return named | dict(zip(("objective", "inequality", "equality"), values, strict=True))

        self.engine.step_with(evaluate, self.optimizer)

    def multipliers(self) -> tuple[Tensor, Tensor]:
        return self.engine.multipliers, self.engine.equality_multipliers


def ours(method: str | None) -> Build:
    """Return how ``PrimalDual`` is built, with a method by its name, or at its own default."""

    def build(problem: Problem, x: Sequence[Tensor], scale: Scale) -> Walker:
        return _Ours(problem, x, None if method is None else getattr(primal_dual, method)())

    return build


# methods of ``solvers.primal_dual`` that move multipliers, each at its defaults
OUR_METHODS = tuple(rule.__name__ for rule in DUAL_METHODS.values() if rule is not FixedPenalty)

OURS = [
    Contender(f"ours, {name}", ours(name), f"PrimalDual, {name}(), one setting everywhere", "default", grid=False)
    for name in OUR_METHODS
]


class _Penalty:
    """``f`` plus a penalty whose coefficient is set by hand and stays."""

    cost = 1

    def __init__(self, problem: Problem, x: Sequence[Tensor], weight: float, linear: bool) -> None:
        self.problem, self.x, self.weight, self.linear = problem, x, weight, linear
        self.optimizer, self.samples = problem.optimizer(x), problem.stream()

    def step(self) -> None:
        f, g_M, h_E = next(self.samples).evaluate(self.x)
        if self.linear:
            loss = f + self.weight * g_M.sum()
        else:
            loss = f + 0.5 * self.weight * ((g_M.clamp_min(0) ** 2).sum() + (h_E**2).sum())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def multipliers(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            _, g_M, h_E = self.problem.evaluate(self.x)
        if self.linear:
            return torch.full_like(g_M, self.weight), self.weight * h_E
        return self.weight * g_M.clamp_min(0), self.weight * h_E


def _penalty(linear: bool) -> Build:
    return lambda problem, x, scale: _Penalty(problem, x, scale, linear)


PENALTIES = [
    Contender(
        "fixed penalty, quadratic",
        _penalty(False),
        "f + c/2 |max(g, 0)|^2 + c/2 |h|^2, c = 100; grid 1 to 10,000; its multipliers are c max(g, 0) and c h",
        "the gradient of the penalty",
        scales=(100.0, 1.0, 10.0, 1000.0, 10000.0),
    ),
    Contender(
        "fixed penalty, linear",
        _penalty(True),
        "f + c g, c = 1; grid 0.1 to 10; c is its multiplier",
        "what the demo compares with",
        families=("distillation",),
        scales=(1.0, 0.1, 0.3, 3.0, 10.0),
    ),
]
