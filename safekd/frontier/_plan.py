"""What a sweep is asked for, checked before anything is trained."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._number_checks import is_number, is_whole
from ..errors import InvalidInput
from ..training import ConstrainedTrainer

MakeTrainer = Callable[..., ConstrainedTrainer]

METHODS = ("epsilon", "mu")
EXACT, USUAL = 1e-6, 1e-3  # residuals that are asked for first, and what will do
_FINE = 0.01  # of the range: what a budget of one's own is spent on, down to gaps this wide
_MOST = 1000  # targets: each is a training run, so more are a slip of the keyboard
_LARGEST_SEED = 2**63 - 1  # that torch takes
_WIDE = 5.0  # average steps: what counts as a gap where none was asked for


@dataclass(frozen=True)
class Plan:
    """A sweep: its method, its thresholds, its slices.

    targets: the thresholds, ascending, or None where ``count`` of them are spread up to ``highest``.  budget: training
    runs of each slice and seed, or None for the default.  seeds: (None,) where make_trainer decides.  held: thresholds
    of further constraints, one mapping a slice.  warm: whether runs begin where a neighbour ended.  tolerance: of
    residuals, None for as small as students get.
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

    def grid(self, lowest: float) -> list[float]:
        """Return the thresholds, ascending; ``lowest`` is what the unconstrained student reaches."""
        if self.targets is not None:
            return list(self.targets)
        if self.highest <= lowest:
            return [self.highest]
        values: list[float] = np.linspace(lowest, self.highest, self.count).tolist()
        return values

    def runs(self, thresholds: int) -> int:
        """Return how many training runs a slice may cost, the unconstrained one among them."""
        if self.budget is not None:
            return self.budget
        few = thresholds // 2 + 2
        return 1 + thresholds + few if self.method == "epsilon" else 2 * (1 + thresholds) + few

    def smallest_gap(self, points: int) -> float:
        """Return how far apart neighbours must lie, in units of the range, for a run to be spent between them."""
        return _WIDE / max(points - 1, 1) if self.budget is None else _FINE

    def record(self) -> dict[str, Any]:
        """Return what makes two sweeps different, as it is kept on disk."""
        asked = self.count if self.targets is None else list(self.targets)
        return {
            "method": self.method,
            "targets": asked,
            "highest": None if self.targets is not None else self.highest,
            "budget": self.budget,
            "seeds": list(self.seeds),
            "held": [dict(slice_) for slice_ in self.held],
            "warm": self.warm,
            "tolerance": self.tolerance,
        }


def checked_plan(
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
) -> Plan:
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
    several = _seeds(make_trainer, seeds)
    slices = _slices(held)
    if isinstance(targets, (int, np.integer)):
        if not is_whole(targets) or not 2 <= targets <= _MOST or not is_number(highest) or not 0 < highest <= 1:
            raise InvalidInput(
                f"`targets` is {targets} up to {highest!r}; wanted at least 2 targets, at most {_MOST}, and a highest "
                "one in (0, 1]."
            )
        return Plan(method, None, int(targets), float(highest), budget, several, slices, warm, tolerance)
    values, notes = _thresholds(targets)
    return Plan(method, values, len(values), values[-1], budget, several, slices, warm, tolerance, notes)


def accepts_seed(make_trainer: MakeTrainer) -> bool:
    """Say whether a seed can be handed to it by name."""
    try:
        parameters = inspect.signature(make_trainer).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.name == "seed" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _thresholds(targets: Any) -> tuple[tuple[float, ...], tuple[str, ...]]:
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
        found = f"holds {wrong[0]}" if wrong else "is empty"
        raise InvalidInput(
            f"`targets` {found}; wanted safety thresholds above 0 and at most 1, for example [0.8, 0.9, 0.95]."
        )
    once = sorted(set(values))
    if len(once) > _MOST:
        raise InvalidInput(f"`targets` holds {len(once)} thresholds, each a training run; wanted at most {_MOST}.")
    twice = [value for value in once if values.count(value) > 1]
    return tuple(once), tuple(f"target {value:g} was given more than once and has one row" for value in twice)


def _seeds(make_trainer: MakeTrainer, seeds: Sequence[int] | None) -> tuple[int | None, ...]:
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


def _slices(held: Mapping[str, float | Sequence[float]] | None) -> tuple[Mapping[str, float], ...]:
    if held is None:
        return ({},)
    if not isinstance(held, Mapping):
        raise InvalidInput(f"`held` is {held!r}; wanted thresholds by constraint, such as {{'recall': [0.8, 0.9]}}.")
    axes = []
    for name, values in held.items():
        several: list[Any] = list(values) if isinstance(values, (list, tuple, range, np.ndarray)) else [values]
        wrong = [v for v in several if not is_number(v) or not 0 < v <= 1]
        if not several or wrong:
            found = f"holds {wrong[0]!r}" if wrong else "is empty"
            raise InvalidInput(f"`held` of '{name}' {found}; wanted thresholds above 0 and at most 1.")
        axes.append([(str(name), float(value)) for value in sorted(set(several))])
    return tuple(dict(combination) for combination in itertools.product(*axes))
