"""How high each constraint must be posed so that students meet it on examples that they did not see.

Students of the folds are trained on all folds but one, each afresh, under the same thresholds, and read on the one left
out.  What is sought is, for each constraint by itself, the lowest threshold at which a lower bound on the average of
those readings reaches what was asked for.  Axes: N examples, n covered examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...data import Split
from ...errors import InvalidInput
from ...safety import ClusteredValues, Constraint, evaluate_groups
from .._fit_result import FitResult
from ._fold_assignment import assign_folds
from ._round_outcomes import HeldOutReading, TrainedRound
from ._tightening_rounds import TighteningRounds

_Attempt = tuple[float, float]  # (share, shortfall there, in shares; at most 0 where it cleared)


@dataclass(frozen=True)
class SearchSettings:
    """Numbers of the search.

    Attributes:
        first_gain: What raising a threshold by a share takes off the shortfall, until two rounds have shown it; below
            1, since what is gained on training examples carries over to new ones only in part (0.45 to 1 on the tasks
            of ``benchmarks.generalization``).
        least_gain: Least that two rounds may show.
        most_gain: Most that two rounds may show.
        least_step: Share, so that a search that has stalled moves on.
        inside: How far from the ends of a bracket the next share must be, as a part of it.
        trusted: A bracket this many times ``excess`` wide, bound to bound, is not tried further but interpolated.
    """

    first_gain: float = 0.6
    least_gain: float = 0.25
    most_gain: float = 1.0
    least_step: float = 0.02
    inside: float = 0.1
    trusted: float = 10.0


class Bracket:
    """What is known of one constraint: the highest share that failed, and the lowest that cleared.

    Args:
        settings: Numbers of the search.
    """

    def __init__(self, settings: SearchSettings) -> None:
        self._settings, self._gain = settings, settings.first_gain
        self.failed: _Attempt | None = None
        self.cleared: _Attempt | None = None

    def add(self, share: float, shortfall: float) -> None:
        """Take note of one attempt; of two that contradict each other, the older is forgotten.

        Args:
            share: Of its threshold.
            shortfall: By what share it missed; at most 0 where it cleared.
        """
        limits = self._settings
        if shortfall <= 0:
            if self.failed is not None and self.failed[0] >= share:
                self.failed = None
            self.cleared = (share, shortfall)
            return
        if self.cleared is not None and self.cleared[0] <= share:
            self.cleared = None
        if self.failed is not None and share > self.failed[0]:
            gain = (self.failed[1] - shortfall) / (share - self.failed[0])
            self._gain = min(max(gain, limits.least_gain), limits.most_gain)
        self.failed = (share, shortfall)

    @property
    def trusted(self) -> float:
        """See SearchSettings."""
        return self._settings.trusted

    @property
    def width(self) -> float:
        """By how many shares the shortfalls of the two ends differ; infinite where one is missing."""
        if self.failed is None or self.cleared is None:
            return math.inf
        return self.failed[1] - self.cleared[1]

    def next_share(self) -> float:
        """Return the share to try next."""
        limits = self._settings
        if self.failed is None:
            return self.cleared[0] / 2 if self.cleared is not None else 0.0
        if self.cleared is None:
            return min(1.0, self.failed[0] + max(self.failed[1] / self._gain, limits.least_step))
        low, high = self.failed[0], self.cleared[0]
        margin = limits.inside * (high - low)
        return min(max(self._root(self.failed, self.cleared), low + margin), high - margin)

    def interpolate(self, slack: float) -> tuple[float, bool]:
        """Return the share to pose at, by interpolation, and whether it was shown to clear.

        Args:
            slack: A shortfall up to this, in shares, is made up for by one small step that is not tried.
        """
        if self.failed is None:
            return (self.cleared[0], True) if self.cleared is not None else (0.0, False)
        if self.cleared is not None:
            return self._root(self.failed, self.cleared), True
        share = self.failed[0] + self.failed[1] / self._gain
        return (share, True) if self.failed[1] <= slack and share <= 1 else (self.failed[0], False)

    @staticmethod
    def _root(failed: _Attempt, cleared: _Attempt) -> float:
        return failed[0] + (cleared[0] - failed[0]) * failed[1] / (failed[1] - cleared[1])


@dataclass(frozen=True)
class FoldSearchResult:
    """What a search found.

    Attributes:
        shares: Where to pose each constraint.
        cleared: Whether it was shown to clear there.
        rounds: How many were trained.
    """

    shares: dict[int, float]
    cleared: dict[int, bool]
    rounds: int


class FoldSearch:
    """One search; see the module.

    Args:
        rounds: Trains, and keeps the account; its ``raised`` constraints must be posed on the training split.
        folds: How many students a round.
        most: How many rounds at most.
        confidence: Of the lower bound, in (0, 1); 0.5 for the average itself.
        excess: A bound this near to what was asked for, on either side, ends the search for that constraint.
        also: Splits whose examples count like those of the left-out folds, each read by all students of the folds.
        constraints: Which to search for, numbers of the problem's constraints.
    """

    def __init__(
        self,
        rounds: TighteningRounds,
        folds: int,
        most: int,
        confidence: float,
        excess: float,
        also: Sequence[Split],
        constraints: Sequence[int],
    ) -> None:
        self.rounds, self.most, self.confidence, self.excess, self.also = rounds, most, confidence, excess, also
        self.constraints, self.trained = list(constraints), 0
        for m in self.constraints:
            if rounds.asked[m].split != "train":
                raise InvalidInput(
                    f"Constraint '{rounds.asked[m].name}' is posed on split '{rounds.asked[m].split}'; only one posed "
                    "on 'train' can be cross-fitted. Name the others in `constraints`."
                )
        train = rounds.data.require_split("train", "Cross-fitting")
        if len(train) < folds:
            raise InvalidInput(f"{len(train)} examples cannot make {folds} folds; take fewer folds.")
        covered = [rounds.asked[m] for m in self.constraints]
        fold_N = assign_folds(train, folds, rounds.problem.seed, covered)
        everything = torch.arange(len(train), device=train.device)
        self.parts = [(train.part(everything[fold_N != k]), train.part(everything[fold_N == k])) for k in range(folds)]

    def run(self) -> FoldSearchResult:
        """Search, round by round."""
        brackets = {m: Bracket(SearchSettings()) for m in self.constraints}
        shares = self.rounds.as_asked
        for _ in range(self.most):
            shown, reached = self._round(shares)
            if not shown:
                break
            for m, bracket in brackets.items():
                gap = self.rounds.shortfall(m, shown[m].bound)
                # training may exceed what it is asked for: thresholds below that are all alike
                bracket.add(min(max(shares[m], reached[m]), 1.0) if gap > 0 else shares[m], gap)
            settled = {
                m: self._is_settled(m, shares[m], shown[m].bound) or bracket.width <= bracket.trusted * self._slack(m)
                for m, bracket in brackets.items()
            }
            if all(settled.values()):
                break
            shares = {m: shares[m] if settled.get(m, True) else brackets[m].next_share() for m in shares}
        answers = {m: bracket.interpolate(self._slack(m)) for m, bracket in brackets.items()}
        shares = self.rounds.as_asked | {m: share for m, (share, _) in answers.items()}
        return FoldSearchResult(shares, {m: cleared for m, (_, cleared) in answers.items()}, self.trained)

    def _is_settled(self, m: int, share: float, bound: float) -> bool:
        asked = self.rounds.asked[m].required
        return abs(bound - asked) <= self.excess or (bound >= asked and share == 0) or (bound < asked and share == 1)

    def _slack(self, m: int) -> float:
        """Return ``excess`` in shares."""
        return self.rounds.shortfall(m, self.rounds.asked[m].required - self.excess)

    def _round(self, shares: dict[int, float]) -> tuple[dict[int, HeldOutReading], dict[int, float]]:
        """Train each fold's student; return what they show, nothing if one diverged, and what training reached."""
        self.trained += 1
        name = f"round {self.trained}"
        outcome = self.rounds.once(name, lambda: self._train_round(name, shares))
        shown = {m: HeldOutReading(**reading) for m, reading in outcome["shown"].items()}
        return shown, {m: -self.rounds.shortfall(m, outcome["measured"][m]) for m in self.constraints}

    def _train_round(self, name: str, shares: dict[int, float]) -> dict[str, Any]:
        rounds = self.rounds
        folds = [
            rounds.once(f"{name}/fold {k}", lambda parts=parts: self._train_fold(shares, *parts))  # type: ignore[misc]
            for k, parts in enumerate(self.parts)
        ]
        statuses = sorted({fold["status"] for fold in folds})
        measured = {m: sum(fold["measured"][m] for fold in folds) / len(folds) for m in folds[0]["measured"]}
        shown = {} if "diverged" in statuses else {m: self._judge(m, folds) for m in self.constraints}
        trained = TrainedRound(
            ", ".join(statuses),
            sum(fold["loss"] for fold in folds) / len(folds),
            sum(fold["steps"] for fold in folds),
            measured,
        )
        cleared = {m: reading.bound >= rounds.asked[m].required for m, reading in shown.items()}
        rounds.note(shares, trained, shown, cleared=cleared, looks=self.trained if self.also else 0)
        return {"shown": {m: vars(reading) for m, reading in shown.items()}, "measured": measured}

    def _train_fold(self, shares: dict[int, float], rest: Split, left_out: Split) -> dict[str, Any]:
        """Train one student; return what it came to, and each value that it shows on examples that it did not see."""
        rounds = self.rounds
        rounds.restart()  # never from the student of another fold, which has seen this one
        result = rounds.fit(shares, None, rest, read_validation=False)
        known = [] if result.status == "diverged" else [left_out, *self.also]
        shown = {
            m: [vars(_measure_values(result, rounds.asked[m], split)) for split in known] for m in self.constraints
        }
        return {**vars(TrainedRound.of_result(result)), "shown": shown}

    def _judge(self, m: int, folds: Sequence[Mapping[str, Any]]) -> HeldOutReading:
        """Pool what each left-out example shows, and what further examples show on average over students."""
        asked = self.rounds.asked[m]
        shown = [[ClusteredValues(**values) for values in fold["shown"][m]] for fold in folds]
        values, others = [one for one, *_ in shown], [further for _, *further in shown]
        further = [
            replace(same[0], value_P=torch.stack([read.value_P for read in same]).mean(0))
            for same in zip(*others, strict=True)
        ]
        pooled = ClusteredValues.concatenate([*values, *further])
        if pooled.clusters < 2:
            raise InvalidInput(
                f"Constraint '{asked.name}' covers {pooled.clusters} independent examples of all folds; wanted at "
                "least 2, and some hundred for a bound that is near the average."
            )
        ((_, average),) = asked.parts
        bound = pooled.approximate_bound(average.measure, self.confidence)
        return HeldOutReading(pooled.mean, len(pooled.value_P), bound, self.confidence)


def _measure_values(result: FitResult, asked: Constraint, split: Split) -> ClusteredValues:
    (values,) = evaluate_groups(
        result.student, asked, split
    )  # one average without groups, by ``TighteningRounds.choose``
    return values
