"""How high each constraint must be posed so that students meet it on examples that they did not see.

Students of the folds are trained on all folds but one, each afresh, under the same thresholds, and read on the one left
out.  What is sought is, for each constraint by itself, the lowest threshold at which a lower bound on the average of
those readings reaches what was asked for.  Axes: N examples, n covered examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data import Split
from ..errors import InvalidInput
from ..safety import Constraint, clopper_pearson_lower_bound, evaluate_groups, skew_adjusted_t_lower_bound
from ._result import FitResult
from ._rounds import Judged, Rounds

_Attempt = tuple[float, float]  # (place, shortfall there, in places; at most 0 where it cleared)


@dataclass(frozen=True)
class SearchSettings:
    """Numbers of the search.

    first_gain: what raising a threshold by one place takes off the shortfall, until two rounds have shown it; below 1,
        since what is gained on training examples carries over to new ones only in part (0.45 to 1 on the tasks of
        ``benchmarks.generalization``).  least_gain, most_gain: limits of what two rounds may show.  least_step: places,
        so that a search that has stalled moves on.  inside: how far from the ends of a bracket the next place must be.
        trusted: a bracket this many times ``excess`` wide, bound to bound, is not tried further but interpolated.
    """

    first_gain: float = 0.6
    least_gain: float = 0.25
    most_gain: float = 1.0
    least_step: float = 0.02
    inside: float = 0.1
    trusted: float = 10.0


class Bracket:
    """What is known of one constraint: the highest place that failed, and the lowest that cleared."""

    def __init__(self, settings: SearchSettings) -> None:
        self._settings, self._gain = settings, settings.first_gain
        self.failed: _Attempt | None = None
        self.cleared: _Attempt | None = None

    def add(self, place: float, shortfall: float) -> None:
        """Take note of one attempt; of two that contradict each other, the older is forgotten."""
        limits = self._settings
        if shortfall <= 0:
            if self.failed is not None and self.failed[0] >= place:
                self.failed = None
            self.cleared = (place, shortfall)
            return
        if self.cleared is not None and self.cleared[0] <= place:
            self.cleared = None
        if self.failed is not None and place > self.failed[0]:
            gain = (self.failed[1] - shortfall) / (place - self.failed[0])
            self._gain = min(max(gain, limits.least_gain), limits.most_gain)
        self.failed = (place, shortfall)

    @property
    def trusted(self) -> float:
        """See SearchSettings."""
        return self._settings.trusted

    @property
    def width(self) -> float:
        """By how many places the shortfalls of the two ends differ; infinite where one is missing."""
        if self.failed is None or self.cleared is None:
            return math.inf
        return self.failed[1] - self.cleared[1]

    def next(self) -> float:
        """Return the place to try next."""
        limits = self._settings
        if self.failed is None:
            return self.cleared[0] / 2 if self.cleared is not None else 0.0
        if self.cleared is None:
            return min(1.0, self.failed[0] + max(self.failed[1] / self._gain, limits.least_step))
        low, high = self.failed[0], self.cleared[0]
        margin = limits.inside * (high - low)
        return min(max(self._root(self.failed, self.cleared), low + margin), high - margin)

    def answer(self, slack: float) -> tuple[float, bool]:
        """Return the place to pose at, by interpolation, and whether it was shown to clear.

        slack: a shortfall up to this, in places, is made up for by one small step that is not tried.
        """
        if self.failed is None:
            return (self.cleared[0], True) if self.cleared is not None else (0.0, False)
        if self.cleared is not None:
            return self._root(self.failed, self.cleared), True
        place = self.failed[0] + self.failed[1] / self._gain
        return (place, True) if self.failed[1] <= slack and place <= 1 else (self.failed[0], False)

    @staticmethod
    def _root(failed: _Attempt, cleared: _Attempt) -> float:
        return failed[0] + (cleared[0] - failed[0]) * failed[1] / (failed[1] - cleared[1])


@dataclass(frozen=True)
class Found:
    """What a search found.

    places: where to pose each constraint.  cleared: whether it was shown there.  rounds: how many were trained.
    """

    places: dict[int, float]
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
        constraints: Which to search for, numbers of the trainer's constraints.
    """

    def __init__(
        self,
        rounds: Rounds,
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
        if len(rounds.train) < folds:
            raise InvalidInput(f"{len(rounds.train)} examples cannot make {folds} folds; take fewer folds.")
        fold_N = folds_of(rounds.train, folds, rounds.trainer.seed)
        everything = torch.arange(len(rounds.train), device=rounds.train.labels.device)
        self.parts = [
            (rounds.train.part(everything[fold_N != k]), rounds.train.part(everything[fold_N == k]))
            for k in range(folds)
        ]

    def run(self) -> Found:
        """Search, round by round."""
        brackets = {m: Bracket(SearchSettings()) for m in self.constraints}
        places = self.rounds.as_asked
        for _ in range(self.most):
            shown, reached = self._round(places)
            if not shown:
                break
            for m, bracket in brackets.items():
                gap = self.rounds.shortfall(m, shown[m].bound)
                # training may exceed what it is asked for: thresholds below that are all alike
                bracket.add(min(max(places[m], reached[m]), 1.0) if gap > 0 else places[m], gap)
            settled = {
                m: self._settled(m, places[m], shown[m].bound) or bracket.width <= bracket.trusted * self._slack(m)
                for m, bracket in brackets.items()
            }
            if all(settled.values()):
                break
            places = {m: places[m] if settled.get(m, True) else brackets[m].next() for m in places}
        answers = {m: bracket.answer(self._slack(m)) for m, bracket in brackets.items()}
        found = self.rounds.as_asked | {m: place for m, (place, _) in answers.items()}
        return Found(found, {m: cleared for m, (_, cleared) in answers.items()}, self.trained)

    def _settled(self, m: int, place: float, bound: float) -> bool:
        asked = self.rounds.asked[m].required
        return abs(bound - asked) <= self.excess or (bound >= asked and place == 0) or (bound < asked and place == 1)

    def _slack(self, m: int) -> float:
        """Return ``excess`` in places."""
        return self.rounds.shortfall(m, self.rounds.asked[m].required - self.excess)

    def _round(self, places: dict[int, float]) -> tuple[dict[int, Judged], dict[int, float]]:
        """Train each fold's student; return what they show, nothing if one diverged, and what training reached."""
        self.trained += 1
        rounds, results = self.rounds, []
        values: dict[int, list[Tensor]] = {m: [] for m in self.constraints}
        others: dict[int, list[Tensor]] = {m: [] for m in self.constraints}
        for rest, left_out in self.parts:
            rounds.restart()  # never from the student of another fold, which has seen this one
            result = rounds.fit(places, None, rest, watched=False)
            results.append(result)
            if result.status == "diverged":
                continue
            for m in self.constraints:
                values[m].append(_values(result, rounds.asked[m], left_out))
                others[m].append(torch.cat([_values(result, rounds.asked[m], split) for split in self.also] or [_NONE]))
        statuses = sorted({result.status for result in results})
        diverged = "diverged" in statuses
        measured = _measured(results)
        shown = {} if diverged else {m: self._judge(m, values[m], others[m]) for m in self.constraints}
        rounds.note(
            places,
            results[0],
            shown,
            cleared={m: found.bound >= rounds.asked[m].required for m, found in shown.items()},
            looks=self.trained if self.also else 0,
            status=", ".join(statuses),
            measured=measured,
            distillation_loss=sum(result.point.loss for result in results) / len(results),
            steps=sum(result.point.step for result in results),
        )
        return shown, {m: -rounds.shortfall(m, measured[m]) for m in self.constraints}

    def _judge(self, m: int, values: list[Tensor], others: list[Tensor]) -> Judged:
        """Pool what each left-out example shows, and what further examples show on average over students."""
        asked = self.rounds.asked[m]
        value_n = torch.cat([*values, torch.stack(others).mean(0)])
        if len(value_n) < 2:
            raise InvalidInput(
                f"Constraint '{asked.name}' covers {len(value_n)} examples of all folds; wanted at least 2, and some "
                "hundred for a bound that is near the average."
            )
        ((_, average),) = asked.parts
        if average.measure.binary:
            bound = clopper_pearson_lower_bound(math.floor(float(value_n.sum()) + 1e-9), len(value_n), self.confidence)
        else:
            bound = skew_adjusted_t_lower_bound(value_n.numpy(), self.confidence)
        return Judged(float(value_n.mean()), len(value_n), bound, self.confidence)


_NONE = torch.empty(0, dtype=torch.float64)


def folds_of(train: Split, count: int, seed: int) -> Tensor:
    """Return the fold of each example, (N,), 0 to ``count - 1``: even in size, and in every class of (N,) labels."""
    order_N = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    if train.labels.ndim == 1:
        order_N = order_N[train.labels.cpu()[order_N].argsort(stable=True)]
    fold_N = torch.empty(len(train), dtype=torch.long)
    fold_N[order_N] = torch.arange(len(train)) % count
    return fold_N.to(train.labels.device)


def _values(result: FitResult, asked: Constraint, split: Split) -> Tensor:
    (value_n,) = evaluate_groups(result.student, asked, split)  # one average without groups, by ``Rounds.choose``
    return value_n


def _measured(results: Sequence[FitResult]) -> dict[int, float]:
    """Return what the fold students measure where they are posed, averaged over folds, by constraint."""
    count = len(results)
    return {
        m: sum(result.point.readings[m].measured for result in results) / count
        for m in range(len(results[0].point.readings))
    }
