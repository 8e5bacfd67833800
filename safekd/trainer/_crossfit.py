"""Raising thresholds by what students show on training examples that they did not see.  Axes: N examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data import Split
from ..errors import InvalidInput
from ..tracer import ConstraintReading
from ._objective import on_one_split
from ._result import FitResult, Verdict
from ._rounds import Judged, Rounds
from ._warm_start import WarmStart

if TYPE_CHECKING:
    from .._uses import SplitUse


@dataclass(frozen=True)
class CrossFit:
    """Raise thresholds until students meet what was asked for on training examples that they did not see.

    Each of ``folds`` students is trained on all folds but one, under the same raised thresholds, and read on the one
    left out; the average over all examples estimates what a student trained so does on new data.  The threshold moves
    by the shortfall, in log-odds, between the last that failed and the first that cleared, for at most ``rounds``
    rounds, and the student handed back is trained on everything under the lowest that cleared.  rounds: each costs
    ``folds`` runs, warm from the same fold's last one.  excess: stop when what is shown exceeds what was asked for by
    no more than this.  highest: below 1; left out, a tenth of the shortfall from 1 that was asked for.  constraints:
    names of those to raise, all together; left out, all, which must be posed on the training split.

    It looks at no other split and guarantees nothing: it is an average, not a bound, and teachers fitted on the
    training split have seen every fold.  A fold's student begins where the trainer's student stood before ``fit``, so
    that one should not have been trained on these data.  Raises InvalidInput for numbers out of range.
    """

    folds: int = 5
    rounds: int = 5
    excess: float = 0.005
    highest: float | None = None
    constraints: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.folds < 2 or self.rounds < 1 or not self.excess >= 0:
            raise InvalidInput(
                f"`folds` is {self.folds}, `rounds` is {self.rounds}, `excess` is {self.excess}; wanted at least 2 "
                "folds, 1 round, and an excess of 0 or more."
            )

    def run(self, rounds: Rounds) -> FitResult:
        """Cross-fit, raise, cross-fit again; return a student trained on everything with the account of it."""
        rounds.choose(self.constraints, self.highest)
        for m in rounds.raised:
            if rounds.asked[m].split != "train":
                raise InvalidInput(
                    f"Constraint '{rounds.asked[m].name}' is posed on split '{rounds.asked[m].split}'; only one posed "
                    "on 'train' can be cross-fitted. Name the others in kd.CrossFit(constraints=...)."
                )
        if len(rounds.train) < self.folds:
            raise InvalidInput(f"{len(rounds.train)} examples cannot make {self.folds} folds; take fewer folds.")
        return _Search(self, rounds).go()


_Tried = tuple[float, float, int]  # (place, shortfall there, round)


class _Search:
    """One search for the lowest threshold that clears out of fold."""

    def __init__(self, rule: CrossFit, rounds: Rounds) -> None:
        self.rule, self.rounds = rule, rounds
        fold_N = folds(rounds.train, rule.folds, rounds.trainer.seed)
        everything = torch.arange(len(rounds.train), device=rounds.train.labels.device)
        self.parts = [
            (rounds.train.part(everything[fold_N != k]), rounds.train.part(everything[fold_N == k]))
            for k in range(rule.folds)
        ]
        self.starts: list[WarmStart | None] = [None] * rule.folds
        self.reached = 0.0

    def go(self) -> FitResult:
        """Search, train on everything, hand back."""
        rounds = self.rounds
        place, kept = self._search()
        rounds.restart()
        result = rounds.fit(place, rounds.warm_start)
        told = f"cross-fitting, {self.rule.folds} folds x {len(self._rows)} rounds"
        uses: list[SplitUse] = [
            replace(use, roles=(*use.roles, told)) if use.split is rounds.train else use for use in result.uses
        ]
        return rounds.hand_back(result, self._verdict(kept), place, kept, "crossfit", uses)

    @property
    def _rows(self) -> set[int]:
        return {row["round"] for row in self.rounds.rows}

    def _search(self) -> tuple[float, int]:
        """Return the place to pose at, and the round that spoke for it."""
        failed: _Tried | None = None
        cleared: _Tried | None = None
        place, gain, stood = 0.0, 1.0, 0.0
        for number in range(1, self.rule.rounds + 1):
            judged = self._round(place)
            gap = self.rounds.shortfall(judged) if judged else float("nan")
            if gap <= 0:
                cleared = (place, gap, number)
                over = min(judged[m] - self.rounds.asked[m].required for m in judged)
                if place == 0 or over <= self.rule.excess:
                    break
            elif failed is None or (place > failed[0] and gap == gap):  # a round that diverged says nothing
                if failed is not None and self.reached > stood:
                    gain = min(max((failed[1] - gap) / (self.reached - stood), 0.25), 1.0)
                stood = self.reached
                failed = (place, gap, number)
            if gap != gap or (gap > 0 and place == 1.0):
                break
            place = _next(failed, cleared, self.reached, gain)
        found = cleared or failed
        assert found is not None
        return found[0], found[2]

    def _round(self, place: float) -> dict[int, float]:
        """Train each fold's student and return the averages out of fold, by constraint; none if a run diverged."""
        rounds, results, readings = self.rounds, [], []
        for k, (rest, left_out) in enumerate(self.parts):
            rounds.restart()  # never from the student of another fold, which has seen this one
            result = rounds.fit(place, self.starts[k], rest, watched=False)
            self.starts[k] = WarmStart.of(result)
            results.append(result)
            objective, rules = rounds.trainer.objective, [rounds.asked[m] for m in rounds.raised]
            readings.append(objective.full_pass(left_out, {}, on_one_split(rules), with_gradients=False).readings)
        statuses = sorted({result.status for result in results})
        diverged = "diverged" in statuses
        judged = {m: _pooled([found[i] for found in readings]) for i, m in enumerate(rounds.raised)}
        for m, found in judged.items():
            if found.cases == 0:
                raise InvalidInput(f"Constraint '{rounds.asked[m].name}' covers no example of any fold.")
        measured = _measured(results)
        self.reached = -rounds.shortfall({m: measured[m] for m in judged})
        rounds.note(
            place,
            results[0],
            judged,
            cleared={m: not diverged and judged[m].average >= rounds.asked[m].required for m in judged},
            looks=0,
            status=", ".join(statuses),
            measured=measured,
            distillation_loss=sum(result.point.loss for result in results) / len(results),
            steps=sum(result.point.step for result in results),
        )
        return {} if diverged else {m: found.average for m, found in judged.items()}

    def _verdict(self, kept: int) -> Verdict:
        rows = [row for row in self.rounds.rows if row["round"] == kept]
        said = "; ".join(
            f"'{row['constraint']}' posed at {row['posed']:.4f} shows {row['judged']:.4f} on {row['cases']} examples "
            f"out of fold, {row['asked']:g} asked for"
            for row in rows
        )
        spent = f"{len(self._rows)} of at most {self.rule.rounds} rounds of {self.rule.folds} folds"
        if all(row["cleared"] for row in rows):
            return Verdict("cleared", f"Cleared after {spent}: {said}. An average, not a bound.", "")
        return Verdict(
            "not_cleared",
            f"Not cleared after {spent}: {said} (training of the folds: {rows[0]['status']}).",
            "Raise `highest` or `rounds`, give more training examples, or ask for less.",
        )


