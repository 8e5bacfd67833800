"""What a run hands back: the students, the trace, and a verdict with its evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from torch import Tensor, nn

from solvers.kkt import KKTResiduals

from ..tracer import TracePoint
from ..weights import Rule

Finding = float | str | Sequence[float] | Sequence[str]


@dataclass(frozen=True)
class Verdict:
    """How a run ended.

    status: one of

        converged              all residuals within tolerance, and no direction of descent along the constraints found
        stationary_unverified  the same residuals, but such a direction was found, or could not be looked for
        infeasible             the thresholds cannot be met: by any student (evidence["proof"] is "farkas"), or by
                               students near this one ("local")
        no_multiplier          they are met in the limit only, and multipliers grow without end on the way
        cap_active             a multiplier stands at its cap, a constraint is violated
        diverged               something was not finite
        budget_spent           none of these was shown in time

    message: cause and evidence in numbers; next_move: what to do.  evidence: the numbers by name, lists one entry a
    constraint.
    """

    status: str
    message: str
    next_move: str
    evidence: Mapping[str, Finding] = field(default_factory=dict)


@dataclass(frozen=True)
class FitResult:
    """A trained student and everything that is known about it.

    student: the final iterate, in eval mode like the others, since that is how its numbers were read.
    best_feasible: the audited iterate with the lowest loss among those that met every constraint, None if none did.
    most_feasible: the one with the smallest violation, where the verdict had to look for it also one that left the loss
    aside.  multipliers: final price of each constraint.
    residuals: KKT residuals of ``student``, at the weights that ``rule`` gives as it is now.  point: the last trace
    point.  trace: all of them.  rule: the weighting rule, in eval mode where it learned.  weights: its state and its
    optimizer's, by name; empty where it has none.
    """

    verdict: Verdict
    student: nn.Module
    best_feasible: nn.Module | None
    most_feasible: nn.Module
    multipliers: Mapping[str, float]
    residuals: KKTResiduals
    point: TracePoint
    trace: pd.DataFrame
    rule: Rule
    weights: Mapping[str, Tensor]

    @property
    def status(self) -> str:
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


FEASIBLE = 1e-3
