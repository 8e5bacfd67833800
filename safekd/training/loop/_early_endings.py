"""Verdicts of runs that end before their last step for no reason of the problem's: who stopped them, and what to do."""

from __future__ import annotations

from .._fit_result import Verdict
from ..diagnosis import RunFacts, advise_finite_numbers, format_residuals
from ..trace import TracePoint


def judge_not_finite(what: str, source: str, step: int, facts: RunFacts) -> Verdict:
    """Return the verdict of a run that met a number that is not finite.

    Args:
        what: Happened, in words.
        source: What was not finite.
        step: Steps taken.
        facts: What the run was given.
    """
    return Verdict("diverged", what, advise_finite_numbers(source, step, facts))


def judge_stopped(reason: str, point: TracePoint, step: int, steps: int) -> Verdict:
    """Return the verdict of a run that a callback stopped.

    Args:
        reason: Of the callback.
        point: The last one.
        step: Steps taken.
        steps: Of the whole run.
    """
    return Verdict(
        "budget_spent",
        f"{reason} (step {step} of {steps}: {format_residuals(point.residuals)}).",
        "Go on from here with fit(..., warm_start=kd.WarmStart.from_result(result)), or take the student as it is.",
    )


def judge_impatient(point: TracePoint, steps: int, patience: int) -> Verdict:
    """Return the verdict of a run whose student no longer got better on the validation split.

    Args:
        point: The last one.
        steps: Of the whole run.
        patience: Evaluations in a row without a better student.
    """
    return Verdict(
        "budget_spent",
        f"Stopped early at step {point.step} of {steps}: {patience} evaluations in a row gave no better "
        f"student on the validation split ({format_residuals(point.residuals)}).",
        "Take result.best_validated, or go on with more `patience`.",
    )