def _next(failed: _Tried | None, cleared: _Tried | None, reached: float, gain: float) -> float:
    """Return where to pose next: by the shortfall, kept inside of what is known to fail and to clear.

    reached: the place of what training measured, above where it was posed while the constraint is slack.  gain: what a
    place higher takes off the shortfall, by the last two that failed.
    """
    if cleared is None:
        assert failed is not None
        return min(
            1.0, max(failed[0], reached) + max(failed[1] / gain, 0.02)
        )  # at least a little, or it would never end
    assert failed is not None  # what is asked for is tried first, and cleared there ends the search
    low, high = failed[0], cleared[0]
    root = low + (high - low) * failed[1] / (failed[1] - cleared[1])
    return min(max(root, low + 0.1 * (high - low)), high - 0.1 * (high - low))


def folds(train: Split, count: int, seed: int) -> Tensor:
    """Return the fold of each example, (N,), 0 to ``count - 1``: even in size, and in every class of (N,) labels."""
    order_N = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    if train.labels.ndim == 1:
        order_N = order_N[train.labels.cpu()[order_N].argsort(stable=True)]
    fold_N = torch.empty(len(train), dtype=torch.long)
    fold_N[order_N] = torch.arange(len(train)) % count
    return fold_N.to(train.labels.device)


def _pooled(found: Sequence[ConstraintReading]) -> Judged:
    """Average one constraint over the examples of all folds; a fold may cover none."""
    cases = sum(reading.count for reading in found)
    total = sum(reading.measured * reading.count for reading in found if reading.count)
    return Judged(total / cases if cases else float("nan"), cases)


def _measured(results: Sequence[FitResult]) -> Mapping[int, float]:
    """Return what the fold students measure where they are posed, averaged over folds, by constraint."""
    count = len(results)
    return {
        m: sum(result.point.readings[m].measured for result in results) / count
        for m in range(len(results[0].point.readings))
    }
