"""How a run of the trainer ended: the same words and residuals as for any other run, and what they rest on here.

No second derivatives are to be had through a fused loss over a vocabulary, so "converged" is never said.  That no
student could meet the thresholds is proved on the sequences of the trace alone, which are all training data or some.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from solvers.kkt import KKTResiduals
from solvers.short_repr import ShortRepr
from solvers.statuses import Status

from ...io import write_atomically, write_csv
from ...training import FEASIBLE, Verdict
from ...training.checkpoints import rank_point
from ...training.diagnosis import (
    STATUS_SETTINGS,
    FeasibilityBound,
    find_exploded,
    format_residuals,
    is_converged,
    is_stalled,
)
from ...training.result_files import TRACE_TABLE, VERDICT
from ...training.trace import TracePoint


@dataclass(frozen=True, repr=False)
class TrainerResult(ShortRepr):
    """What is known of a student that ``SafeKDTrainer`` trained.

    Attributes:
        verdict: How the run ended, and the evidence.
        point: Last trace point.
        trace: All of them, one row each.
        multipliers: Of each constraint, nats a unit of safety.
        best_feasible: Folder of the student of lowest loss among those of the trace that met every constraint; None if
            none did, or none was kept.
        most_feasible: Folder of the one of smallest violation; None if none was kept.
    """

    verdict: Verdict
    point: TracePoint
    trace: pd.DataFrame
    multipliers: Mapping[str, float]
    best_feasible: Path | None = None
    most_feasible: Path | None = None

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
    def residuals(self) -> KKTResiduals:
        """KKT residuals of the student at the last trace point."""
        return self.point.residuals

    def write_files(self, folder: Path) -> None:
        """Write trace and verdict into a folder that exists.

        Args:
            folder: Holds neither.
        """
        write_csv(self.trace, folder / TRACE_TABLE)
        with write_atomically(folder / VERDICT) as temporary:
            temporary.write_text(json.dumps(asdict(self.verdict), indent=2) + "\n", encoding="utf-8")

    @property
    def feasible(self) -> bool:
        """Whether the student met every constraint, to 1e-3, on the sequences of the trace."""
        return all(reading.violation <= FEASIBLE for reading in self.point.readings)


@dataclass(frozen=True)
class TrainerFacts:
    """What a run of the trainer was given, as far as advice depends on it.

    Attributes:
        rate: Learning rate of the last step.
        cap: Of multipliers; None for none.
        capped: Whether each multiplier stands at it.
        sequences: How many sequences of the training data the trace reads.
        of: How many there are; None for a stream.
        bound: What any student could reach on these sequences; None where that is not known.
        not_examined: What was not looked at, and why.
        evaluated: Safety of each constraint on the data that were evaluated last, by name.
    """

    rate: float
    cap: float | None
    capped: Sequence[bool]
    sequences: int
    of: int | None
    bound: FeasibilityBound | None = None
    not_examined: Sequence[str] = ()
    evaluated: Mapping[str, float] = field(default_factory=dict)


def judge_trainer(points: Sequence[TracePoint], tolerance: float, facts: TrainerFacts) -> Verdict:
    """Return the verdict on a run that has ended.

    Args:
        points: Its trace, at least one.
        tolerance: Residuals up to this are small.
        facts: What it was given.
    """
    last = points[-1]
    numbers = f"{format_residuals(last.residuals)} at step {last.step}, {_describe_sample(facts)}"
    evidence = {
        **asdict(last.residuals),
        "tolerance": tolerance,
        "safety": [reading.measured for reading in last.readings],
        "violations": [reading.violation for reading in last.readings],
        "multipliers": list(last.multipliers),
    }
    if facts.bound is not None:
        evidence |= {"least_violation": facts.bound.least, "farkas": [float(w) for w in facts.bound.weights_M]}
    if facts.not_examined:
        evidence["not_examined"] = list(facts.not_examined)
    if rising := find_rising(points):
        evidence["rising"] = [last.readings[m].name for m in rising]
    status, message, move = _judge(points, tolerance, facts, numbers)
    message += describe_evaluated(last, facts.evaluated)
    if facts.not_examined and status not in ("diverged", "infeasible"):
        message += f" Not examined: {'; '.join(facts.not_examined)}."
    return Verdict(status, message, move, evidence)


def _judge(
    points: Sequence[TracePoint], tolerance: float, facts: TrainerFacts, numbers: str
) -> tuple[Status, str, str]:
    last = points[-1]
    violated = last.residuals.primal > tolerance
    if not last.finite:
        return (
            "diverged",
            f"At step {last.step} {last.unusable}.",
            f"Lower the learning rate, now {facts.rate:.3g}, and go on from a checkpoint before that step.",
        )
    if violated and facts.bound is not None and facts.bound.infeasible:
        return _judge_beyond_reach(points, facts, facts.bound, numbers)
    capped = [reading.name for reading, at_cap in zip(last.readings, facts.capped, strict=True) if at_cap]
    if violated and capped:
        return (
            "cap_active",
            f"The multiplier of {', '.join(capped)} stands at its cap; a constraint is still violated ({numbers}).",
            f"Raise or drop the cap, now {facts.cap:g}, or lower the threshold.",
        )
    if exploded := find_exploded(points, tolerance):
        names = ", ".join(f"'{last.readings[m].name}' to {last.multipliers[m]:.3g}" for m in exploded)
        return (
            "overpenalized",
            f"The multiplier exploded, of {names} nats a unit of safety: it outweighs every loss of the run "
            f"({numbers}).",
            "Pose the constraint on a measure whose gradient does not vanish, kd.language.LogTruthProbability say, or "
            f"lower its threshold or the learning rate, now {facts.rate:.3g}.",
        )
    if is_converged(last, tolerance):
        return (
            "stationary_unverified",
            f"All KKT residuals are within {tolerance:g} ({numbers}). Whether the student sits at a minimum was not "
            "examined: a fused loss has no second derivatives.",
            "Certify it on text that nothing else saw: trainer.certify(held_out).",
        )
    if violated and is_stalled(points):
        rising = "".join(
            f" The multiplier of '{last.readings[m].name}' rose from {points[len(points) // 2].multipliers[m]:.3g} to "
            f"{last.multipliers[m]:.3g} meanwhile, so more weight does not bring this student nearer."
            for m in find_rising(points)
        )
        return (
            "budget_spent",
            f"The violation stood still over the second half of the run ({numbers}).{rising} That no student could "
            "meet the thresholds is not shown.",
            f"Lower {format_reached(points)}, which this run reached; or give a larger student, or teachers that are "
            "safer there.",
        )
    met = "a constraint is still violated" if violated else "the constraints are met"
    return (
        "budget_spent",
        f"The steps ended before all KKT residuals were within {tolerance:g} ({numbers}); {met}.",
        "Train longer: a larger max_steps or num_train_epochs, and trainer.train(resume_from_checkpoint=True). "
        "trainer.trace has every residual.",
    )


def _judge_beyond_reach(
    points: Sequence[TracePoint], facts: TrainerFacts, bound: FeasibilityBound, numbers: str
) -> tuple[Status, str, str]:
    """Thresholds that no student meets on the sequences of the trace: of all data that is a proof, else it is not."""
    last, whole = points[-1], facts.of is not None and facts.sequences >= facts.of
    weighed = " + ".join(
        f"{weight:.3g} '{reading.name}'"
        for weight, reading in zip(bound.weights_M, last.readings, strict=True)
        if weight > STATUS_SETTINGS.least_weight
    )
    shown = "" if whole else " Of the other training data nothing is shown."
    return (
        "infeasible" if whole else "budget_spent",
        f"No student of any size meets these thresholds {_describe_sample(facts)}: {weighed} can be at most "
        f"{bound.bound:.4g}, and {bound.wanted:.4g} is asked for (Farkas weights over one distribution a "
        f"prefix).{shown} The run ended at {numbers}.",
        f"Lower {format_reached(points)}, which this run reached: longer training cannot meet both thresholds and "
        "labels; or drop the constraint that contradicts the others.",
    )


def find_rising(points: Sequence[TracePoint]) -> list[int]:
    """Return the constraints whose multiplier rose over the second half of a run while their violation did not fall.

    Args:
        points: A trace.
    """
    half = len(points) // 2
    if len(points) < STATUS_SETTINGS.least_points:
        return []
    rising = []
    for m, reading in enumerate(points[-1].readings):
        violation_P = [point.readings[m].violation for point in points]
        stood = min(violation_P[half:]) > STATUS_SETTINGS.stalled * min(violation_P[:half]) > 0
        grew = points[-1].multipliers[m] > STATUS_SETTINGS.growing * points[half].multipliers[m]
        if reading.violation > FEASIBLE and stood and grew:
            rising.append(m)
    return rising


def format_reached(points: Sequence[TracePoint]) -> str:
    """Say to which values thresholds would have to be lowered for the most feasible student to meet them.

    Args:
        points: A trace.
    """
    best = min(points, key=rank_point)
    missed = [reading for reading in best.readings if reading.violation > 0]
    return ", ".join(f"'{reading.name}' to {int(reading.measured * 1e4) / 1e4:g}" for reading in missed)


def describe_evaluated(last: TracePoint, evaluated: Mapping[str, float]) -> str:
    """Return a sentence on constraints that are met on training data and missed where the run was evaluated.

    Args:
        last: Last point of the trace.
        evaluated: Safety on the data that were evaluated last, by name of the constraint.
    """
    missed = [
        f"'{reading.name}' is {evaluated[reading.name]:.4g} there, wanted {reading.required:g}"
        for reading in last.readings
        if reading.violation <= FEASIBLE and reading.required - evaluated.get(reading.name, math.inf) > FEASIBLE
    ]
    return (
        f" On the evaluated data a constraint is missed that is met in training: {'; '.join(missed)}." if missed else ""
    )


def _describe_sample(facts: TrainerFacts) -> str:
    if facts.of is not None and facts.sequences >= facts.of:
        return f"on all {facts.sequences} training sequences"
    return f"on {facts.sequences} training sequences" + ("" if facts.of is None else f" of {facts.of}")
