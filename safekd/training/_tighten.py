"""Raising thresholds until a split that the student never trained on shows what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..data import SplitUse
from ..errors import InvalidInput
from ..safety import Constraint, bound_expectation, certify
from ._fixed_sequence import Places, descending, fixed_sequence
from ._fold_search import FoldSearch
from ._result import FitResult, Verdict
from ._rounds import Judged, Rounds, splits_that_judge
from ._warm_start import WarmStart

STUCK = ("infeasible", "diverged")  # what a higher threshold would make no better


@dataclass(frozen=True)
class Tighten:
    """Pose thresholds so high that the lower confidence bound on the split ``on`` reaches what was asked for.

    Training data propose, the split disposes.  Cross-fitting (see CrossFit) says how high each constraint must be
    posed by itself.  Students are then trained under thresholds from well above that down to what was asked for; each
    is tested on ``on`` at the full level, until the first that does not clear, and the last that did is kept.

    The promise: a student said to clear falls short of what was asked for with a probability of at most
    ``1 - confidence``, whatever the data, for independent examples that nothing else used (not a split on which the
    teachers were measured).  ``docs/generalization.md`` has the proof.  It costs more distillation loss than CrossFit,
    which promises less.

    Args:
        on: "validation", or a name in fit's ``splits``; no constraint may be posed there.
        confidence: In (0, 1).
        attempts: How many students at most are tested, at least 1.  They cost runs, but no confidence.
        folds: Of the cross-fitting; 0 for none: all constraints are then posed at the same share of the way to
            ``highest``, as are those that are not posed on the training split, which cannot be cross-fitted.
        rounds: Of the cross-fitting, each ``folds`` runs.
        highest: No threshold is posed above, below 1; left out, a tenth of the shortfall from 1 that was asked for.
        constraints: Names of those to raise; left out, all.

    Raises:
        InvalidInput: A number is out of range.
    """

    on: str = "validation"
    confidence: float = 0.95
    attempts: int = 12
    folds: int = 5
    rounds: int = 2
    highest: float | None = None
    constraints: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise InvalidInput(f"`confidence` is {self.confidence!r}; wanted a number between 0 and 1, such as 0.95.")
        if self.attempts < 1 or self.folds < 0 or self.folds == 1 or self.rounds < 1:
            raise InvalidInput(
                f"`attempts` is {self.attempts}, `folds` is {self.folds}, `rounds` is {self.rounds}; wanted at least 1 "
                "attempt, at least 2 folds, or 0 for no cross-fitting, and at least 1 round."
            )

    def run(self, rounds: Rounds) -> FitResult:
        """Propose, train, test, until one fails; return the student to keep with the account of it."""
        rounds.choose(self.constraints, self.highest)
        return _Search(self, rounds).go()


class _Search:
    """One fixed-sequence search."""

    def __init__(self, rule: Tighten, rounds: Rounds) -> None:
        self.rule, self.rounds = rule, rounds
        (self.judge,) = splits_that_judge([rule.on], rounds)
        self.looks, self.folded = 0, 0
        self.last: tuple[FitResult, WarmStart, Places, int] | None = None
        self.kept: tuple[FitResult, WarmStart, Places, int] | None = None

    def go(self) -> FitResult:
        """Search and hand back."""
        rule, rounds = self.rule, self.rounds
        hopeless = self._hopeless()
        if hopeless is not None:
            result = rounds.fit(rounds.as_asked, rounds.warm_start)
            rounds.note(rounds.as_asked, result, {}, cleared={}, looks=0)
            return rounds.hand_back(result, hopeless, rounds.as_asked, 1, rule.on, result.uses)
        fixed_sequence(descending(self._base(), rule.attempts), self._attempt)
        found = self.kept or self.last
        assert found is not None
        result, start, places, number = found
        rounds.trainer.student.load_state_dict(start.parameters)
        if start.weights:
            rounds.trainer.learning.load(start.weights)
        uses = rounds.looked_at(self._told(result), [self.judge], self.looks)
        return rounds.hand_back(result, self._verdict(number), places, number, rule.on, uses)

    def _base(self) -> dict[int, float]:
        """Return how high each constraint is to be posed in proportion to the others, by the training data alone."""
        rule, rounds = self.rule, self.rounds
        quarter = dict.fromkeys(rounds.raised, 0.25)  # so that the first candidate, four times as high, is the highest
        folded = [m for m in rounds.raised if rule.folds and rounds.asked[m].split == "train"]
        if not folded:
            return quarter
        found = FoldSearch(rounds, rule.folds, rule.rounds, rule.confidence, 0.005, [], folded).run()
        self.folded = found.rounds
        # out of reach out of fold, by this many rounds: then from the highest down
        return quarter | {m: found.places[m] if found.cleared[m] else max(found.places[m], 0.25) for m in folded}

    def _attempt(self, places: Places) -> bool:
        rounds = self.rounds
        rounds.restart()
        result = rounds.fit(places, rounds.warm_start)
        judged = {} if result.status == "diverged" else self._look(result)
        cleared = {m: found.bound >= rounds.asked[m].required for m, found in judged.items()}
        rounds.note(places, result, judged, cleared=cleared, looks=self.looks)
        self.last = (result, WarmStart.of(result), places, rounds.rows[-1]["round"])
        if not judged or not all(cleared.values()):
            return False
        self.kept = self.last
        return True

    def _look(self, result: FitResult) -> dict[int, Judged]:
        self.looks += 1
        judged = {}
        for m in self.rounds.raised:
            found = certify(result.student, self.rounds.asked[m], self.judge, self.rule.confidence)
            judged[m] = Judged(found.estimate, found.count, found.lower_bound, found.confidence)
        return judged

    def _hopeless(self) -> Verdict | None:
        """Return the verdict if even a student without a fault could not clear on so few examples; not a look."""
        for m in self.rounds.raised:
            asked = self.rounds.asked[m]
            cases = int(asked.covers(self.judge.batch()).sum())
            if cases == 0:
                raise InvalidInput(
                    f"No example of '{self.rule.on}' is covered by '{asked.name}'; it cannot judge that constraint."
                )
            best = _faultless(asked, cases, self.rule.confidence)
            if best < asked.required:
                wanted = _needed(asked, self.rule.confidence)
                return Verdict(
                    "not_cleared",
                    f"Not cleared: '{self.rule.on}' holds {cases} examples of '{asked.name}', and at confidence "
                    f"{self.rule.confidence:g} a student without a fault would show only {best:.4f} on them, below the "
                    f"{asked.required:g} asked for. It was not looked at; the thresholds are those asked for.",
                    f"Give it at least {wanted} such examples, ask for less, or take less confidence; "
                    "kd.CrossFit(also=[...]) makes use of fewer, without a guarantee.",
                )
        return None

    def _verdict(self, number: int) -> Verdict:
        rows = [row for row in self.rounds.rows if row["round"] == number]
        said = "; ".join(
            f"'{row['constraint']}' posed at {row['posed']:.4f} for the {row['asked']:g} asked for: lower bound "
            f"{row['lower_bound']:.4f}, average {row['judged']:.4f} over {row['cases']} examples"
            for row in rows
        )
        spent = (
            f"{self.looks} of at most {self.rule.attempts} attempts on '{self.rule.on}', each at confidence "
            f"{self.rule.confidence:g}"
        )
        if self.kept is not None:
            doubt = self.rounds.doubt([self.rule.on])
            return Verdict("cleared", f"Cleared after {spent}: {said}.{doubt}", "")
        last = self.rounds.rows[-1]
        stuck = last["status"] in STUCK
        why = f"; posed at {last['posed']:.4f} training was {last['status']}" if stuck else ""
        return Verdict(
            "not_cleared",
            f"Not cleared after {spent}{why}. The safest was {said}.",
            "Give the judging split more examples, ask for less, or give the student more capacity or better teachers; "
            "kd.CrossFit(also=[...]) asks for less proof.",
        )

    def _told(self, result: FitResult) -> list[SplitUse]:
        if not self.folded:
            return list(result.uses)
        told = f"cross-fitting, {self.rule.folds} folds x {self.folded} rounds"
        return [
            replace(use, roles=(*use.roles, told)) if use.split is self.rounds.train else use for use in result.uses
        ]


def _faultless(asked: Constraint, cases: int, level: float) -> float:
    """Return what a student that gets 1 on every case would show."""
    ((_, average),) = asked.parts
    return bound_expectation(torch.ones(cases, dtype=torch.float64), average.measure, level)[1]


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
