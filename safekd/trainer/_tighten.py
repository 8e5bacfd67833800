"""Raising thresholds until a split that the student never trained on shows what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .._uses import SplitUse
from ..data import Split
from ..errors import InvalidInput
from ..safety import certify, lower_bound
from ._climb import Rung, climb
from ._result import FitResult, Verdict
from ._rounds import Judged, Rounds
from ._warm_start import WarmStart

if TYPE_CHECKING:
    from ..safety import Constraint

STUCK = ("infeasible", "diverged")  # what a higher threshold would make no better


@dataclass(frozen=True)
class Tighten:
    """Raise thresholds until the lower confidence bound on the split ``on`` reaches what was asked for.

    on: "audit", or a name in fit's ``splits``; no constraint may be posed there.  confidence: in (0, 1): a student said
    to clear falls short of what was asked for with a probability of at most ``1 - confidence``, whatever the data.
    looks: how many thresholds are tried at most on the way up, the first as asked, the others from what training then
    measures to ``highest``, even in log-odds, each at level ``1 - (1 - confidence) / looks`` (Bonferroni).  back: once
    one clears, how many thresholds between it and the one before are tried downwards, until one fails, to give back
    what was raised too far; this costs no confidence (fixed-sequence test, Maurer, Hothorn and Lehmacher 1995).
    highest: below 1; left out, a tenth of the shortfall from 1 that was asked for.  constraints: names of those to
    raise, all together; left out, all.

    The statement holds for independent examples that nothing else used: not for a split on which the teachers were
    measured.  ``docs/generalising.md`` has the proof.  Raises InvalidInput for numbers out of range.
    """

    on: str = "audit"
    confidence: float = 0.95
    looks: int = 8
    back: int = 1
    highest: float | None = None
    constraints: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise InvalidInput(f"`confidence` is {self.confidence!r}; wanted a number between 0 and 1, such as 0.95.")
        if self.looks < 1 or self.back < 0:
            raise InvalidInput(
                f"`looks` is {self.looks}, `back` is {self.back}; wanted at least 1 look and 0 or more steps back."
            )

    @property
    def level(self) -> float:
        """Confidence of every single look."""
        return 1 - (1 - self.confidence) / self.looks

    def run(self, rounds: Rounds) -> FitResult:
        """Train, look, raise, train again; return the student to keep with the account of it."""
        rounds.choose(self.constraints, self.highest)
        return _Climb(self, rounds).go()


class _Climb:
    """One search up the ladder of thresholds."""

    def __init__(self, rule: Tighten, rounds: Rounds) -> None:
        self.rule, self.rounds = rule, rounds
        self.judge = _judge(rule.on, rounds)
        self.looks, self.start = 0, rounds.warm_start
        self.best: tuple[bool, float] | None = None  # (cleared, worst margin of a bound)
        self.kept: tuple[FitResult, WarmStart, float, int] | None = None

    def go(self) -> FitResult:
        """Search and hand back."""
        rule, rounds = self.rule, self.rounds
        hopeless = self._hopeless()
        if hopeless is not None:
            result = rounds.fit(0.0, self.start)
            rounds.note(0.0, result, {}, cleared={}, looks=0)
            return rounds.hand_back(result, hopeless, 0.0, 1, rule.on, result.uses)
        climb(rule.looks, rule.back, self._attempt)
        assert self.kept is not None
        result, start, place, number = self.kept
        rounds.trainer.student.load_state_dict(start.parameters)
        if start.weights:
            rounds.trainer.learning.load(start.weights)
        return rounds.hand_back(result, self._verdict(), place, number, rule.on, self._uses(result.uses))

    def _attempt(self, place: float) -> Rung:
        rounds = self.rounds
        result = rounds.fit(place, self.start)
        self.start = WarmStart.of(result)
        diverged = result.status == "diverged"
        judged, cleared = ({}, {}) if diverged else self._look(result)
        rounds.note(place, result, judged, cleared=cleared, looks=self.looks)
        margin = min((found.bound - rounds.asked[m].required for m, found in judged.items()), default=-1.0)
        rank = (not diverged and all(cleared.values()), margin)
        if self.best is None or rank[0] or (not self.best[0] and rank > self.best):
            self.best, self.kept = rank, (result, self.start, place, rounds.rows[-1]["round"])
        reached = -rounds.shortfall({m: result.point.readings[m].measured for m in rounds.raised})
        return Rung(rank[0], reached, stuck=result.status in STUCK)

    def _look(self, result: FitResult) -> tuple[dict[int, Judged], dict[int, bool]]:
        self.looks += 1
        rounds, judged, cleared = self.rounds, {}, {}
        for m in rounds.raised:
            found = certify(result.student, rounds.asked[m], self.judge, self.rule.level)
            judged[m] = Judged(found.estimate, found.count, found.lower_bound, found.confidence)
            cleared[m] = found.decision == "safe"
        return judged, cleared

    def _hopeless(self) -> Verdict | None:
        """Return the verdict if even a student without a fault could not clear on so few examples; not a look."""
        for m in self.rounds.raised:
            asked = self.rounds.asked[m]
            cases = int(asked.covers(self.judge.batch()).sum())
            if cases == 0:
                raise InvalidInput(
                    f"No example of '{self.rule.on}' is covered by '{asked.name}'; it cannot judge that constraint."
                )
            best = _faultless(asked, cases, self.rule.level)
            if best < asked.required:
                wanted = _needed(asked, self.rule.level)
                return Verdict(
                    "not_cleared",
                    f"Not cleared: '{self.rule.on}' holds {cases} examples of '{asked.name}', and at level "
                    f"{self.rule.level:.6g} a student without a fault would show only {best:.4f} on them, below the "
                    f"{asked.required:g} asked for. It was not looked at; the thresholds are those asked for.",
                    f"Give it at least {wanted} such examples, ask for less, or take fewer looks or less confidence; "
                    "kd.CrossFit raises thresholds without a split of its own, and without a guarantee.",
                )
        return None

    def _verdict(self) -> Verdict:
        assert self.kept is not None
        number = self.kept[3]
        rows = [row for row in self.rounds.rows if row["round"] == number]
        said = "; ".join(
            f"'{row['constraint']}' posed at {row['posed']:.4f} for the {row['asked']:g} asked for: lower bound "
            f"{row['lower_bound']:.4f}, average {row['judged']:.4f} over {row['cases']} examples"
            for row in rows
        )
        spent = f"{self.looks} of at most {self.rule.looks + self.rule.back} looks at '{self.rule.on}'"
        if self.best is not None and self.best[0]:
            evidence = self.rounds.trainer.objective.evidence
            measured = evidence is not None and evidence.source == self.judge.name
            doubt = " The teachers were measured on that split, so its bound is no guarantee." * measured
            return Verdict("cleared", f"Cleared after {spent}, each at level {self.rule.level:.6g}: {said}.{doubt}", "")
        last = self.rounds.rows[-1]
        why = ""
        if last["status"] in STUCK:
            why = f"; posed at {last['posed']:.4f} training was {last['status']}"
        elif self.looks < self.rule.looks:
            why = f"; training measures {last['measured']:.4f} by itself, above the highest threshold allowed"
        return Verdict(
            "not_cleared",
            f"Not cleared after {spent}, each at level {self.rule.level:.6g}{why}. The best was {said}.",
            "Give the judging split more examples, ask for less, or give the student more capacity or better teachers.",
        )

    def _uses(self, uses: Sequence[SplitUse]) -> list[SplitUse]:
        known = [use for use in uses if use.split is self.judge]
        mine = (known[0] if known else SplitUse(self.judge, ())).looked_at(self.looks, "to raise thresholds")
        return [mine if use.split is self.judge else use for use in uses] + ([] if known else [mine])


def _judge(name: str, rounds: Rounds) -> Split:
    """Return the split that judges.  Raises InvalidInput when it was not given or the student trains on it."""
    if name not in rounds.given:
        raise InvalidInput(
            f"Thresholds are to be raised until split '{name}' shows what was asked for, but it was not given; "
            f"there is {['train', *rounds.given]}. Pass it to fit, as audit= or in splits=; the training split cannot "
            "judge."
        )
    posed = [rule.name for rule in rounds.asked if rule.split == name]
    if posed:
        raise InvalidInput(
            f"Constraint '{posed[0]}' is posed on split '{name}', which is also to judge it; a split on which a "
            "constraint is posed has trained the student. Pose it on 'train' or on another split."
        )
    return rounds.given[name]


def _faultless(asked: Constraint, cases: int, level: float) -> float:
    """Return what a student that gets 1 on every case would show."""
    ((_, average),) = asked.parts
    return lower_bound(torch.ones(cases, dtype=torch.float64), average.measure, level)[1]


def _needed(asked: Constraint, level: float) -> int:
    """Return with how many cases a student without a fault would show what is asked for."""
    high = 1
    while _faultless(asked, high, level) < asked.required and high < 2**24:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _faultless(asked, middle, level) >= asked.required else (middle, high)
    return high
