"""What a sweep is asked for, checked before anything is trained."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from solvers.pareto import spread_targets
from solvers.short_repr import ShortRepr

from ..._number_checks import is_number, is_whole
from ...errors import InvalidInput
from ...training import ConstrainedTrainer

MakeTrainer = Callable[..., ConstrainedTrainer]

METHODS = ("epsilon", "mu")
_LARGEST_SEED = 2**63 - 1  # that torch takes


@dataclass(frozen=True)
class ToleranceSettings:
    """KKT residuals that runs are asked for where nobody says.  test_frontier_tilt.py and the demo would notice.

    Attributes:
        first: Tried first: free logits and other small students reach it.
        usual: What will do; nothing looser is asked for.
        factor: Between one tolerance and the next.
    """

    first: float = 1e-6
    usual: float = 1e-3
    factor: float = 10

    def round_up(self, stationarity: float) -> float:
        """Return the power of ten above a residual, at most the usual tolerance."""
        level = self.first
        while level < self.usual and not stationarity <= level:
            level *= self.factor
        return min(level, self.usual)

    def loosen(self, tolerance: float) -> float:
        """Return the next tolerance, at most the usual one."""
        return min(self.factor * tolerance, self.usual)


@dataclass(frozen=True)
class SweepSettings:
    """How many targets and runs a sweep takes.  tests/safekd/frontier/test_slice_sweep.py would notice (budget, gaps).

    Attributes:
        most_targets: Each is a training run, so more are a slip of the keyboard.
        wide_gap: What counts as a gap where nobody gave a budget, in average steps.
        fine_gap: With a budget, down to which gaps it is spent, in units of the range.
    """

    most_targets: int = 1000
    wide_gap: float = 5.0
    fine_gap: float = 0.01


SETTINGS = SweepSettings()


@dataclass(frozen=True, repr=False)
class SweepPlan(ShortRepr):
    """A sweep: its method, its thresholds, its slices.

    Attributes:
        method: "epsilon" or "mu".
        targets: The thresholds, ascending, or None where ``count`` of them are spread up to ``highest``.
        count: How many thresholds.
        highest: The tightest threshold.
        budget: Training runs of each slice and seed, or None for the default.
        seeds: (None,) where make_trainer decides.
        held: Thresholds of further constraints, one mapping a slice.
        warm: Whether runs begin where a neighbor ended.
        tolerance: Of the KKT residuals, None for as small as students get.
        notes: What was changed of the arguments.
    """

    method: str
    targets: tuple[float, ...] | None
    count: int
    highest: float
    budget: int | None
    seeds: tuple[int | None, ...]
    held: tuple[Mapping[str, float], ...]
    warm: bool
    tolerance: float | None
    notes: tuple[str, ...] = ()

    def list_targets(self, lowest: float) -> list[float]:
        """Return the thresholds, ascending; ``lowest`` is what the unconstrained student reaches."""
        if self.targets is not None:
            return list(self.targets)
        return [self.highest] if self.highest <= lowest else spread_targets(lowest, self.highest, self.count)

    def count_runs(self, thresholds: int) -> int:
        """Return how many training runs a slice may cost, the unconstrained one among them."""
        if self.budget is not None:
            return self.budget
        few = thresholds // 2 + 2
        return 1 + thresholds + few if self.method == "epsilon" else 2 * (1 + thresholds) + few

    def find_smallest_gap(self, points: int) -> float:
        """Return how far apart neighbors must lie, in units of the range, for a run to be spent between them."""
        return SETTINGS.wide_gap / max(points - 1, 1) if self.budget is None else SETTINGS.fine_gap

    def describe(self) -> dict[str, Any]:
        """Return what makes two sweeps different, as it is kept on disk."""
        return {
            "method": self.method,
            "targets": self.count if self.targets is None else list(self.targets),
            "highest": None if self.targets is not None else self.highest,
            "budget": self.budget,
            "seeds": list(self.seeds),
            "held": [dict(thresholds) for thresholds in self.held],
            "warm": self.warm,
            "tolerance": self.tolerance,
        }


def check_sweep_plan(
    make_trainer: MakeTrainer,
    *,
    method: str,
    targets: int | Sequence[float],
    highest: float,
    budget: int | None,
    seeds: Sequence[int] | None,
    held: Mapping[str, float | Sequence[float]] | None,
    warm: bool,
    tolerance: float | None,
) -> SweepPlan:
    """Return the plan that the arguments state.  Raises InvalidInput naming the first that states none."""
    if method not in METHODS:
        raise InvalidInput(
            f"`method` is {method!r}; wanted 'epsilon', the epsilon-constraint sweep, or 'mu', the sweep over weights."
        )
    if not callable(make_trainer):
        raise InvalidInput(
            f"`make_trainer` is a {type(make_trainer).__name__}; wanted a function from a threshold to a fresh "
            "kd.ConstrainedTrainer."
        )
    if budget is not None and (not is_whole(budget) or budget < 1):
        raise InvalidInput(f"`budget` is {budget!r}; wanted how many training runs at most, at least 1, or None.")
    if not isinstance(warm, bool):
        raise InvalidInput(f"`warm` is {warm!r}; wanted True, or False for runs that begin afresh.")
    if tolerance is not None and (not is_number(tolerance) or not 0 < tolerance < math.inf):
        raise InvalidInput(f"`tolerance` is {tolerance!r}; it must be above 0 and finite, for example 1e-3, or None.")
    budget = None if budget is None else int(budget)
    tolerance = None if tolerance is None else float(tolerance)
    several = _check_seeds(make_trainer, seeds)
    slices = _combine_held(held)
    if isinstance(targets, (int, np.integer)):
        most = SETTINGS.most_targets
        if not is_whole(targets) or not 2 <= targets <= most or not is_number(highest) or not 0 < highest <= 1:
            raise InvalidInput(
                f"`targets` is {targets} up to {highest!r}; wanted at least 2 targets, at most {most}, and a highest "
                "one in (0, 1]."
            )
        return SweepPlan(method, None, int(targets), float(highest), budget, several, slices, warm, tolerance)
    values, notes = _check_thresholds(targets)
    return SweepPlan(method, values, len(values), values[-1], budget, several, slices, warm, tolerance, notes)


def accepts_seed(make_trainer: MakeTrainer) -> bool:
    """Say whether a seed can be handed to it by name."""
    try:
        parameters = inspect.signature(make_trainer).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.name == "seed" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _check_thresholds(targets: Any) -> tuple[tuple[float, ...], tuple[str, ...]]:
    try:
        given = list(targets)
        if any(isinstance(value, (bool, np.bool_, str)) for value in given) or isinstance(targets, (str, Mapping)):
            raise TypeError
        values = [float(value) for value in given]
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"`targets` is {targets!r}; wanted how many, a whole number, or the thresholds, for example [0.8, 0.9]."
        ) from error
    wrong = [value for value in values if not (math.isfinite(value) and 0 < value <= 1)]
    if not values or wrong:
        problem = f"holds {wrong[0]}" if wrong else "is empty"
        raise InvalidInput(
            f"`targets` {problem}; wanted safety thresholds above 0 and at most 1, for example [0.8, 0.9, 0.95]."
        )
    once = sorted(set(values))
    most = SETTINGS.most_targets
    if len(once) > most:
        raise InvalidInput(f"`targets` holds {len(once)} thresholds, each a training run; wanted at most {most}.")
    twice = [value for value in once if values.count(value) > 1]
    return tuple(once), tuple(f"target {value:g} was given more than once and has one row" for value in twice)


def _check_seeds(make_trainer: MakeTrainer, seeds: Sequence[int] | None) -> tuple[int | None, ...]:
    if seeds is None:
        return (None,)
    listed = list(seeds) if isinstance(seeds, (list, tuple, range, np.ndarray)) else []
    if not listed or not all(is_whole(s) and 0 <= s <= _LARGEST_SEED for s in listed) or len(set(listed)) < len(listed):
        raise InvalidInput(f"`seeds` is {seeds!r}; wanted different whole numbers from 0, for example [0, 1, 2].")
    listed = [int(s) for s in listed]
    if not accepts_seed(make_trainer):
        raise InvalidInput(
            f"`seeds` is {listed}, but make_trainer takes no `seed`; let it, as in def make_trainer(threshold, seed), "
            "and have student, batches and whatever else is drawn follow from it."
        )
    return tuple(listed)


def _combine_held(held: Mapping[str, float | Sequence[float]] | None) -> tuple[Mapping[str, float], ...]:
    if held is None:
        return ({},)
    if not isinstance(held, Mapping):
        raise InvalidInput(f"`held` is {held!r}; wanted thresholds by constraint, such as {{'recall': [0.8, 0.9]}}.")
    axes = []
    for name, values in held.items():
        several: list[Any] = list(values) if isinstance(values, (list, tuple, range, np.ndarray)) else [values]
        wrong = [v for v in several if not is_number(v) or not 0 < v <= 1]
        if not several or wrong:
            problem = f"holds {wrong[0]!r}" if wrong else "is empty"
            raise InvalidInput(f"`held` of '{name}' {problem}; wanted thresholds above 0 and at most 1.")
        axes.append([(str(name), float(value)) for value in sorted(set(several))])
    return tuple(dict(combination) for combination in itertools.product(*axes))
