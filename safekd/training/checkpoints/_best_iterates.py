"""The best iterates of a run, and snapshots for a mixture.  Axes: S snapshots, M constraints."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...distributed import Ranks
from .._full_pass import FullPass
from .._mixture import Mixture, find_lowest_mixture
from .._parameter_vectors import copy_state
from ..trace import FEASIBLE, ConstraintReading, TracePoint, pack_points, unpack_points

Rank = tuple[float, float]


@dataclass(frozen=True)
class Checkpoint:
    """An iterate that is kept.

    Attributes:
        rank: See ``rank_point``.
        student: Its parameters and buffers, by name.
        rule_state: State of the weighting rule, by name.
    """

    rank: Rank
    student: Mapping[str, Tensor]
    rule_state: Mapping[str, Tensor]


@dataclass(frozen=True)
class Snapshot:
    """An iterate of which a mixture may be made, in the memory of the host.

    Attributes:
        point: What was read.
        student: Its parameters and buffers, by name.
    """

    point: TracePoint
    student: Mapping[str, Tensor]

    @property
    def objectives(self) -> tuple[float, ...]:
        """The loss, and how far each constraint is below its threshold, negative where it is above."""
        readings = self.point.readings  # an equality counts on both sides, so a mixture misses it by no more than this
        return self.point.loss, *(r.violation if r.equality else r.required - r.measured for r in readings)


class BestIterates:
    """Keeps iterates: of lowest loss among feasible ones, of smallest violation, best on the validation split.

    Args:
        rule_state: Gives the state of the weighting rule, kept beside each.
        snapshots: How many iterates to keep for a mixture, those that no other dominates in loss and every safety; None
            for none.  Of too many, one goes that the best mixture of those at hand does not use, so that this never
            gets worse.
        choose: Whether the one that is best on the validation split is kept.
    """

    def __init__(
        self, rule_state: Callable[[], Mapping[str, Tensor]] = dict, snapshots: int | None = None, choose: bool = True
    ) -> None:
        self._rule_state, self._most_snapshots, self._choose = rule_state, snapshots, choose
        self._best: Checkpoint | None = None
        self._most_feasible: Checkpoint | None = None
        self._best_validated: Checkpoint | None = None
        self._copied: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None = None
        self.unimproved = 0  # evaluations since the last that was best on the validation split
        self._snapshots: list[Snapshot] = []

    def state(self) -> dict[str, Any]:
        """Return what a continued run needs."""
        checkpoints = {name: vars(one) for name, one in self._checkpoints().items() if one is not None}
        return {
            "checkpoints": checkpoints,
            "unimproved": self.unimproved,
            "points": pack_points([snapshot.point for snapshot in self._snapshots]),
            "students": [snapshot.student for snapshot in self._snapshots],
        }

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what ``state`` gave.

        Args:
            state: Of the same run.
            device: Where the checkpoints were.
        """
        kept = {
            name: Checkpoint(one["rank"], _move(one["student"], device), _move(one["rule_state"], device))
            for name, one in state["checkpoints"].items()
        }
        self._best, self._most_feasible = kept.get("best_feasible"), kept.get("most_feasible")
        self._best_validated, self.unimproved = kept.get("best_validated"), state["unimproved"]
        points = unpack_points(state["points"])
        self._snapshots = [Snapshot(*both) for both in zip(points, state["students"], strict=True)]

    def _checkpoints(self) -> dict[str, Checkpoint | None]:
        return {
            "best_feasible": self._best,
            "most_feasible": self._most_feasible,
            "best_validated": self._best_validated,
        }

    def add(self, student: nn.Module, point: TracePoint) -> None:
        """Consider one evaluated iterate.

        Args:
            student: As it was evaluated.
            point: What was read.
        """
        here = rank_point(point)
        if here[0] == math.inf:
            return
        self._copied = None
        if here[0] == 0 and (self._best is None or here < self._best.rank):
            self._best = Checkpoint(here, *self._copy(student))
        if self._most_feasible is None or here < self._most_feasible.rank:
            self._most_feasible = Checkpoint(here, *self._copy(student))
        self._add_validated(student, point)
        self._copied = None
        if self._most_snapshots is not None:
            self._add_snapshot(student, point, self._most_snapshots)

    def _copy(self, student: nn.Module) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Return a copy of the student and of the rule's state: one, however many places it takes at this point."""
        if self._copied is None:
            self._copied = copy_state(student), self._rule_state()
        return self._copied

    def add_restored(self, student: nn.Module, point: TracePoint | FullPass) -> None:
        """Consider a student that left the loss aside: it may be the most feasible, but never the best.

        Args:
            student: As it was read.
            point: What was read.
        """
        here = rank_point(point)
        if here[0] < math.inf and (self._most_feasible is None or here < self._most_feasible.rank):
            self._most_feasible = Checkpoint(here, copy_state(student), self._rule_state())

    def share_most_feasible(self, like: nn.Module, ranks: Ranks) -> None:
        """Take over what rank 0 has: restored students are looked for there alone.

        Args:
            like: The student, for its structure.
            ranks: Who trains it.
        """
        if ranks.size == 1:
            return
        rank = ranks.ask_first(lambda: None if self._most_feasible is None else self._most_feasible.rank)
        if rank is not None:
            if self._most_feasible is None or self._most_feasible.rank != rank:
                self._most_feasible = Checkpoint(rank, copy_state(like), self._rule_state())
            ranks.broadcast([*self._most_feasible.student.values()])

    def _add_validated(self, student: nn.Module, point: TracePoint) -> None:
        there = rank_validation(point) if self._choose else None
        if there is None:
            return
        self.unimproved += 1
        if there[0] < math.inf and (self._best_validated is None or there < self._best_validated.rank):
            self._best_validated, self.unimproved = Checkpoint(there, *self._copy(student)), 0

    def best_validated(self, like: nn.Module) -> nn.Module | None:
        """Return the iterate that is best on the validation split as a module of its own, or None.

        Args:
            like: The student, for its structure.
        """
        return None if self._best_validated is None else _load_copy(like, self._best_validated.student)

    def best_feasible(self, like: nn.Module) -> nn.Module | None:
        """Return the feasible iterate of lowest loss as a module of its own, or None.

        Args:
            like: The student, for its structure.
        """
        return None if self._best is None else _load_copy(like, self._best.student)

    def most_feasible(self, like: nn.Module) -> nn.Module:
        """Return the iterate of smallest violation as a module of its own.

        Args:
            like: The student, for its structure.
        """
        return _load_copy(like, copy_state(like) if self._most_feasible is None else self._most_feasible.student)

    def rule_states(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the state of the weighting rule beside each iterate that is kept, empty where it has none."""
        return {name: one.rule_state for name, one in self._checkpoints().items() if one is not None}

    def mixture(self, like: nn.Module) -> tuple[Mixture | None, str]:
        """Return the best mixture of snapshots, or None and why there is none; nothing where none was asked for.

        Args:
            like: The student, for its structure.
        """
        if self._most_snapshots is None:
            return None, ""
        if not self._snapshots:
            return None, "No evaluated student had a finite loss and finite safety, so there is nothing to mix."
        points = [snapshot.point for snapshot in self._snapshots]
        lowest = find_lowest_mixture(*self._objectives(), allowed=FEASIBLE)
        if lowest.excess > FEASIBLE:
            names = [reading.name for reading in points[0].readings]
            return None, (
                f"No mixture of {len(points)} snapshots meets every constraint: the safest is {lowest.excess:.4g} "
                f"below the threshold of '{names[lowest.worst]}'. Train longer, or lower the threshold."
            )
        used = {s: share for s, share in enumerate(lowest.weights) if share > 0}
        names = [reading.name for reading in points[0].readings]
        safety = {
            name: sum(share * points[s].readings[m].measured for s, share in used.items())
            for m, name in enumerate(names)
        }
        mixture = Mixture(
            weights=tuple(used.values()),
            steps=tuple(points[s].step for s in used),
            students=tuple(_load_copy(like, self._snapshots[s].student) for s in used),
            loss=sum(share * points[s].loss for s, share in used.items()),
            safety=safety,
            multipliers=dict(zip(names, lowest.multipliers, strict=True)),
        )
        return mixture, ""

    def _add_snapshot(self, student: nn.Module, point: TracePoint, most: int) -> None:
        objectives = Snapshot(point, {}).objectives
        if any(_dominates(other.objectives, objectives) for other in self._snapshots):
            return
        self._snapshots = [other for other in self._snapshots if not _dominates(objectives, other.objectives)]
        self._snapshots.append(Snapshot(point, {name: value.cpu() for name, value in copy_state(student).items()}))
        if len(self._snapshots) > most:
            del self._snapshots[self._spare_snapshot()]

    def _spare_snapshot(self) -> int:
        """Return which snapshot can go: of those that the best mixture does not use, the one nearest to another."""
        used = find_lowest_mixture(*self._objectives()).weights
        objective_SM = torch.tensor([snapshot.objectives for snapshot in self._snapshots], dtype=torch.float64)
        objective_SM = objective_SM / (objective_SM.amax(0) - objective_SM.amin(0)).clamp_min(1e-300)
        gap_SS = torch.cdist(objective_SM, objective_SM).fill_diagonal_(math.inf)
        gap_S = gap_SS.amin(1)
        gap_S[torch.tensor(used) > 0] = math.inf
        return int(gap_S.argmin())

    def _objectives(self) -> tuple[list[float], list[list[float]]]:
        rows = [snapshot.objectives for snapshot in self._snapshots]
        return [loss for loss, *_ in rows], [list(g) for _, *g in rows]


def _dominates(one_M: tuple[float, ...], other_M: tuple[float, ...]) -> bool:
    """Say whether one iterate is as good in everything; of two alike, the first counts."""
    return all(a <= b for a, b in zip(one_M, other_M, strict=True))


def rank_point(point: TracePoint | FullPass) -> Rank:
    """Return what makes an iterate more feasible than another where it is less: violation, 0 if small, then loss.

    Infinite where anything is not a number.

    Args:
        point: What was read.
    """
    return _rank(point.readings, point.loss)


def rank_validation(point: TracePoint) -> Rank | None:
    """Return the same of the readings on the validation split; None where there is none.

    Args:
        point: What was read.
    """
    return None if point.validation_loss is None else _rank(point.validation, point.validation_loss)


def _rank(readings: Sequence[ConstraintReading], loss: float) -> Rank:
    violations = [reading.violation for reading in readings]
    if not all(map(math.isfinite, [loss, *violations])):  # before max, which can lose a NaN
        return math.inf, math.inf
    violation = max(violations, default=0.0)
    return (0.0 if violation <= FEASIBLE else violation), loss


def _move(state: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in state.items()}


def _load_copy(like: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    module = copy.deepcopy(like)
    module.load_state_dict(state)
    return module.eval()
