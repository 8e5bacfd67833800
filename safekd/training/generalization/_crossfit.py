"""Raising thresholds by what students show on training examples that they did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import InvalidInput
from .._fit_result import FitResult, Verdict
from ._fold_search import FoldSearch, FoldSearchResult
from ._round_outcomes import TrainedRound
from ._tightening_rounds import TighteningRounds, require_judges, require_margin


@dataclass(frozen=True)
class CrossFit:
    """Pose each constraint so high that students meet it, with confidence, on examples that they did not see.

    The recommended way, with its defaults: ``fit(train, validation, tighten=kd.CrossFit(also=["validation"]))``, or
    ``kd.CrossFit()`` where there is no split besides the training split.

    Each of ``folds`` students is trained on all folds but one, afresh, and read on the one left out.  All examples so
    read give an average and a lower bound (t with Johnson's correction for skewness; Clopper and Pearson for measures
    that are 0 or 1).  Each threshold is moved by itself, in log-odds, until its bound meets what was asked for, and the
    student handed back is trained on everything under the thresholds found, by interpolation between rounds.

    It is one estimate and one bound, however many rounds are used to find it: where the bound rises with the threshold,
    the student falls short only if the bound was too high at the one threshold that would just do.  The bound is
    approximate: students of folds share examples.  ``docs/generalization.md`` has what was measured.  Teachers that
    were fitted on the training split have seen every fold, and what passes through them is not caught.  A fold's
    student
    begins where the trainer's student stood before ``fit``, so that one should not have been trained on these data.

    Args:
        folds: Students a round, at least 2.  More make them more like the one that is trained on everything.
        rounds: How often thresholds are moved at most; each round costs ``folds`` runs.
        confidence: In (0, 1): how often the expected safety is to reach what was asked for.  0.5 aims at the average,
            which misses in half of all runs.  Default 0.975: at 0.95 the hardest tasks of the benchmark reached 0.94.
        also: Names of further splits, "validation" or of fit's ``splits``, whose examples count too, read by every
        fold's
            student; no constraint may be posed there.  More examples make the margin smaller; they certify nothing.
        excess: A bound within this of what was asked for ends the search.
        highest: No threshold is posed above, below 1; left out, a tenth of the shortfall from 1 that was asked for.
        constraints: Names of those to raise, all posed on the training split; left out, all.
        margin: How much more than what was asked for must be shown.  A certificate on further examples lies below their
            average, and comes out only where the student has that much to spare.

    Raises:
        InvalidInput: A number is out of range.
    """

    folds: int = 5
    rounds: int = 4
    confidence: float = 0.975
    also: Sequence[str] = ()
    excess: float = 0.005
    highest: float | None = None
    constraints: Sequence[str] = ()
    margin: float = 0.0

    def __post_init__(self) -> None:
        require_margin(self.margin)
        if self.folds < 2 or self.rounds < 1 or not self.excess >= 0:
            raise InvalidInput(
                f"`folds` is {self.folds}, `rounds` is {self.rounds}, `excess` is {self.excess}; wanted at least 2 "
                "folds, 1 round, and an excess of 0 or more."
            )
        if not 0 < self.confidence < 1:
            raise InvalidInput(
                f"`confidence` is {self.confidence!r}; wanted a number between 0 and 1, such as 0.975, or 0.5 for the "
                "average without a margin."
            )
        if isinstance(self.also, str):
            raise InvalidInput(f"`also` is {self.also!r}; wanted a list of names of splits, such as [{self.also!r}].")

    def run(self, rounds: TighteningRounds) -> FitResult:
        """Search out of fold; return a student trained on everything with the account of it.

        Args:
            rounds: Train, and keep the account.
        """
        rounds.choose(self.constraints, self.highest, self.margin)
        also = require_judges(self.also, rounds)
        search = FoldSearch(rounds, self.folds, self.rounds, self.confidence, self.excess, also, rounds.raised)
        outcome = search.run()
        rounds.restart()
        result = rounds.fit(outcome.shares, rounds.warm_start)
        verdict = self._verdict(rounds, outcome)
        looks = outcome.rounds if also else 0
        rounds.note(outcome.shares, TrainedRound.of_result(result), {}, cleared=outcome.cleared, looks=looks)
        kept = rounds.rows[-1]["round"]
        uses = rounds.add_folds(result.uses, self.folds, outcome.rounds)
        uses = rounds.count_looks(uses, also, outcome.rounds)
        return rounds.hand_back(result, verdict, outcome.shares, kept, "crossfit", uses)

    def _verdict(self, rounds: TighteningRounds, outcome: FoldSearchResult) -> Verdict:
        last = [row for row in rounds.rows if row["round"] == outcome.rounds]
        posed = rounds.pose(outcome.shares)
        where = "out of fold" + "".join(f" and on '{name}'" for name in self.also)
        said = "; ".join(
            f"'{row['constraint']}' posed at {posed[m].required:.4f} for the {row['asked']:g} asked for: posed at "
            f"{row['posed']:.4f} it shows {row['judged']:.4f} on {row['cases']} examples {where}, lower bound "
            f"{row['lower_bound']:.4f}"
            for m, row in zip(rounds.raised, last, strict=True)
        )
        count = f"{outcome.rounds} of at most {self.rounds} rounds of {self.folds} folds"
        spent = f"{count} at confidence {self.confidence:g}"
        if all(outcome.cleared.values()):
            message = f"Cleared after {spent}: {said}. An approximate bound, no certificate.{rounds.doubt(self.also)}"
            return Verdict("cleared", message, "")
        return Verdict(
            "not_cleared",
            f"Not cleared after {spent}: {said} (training of the folds: {last[0]['status']}).",
            self._advise(rounds, outcome),
        )

    def _advise(self, rounds: TighteningRounds, outcome: FoldSearchResult) -> str:
        """Say what could clear, of what was not done already."""
        missed = [m for m in rounds.raised if not outcome.cleared[m]]
        top = [rounds.highest[m] for m in missed if outcome.shares[m] >= 1]
        moves = [f"Raise `highest`, now {min(top):.4g}"] if top else []
        moves += [f"give more `rounds` than {self.rounds}"] if outcome.rounds >= self.rounds else []
        moves += [f"lower `confidence`, now {self.confidence:g}"] if self.confidence > 0.5 else []
        moves += [] if self.also else ["name a further split in `also`"]
        said = ", ".join([*moves, "give more training examples, or ask for less."])
        return said[0].upper() + said[1:]
