"""What a run hands back: the students, the trace, and a verdict with its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from torch import Tensor, nn

from solvers.kkt import KKTResiduals
from solvers.statuses import Status

from ..data import SplitUse
from ..weights import Rule
from ._mixture import Mixture
from .trace import FEASIBLE, TracePoint

Finding = float | str | Sequence[float] | Sequence[str]


@dataclass(frozen=True)
class Verdict:
    """How a run ended.

    Attributes:
        status: A word of ``solvers.statuses``; where it is infeasible, ``evidence["proof"]`` is "farkas" (no student
            meets the thresholds) or "local" (none near this one).
        message: Cause and evidence in numbers.
        next_move: What to do; empty where there is nothing to do.
        evidence: The numbers by name, lists one entry a constraint.
    """

    status: Status
    message: str
    next_move: str
    evidence: Mapping[str, Finding] = field(default_factory=dict)


@dataclass(frozen=True)
class Tightening:
    """How thresholds were raised until data that the student did not train on showed what was asked for.

    Attributes:
        status: "cleared" or "not_cleared".
        message: The method and its numbers.
        posed: Thresholds under which the student was trained, by constraint.
        on: Split that judged, or "crossfit".
        looks: How many decisions were read off splits that judge.
        rounds: One row for each round and constraint, columns as ``ROUND_COLUMNS`` explains them.
    """

    status: str
    message: str
    posed: Mapping[str, float]
    on: str
    looks: int
    rounds: pd.DataFrame


ROUND_COLUMNS = {
    "round": "from 1",
    "constraint": "its name",
    "asked": "threshold that the user asked for",
    "posed": "threshold that this round trained under",
    "measured": "average on the split on which it is posed",
    "judged": "average on the split that judges, or over the folds, each by the student that did not see it",
    "cases": "examples in that average",
    "level": "confidence of the bound; none for the student that cross-fitting trains on everything",
    "lower_bound": "lower bound at that level; approximate out of fold",
    "cleared": "whether the bound reaches what was asked for",
    "looks": "looks at the judging split up to and with this round",
    "status": "verdict of the round's training",
    "distillation_loss": "nats, training split; over the folds: mean of their students",
    "steps": "optimizer steps of the round",
    "kept": "whether the student handed back was trained under this threshold",
}


@dataclass(frozen=True)
class FitResult:
    """A trained student and everything that is known about it.

    Attributes:
        verdict: How the run ended, and the evidence.
        student: The final iterate, in minibatches the averaged one, corrected onto its active constraints where it
            ended near them; in eval mode like the others, since that is how its numbers were read.
        best_feasible: Evaluated iterate with the lowest loss among those that met every constraint; None if none did.
        most_feasible: The one with the smallest violation; where the verdict had to look for it, also one that left the
            loss aside.
        best_validated: The evaluated iterate that is best on the validation split: of smallest violation there, up to
            1e-3 counting as none, then of least loss there; None without such a split.  It was chosen by that split,
            which can then no longer certify anything.
        multipliers: Final multiplier of each constraint, nats a unit of safety.
        residuals: KKT residuals of ``student``, at the weights that ``rule`` gives as it is now.
        point: Last trace point.
        trace: All trace points, one row each.
        rule: Weighting rule, in eval mode where it learned.
        rule_state: Its state and its optimizer's, by name; empty where it has none.
        checkpoint_rule_states: The same as it was at "best_feasible", "most_feasible" and "best_validated".
        mixture: Of lowest loss among mixtures of snapshots that meet every constraint on average, where ``fit`` was
            asked for snapshots.
        mixture_note: Why there is no mixture then.
        uses: Which data it was made with, and for what.
        tightening: How its thresholds were raised; None if they were not.
    """

    verdict: Verdict
    student: nn.Module
    best_feasible: nn.Module | None
    most_feasible: nn.Module
    best_validated: nn.Module | None
    multipliers: Mapping[str, float]
    residuals: KKTResiduals
    point: TracePoint
    trace: pd.DataFrame
    rule: Rule
    rule_state: Mapping[str, Tensor]
    checkpoint_rule_states: Mapping[str, Mapping[str, Tensor]]
    mixture: Mixture | None
    mixture_note: str
    uses: Sequence[SplitUse] = ()
    tightening: Tightening | None = None

    @property
    def status(self) -> Status:
        """One word, see Verdict."""
        return self.verdict.status

    @property
    def message(self) -> str:
        """Cause and evidence."""
        return self.verdict.message

    @property
    def next_move(self) -> str:
        """What to do now."""
        return self.verdict.next_move

    @property
    def feasible(self) -> bool:
        """Whether the final student met every constraint, to 1e-3, on the split on which it is posed."""
        return all(reading.violation <= FEASIBLE for reading in self.point.readings)
