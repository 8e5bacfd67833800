"""Keeps the best iterates of a run.  Axes: S snapshots, M constraints."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ._mixture import Mixture, lowest_mixture
from ._objective import FullPass
from ._result import FEASIBLE
from .trace import TracePoint

Rank = tuple[float, float]


@dataclass(frozen=True)
class Kept:
    """An iterate: where it stands, the student's parameters and buffers, and the state of the weighting rule."""

    rank: Rank
    student: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class Snapshot:
    """An iterate of which a mixture may be made, in the memory of the host."""

    point: TracePoint
    student: Mapping[str, Tensor]

    @property
    def place(self) -> tuple[float, ...]:
        """The loss, and how far each constraint is below its threshold, negative where it is above."""
        readings = self.point.readings  # an equality counts on both sides, so a mixture misses it by no more than this
        return self.point.loss, *(r.violation if r.equality else r.required - r.measured for r in readings)


class Keeper:
    """Remembers the evaluated iterate of lowest loss among feasible ones, and the one of smallest violation.

    weights: gives the state of the weighting rule, kept beside each.  snapshots: how many iterates to keep for a
    mixture, those that no other beats in loss and every safety; None for none.  Of too many, one goes that the best
    mixture of those at hand does not use, so that this never gets worse.
    """

    def __init__(self, weights: Callable[[], Mapping[str, Tensor]] = dict, snapshots: int | None = None) -> None:
        self._weights, self._most_snapshots = weights, snapshots
        self._best: Kept | None = None
        self._most: Kept | None = None
        self._snapshots: list[Snapshot] = []

    def see(self, student: nn.Module, point: TracePoint) -> None:
        """Consider one evaluated iterate."""
        here = rank(point)
        if here[0] == math.inf:
            return
        if here[0] == 0 and (self._best is None or here < self._best.rank):
            self._best = Kept(here, copied_state(student), self._weights())
        self.see_restored(student, point)
        if self._most_snapshots is not None:
            self._snap(student, point, self._most_snapshots)

    def see_restored(self, student: nn.Module, point: TracePoint | FullPass) -> None:
        """Consider a student that left the loss aside: it may be the most feasible, but never the best."""
        here = rank(point)
        if here[0] < math.inf and (self._most is None or here < self._most.rank):
            self._most = Kept(here, copied_state(student), self._weights())

    def best_feasible(self, like: nn.Module) -> nn.Module | None:
        """Return the feasible iterate of lowest loss as a module of its own, or None."""
        return None if self._best is None else _restored(like, self._best.student)

    def most_feasible(self, like: nn.Module) -> nn.Module:
        """Return the iterate of smallest violation as a module of its own."""
        return _restored(like, copied_state(like) if self._most is None else self._most.student)

    def rule_states(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the state of the weighting rule beside each iterate that is kept, empty where it has none."""
        kept = {"best_feasible": self._best, "most_feasible": self._most}
        return {name: one.weights for name, one in kept.items() if one is not None}

    def mixture(self, like: nn.Module) -> tuple[Mixture | None, str]:
        """Return the best mixture of snapshots, or None and why there is none; nothing where none was asked for."""
        if self._most_snapshots is None:
            return None, ""
        if not self._snapshots:
            return None, "No evaluated student had a finite loss and finite safety, so there is nothing to mix."
        points = [snapshot.point for snapshot in self._snapshots]
        found = lowest_mixture(*self._places(), allowed=FEASIBLE)
        if found.excess > FEASIBLE:
            names = [reading.name for reading in points[0].readings]
            return None, (
                f"No mixture of {len(points)} snapshots meets every constraint: the safest is {found.excess:.4g} below "
                f"the threshold of '{names[found.worst]}'. Train longer, or lower the threshold."
            )
        used = {s: share for s, share in enumerate(found.weights) if share > 0}
        names = [reading.name for reading in points[0].readings]
        safety = {
            name: sum(share * points[s].readings[m].measured for s, share in used.items())
            for m, name in enumerate(names)
        }
        mixture = Mixture(
            weights=tuple(used.values()),
            steps=tuple(points[s].step for s in used),
            students=tuple(_restored(like, self._snapshots[s].student) for s in used),
            loss=sum(share * points[s].loss for s, share in used.items()),
            safety=safety,
            multipliers=dict(zip(names, found.multipliers, strict=True)),
        )
        return mixture, ""

    def _snap(self, student: nn.Module, point: TracePoint, most: int) -> None:
        place = Snapshot(point, {}).place
        if any(_beats(other.place, place) for other in self._snapshots):
            return
        self._snapshots = [other for other in self._snapshots if not _beats(place, other.place)]
        self._snapshots.append(Snapshot(point, {name: value.cpu() for name, value in copied_state(student).items()}))
        if len(self._snapshots) > most:
            del self._snapshots[self._spare()]

    def _spare(self) -> int:
        """Return which snapshot can go: of those that the best mixture does not use, the one nearest to another."""
        used = lowest_mixture(*self._places()).weights
        place_SM = torch.tensor([snapshot.place for snapshot in self._snapshots], dtype=torch.float64)
        place_SM = place_SM / (place_SM.amax(0) - place_SM.amin(0)).clamp_min(1e-300)
        gap_SS = torch.cdist(place_SM, place_SM).fill_diagonal_(math.inf)
        gap_S = gap_SS.amin(1)
        gap_S[torch.tensor(used) > 0] = math.inf
        return int(gap_S.argmin())

    def _places(self) -> tuple[list[float], list[list[float]]]:
        places = [snapshot.place for snapshot in self._snapshots]
        return [loss for loss, *_ in places], [list(g) for _, *g in places]


def _beats(one_M: tuple[float, ...], other_M: tuple[float, ...]) -> bool:
    """Say whether one iterate is as good in everything; of two alike, the first counts."""
    return all(a <= b for a, b in zip(one_M, other_M, strict=True))


def rank(point: TracePoint | FullPass) -> tuple[float, float]:
    """Return what makes an iterate more feasible than another where it is less: violation, 0 if small, then loss.

    Infinite where anything is not a number.
    """
    violations = [reading.violation for reading in point.readings]
    if not all(map(math.isfinite, [point.loss, *violations])):  # before max, which can lose a NaN
        return math.inf, math.inf
    violation = max(violations, default=0.0)
    return (0.0 if violation <= FEASIBLE else violation), point.loss


def copied_state(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of a module's parameters and buffers, by name."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _restored(like: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    module = copy.deepcopy(like)
    module.load_state_dict(state)
    return module
