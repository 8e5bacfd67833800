"""Raising thresholds until a split that the student never trained on shows what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...data import Split, expand_to_positions
from ...errors import InvalidInput
from ...safety import ClusteredValues, Constraint, certify
from .._fit_result import FitResult, Verdict
from .._warm_start import WarmStart
from ._fixed_sequence import SETTINGS as SEQUENCE
from ._fixed_sequence import Shares, descend_shares, run_fixed_sequence
from ._fold_search import FoldSearch
from ._round_outcomes import HeldOutReading, TrainedRound
from ._tightening_rounds import TighteningRounds, require_judges, require_margin

UNTRAINABLE = ("infeasible", "diverged")  # what a higher threshold would make no better


@dataclass(frozen=True)
class TightenSettings:
    """Numbers of the search that Tighten does not ask for.

    Attributes:
        excess: Of its cross-fitting: a bound within this of what was asked for ends it; the default of CrossFit.
    """

    excess: float = 0.005


SETTINGS = TightenSettings()


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
        margin: How much more than what was asked for must be shown.  A certificate on further examples lies below their
            average, and comes out only where the student has that much to spare.

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
    margin: float = 0.0

    def __post_init__(self) -> None:
        require_margin(self.margin)
        if not 0 < self.confidence < 1:
            raise InvalidInput(f"`confidence` is {self.confidence!r}; wanted a number between 0 and 1, such as 0.95.")
        if self.attempts < 1 or self.folds < 0 or self.folds == 1 or self.rounds < 1:
            raise InvalidInput(
                f"`attempts` is {self.attempts}, `folds` is {self.folds}, `rounds` is {self.rounds}; wanted at least 1 "
                "attempt, at least 2 folds, or 0 for no cross-fitting, and at least 1 round."
            )

    def run(self, rounds: TighteningRounds) -> FitResult:
        """Propose, train, test, until one fails; return the student to keep with the account of it.

        Args:
            rounds: Train, and keep the account.
        """
        rounds.choose(self.constraints, self.highest, self.margin)
        return _FixedSequenceSearch(self, rounds).run()


class _FixedSequenceSearch:
    """One fixed-sequence search."""

    def __init__(self, method: Tighten, rounds: TighteningRounds) -> None:
        self.method, self.rounds = method, rounds
        (self.judge,) = require_judges([method.on], rounds)
        self.looks, self.fold_rounds, self.attempted = 0, 0, 0
        self._live: FitResult | None = None  # of an attempt that was trained in this process
        self.last: tuple[FitResult, WarmStart, Shares, int] | None = None
        self.cleared: tuple[FitResult, WarmStart, Shares, int] | None = None

    def run(self) -> FitResult:
        """Search and hand back."""
        method, rounds = self.method, self.rounds
        too_few = self._judge_too_few()
        if too_few is not None:
            result = rounds.fit(rounds.as_asked, rounds.warm_start)
            rounds.note(rounds.as_asked, TrainedRound.of_result(result), {}, cleared={}, looks=0)
            return rounds.hand_back(result, too_few, rounds.as_asked, 1, method.on, result.uses)
        run_fixed_sequence(descend_shares(self._base_shares(), method.attempts), self._attempt)
        outcome = self.cleared or self.last
        assert outcome is not None
        result, start, shares, number = outcome
        rounds.problem.student.load_state_dict(start.parameters)
        if start.rule_state:
            rounds.problem.learning.load(start.rule_state)
        folded = rounds.add_folds(result.uses, method.folds, self.fold_rounds)
        uses = rounds.count_looks(folded, [self.judge], self.looks)
        return rounds.hand_back(result, self._verdict(number), shares, number, method.on, uses)

    def _base_shares(self) -> dict[int, float]:
        """Return how high each constraint is to be posed in proportion to the others, by the training data alone."""
        method, rounds = self.method, self.rounds
        share = 1 / SEQUENCE.start  # so that the first candidate is the highest
        highest = dict.fromkeys(rounds.raised, share)
        folded = [m for m in rounds.raised if method.folds and rounds.asked[m].split == "train"]
        if not folded:
            return highest
        search = FoldSearch(rounds, method.folds, method.rounds, method.confidence, SETTINGS.excess, [], folded)
        outcome = search.run()
        self.fold_rounds = outcome.rounds
        # out of reach out of fold, by this many rounds: then from the highest down
        return highest | {m: outcome.shares[m] if outcome.cleared[m] else max(outcome.shares[m], share) for m in folded}

    def _attempt(self, shares: Shares) -> bool:
        rounds, before = self.rounds, f"attempt {self.attempted}"
        self.attempted += 1
        outcome = rounds.once(f"attempt {self.attempted}", lambda: self._train_attempt(shares))
        self.looks = outcome["looks"]
        result = self._live
        if result is None and outcome["ending"] is not None:
            result = rounds.restore(shares, outcome["ending"])
        self._live = None
        if result is not None:  # else a later attempt has cleared, and takes its place
            self.last = (result, WarmStart.from_result(result), shares, outcome["round"])
        if not outcome["cleared"]:
            return False
        rounds.forget_ending(before)
        self.cleared = self.last
        return True

    def _train_attempt(self, shares: Shares) -> dict[str, Any]:
        """Train and judge one student; return what a checkpoint keeps of it."""
        rounds = self.rounds
        rounds.restart()
        self._live = result = rounds.fit(shares, rounds.warm_start)
        judged = {} if result.status == "diverged" else self._judge(result)
        cleared = {m: reading.bound >= rounds.asked[m].required for m, reading in judged.items()}
        looks = self.looks + bool(judged)
        rounds.note(shares, TrainedRound.of_result(result), judged, cleared=cleared, looks=looks)
        return {
            "cleared": bool(judged) and all(cleared.values()),
            "looks": looks,
            "round": rounds.rows[-1]["round"],
            "ending": rounds.take_ending(),
        }

    def _judge(self, result: FitResult) -> dict[int, HeldOutReading]:
        judged = {}
        for m in self.rounds.raised:
            certificate = certify(result.student, self.rounds.asked[m], self.judge, self.method.confidence)
            judged[m] = HeldOutReading(
                certificate.estimate, certificate.count, certificate.lower_bound, certificate.confidence
            )
        return judged

    def _judge_too_few(self) -> Verdict | None:
        """Return the verdict if even a student without a fault could not clear on so few examples; not a look."""
        for m in self.rounds.raised:
            asked = self.rounds.asked[m]
            faultless = _read_faultless(asked, self.judge)
            cases = len(faultless.value_P)
            if cases == 0:
                raise InvalidInput(
                    f"No example of '{self.method.on}' is covered by '{asked.name}'; it cannot judge that constraint."
                )
            best = _bound_faultless(asked, faultless, self.method.confidence)
            if best < asked.required:
                wanted = _count_needed_clusters(asked, cases / faultless.clusters, self.method.confidence)
                what = "examples" if faultless.are_independent else "clusters of examples"
                return Verdict(
                    "not_cleared",
                    f"Not cleared: '{self.method.on}' holds {faultless.clusters} {what} of '{asked.name}', and at "
                    f"confidence {self.method.confidence:g} a student without a fault would show only {best:.4f} on "
                    f"them, below the {asked.required:g} asked for. It was not looked at; the thresholds are those "
                    "asked for.",
                    f"Give it at least {wanted} such {what}, ask for less, or take less confidence; "
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
            f"{self.looks} of at most {self.method.attempts} attempts on '{self.method.on}', each at confidence "
            f"{self.method.confidence:g}"
        )
        if self.cleared is not None:
            doubt = self.rounds.doubt([self.method.on])
            return Verdict("cleared", f"Cleared after {spent}: {said}.{doubt}", "")
        last = self.rounds.rows[-1]
        untrainable = last["status"] in UNTRAINABLE
        why = f"; posed at {last['posed']:.4f} training was {last['status']}" if untrainable else ""
        return Verdict(
            "not_cleared",
            f"Not cleared after {spent}{why}. The safest was {said}.",
            "Give the judging split more examples, ask for less, or give the student more capacity or better teachers; "
            "kd.CrossFit(also=[...]) asks for less proof.",
        )


def _read_faultless(asked: Constraint, judge: Split) -> ClusteredValues:
    """Return what a student that gets 1 on every case would show."""
    batch = judge.batch()
    covered = asked.covers(batch).cpu()
    cluster_N = torch.arange(len(judge)) if judge.cluster is None else judge.cluster.cpu()
    cluster_P = expand_to_positions(cluster_N, covered.shape)[covered]
    return ClusteredValues(torch.ones(len(cluster_P), dtype=torch.float64), cluster_P)


def _bound_faultless(asked: Constraint, faultless: ClusteredValues, level: float) -> float:
    ((_, average),) = asked.parts
    return faultless.bound(average.measure, level)[1]


def _count_needed_clusters(asked: Constraint, size: float, level: float) -> int:
    """Return with how many clusters of about one size a student without a fault would show what is asked for."""
    values = max(1, round(size))

    def bound(clusters: int) -> float:
        cluster_P = torch.arange(clusters).repeat_interleave(values)
        return _bound_faultless(asked, ClusteredValues(torch.ones(len(cluster_P)).double(), cluster_P), level)

    high = 1
    while bound(high) < asked.required and high * values < 2**24:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bound(middle) >= asked.required else (middle, high)
    return high
