"""The rule that thresholds were raised by before: up a ladder, each look at a share of the error (Bonferroni).

Kept here as what newer rules are measured against.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import safekd as kd
from safekd.training import FitResult, interpolate_threshold

LOOKS, CONFIDENCE = 6, 0.95


def fit_up_a_ladder(
    trainer: Callable[[], kd.ConstrainedTrainer],
    rule: kd.SafetyConstraint,
    judge: kd.Split,
    fit: Callable[[kd.ConstrainedTrainer, kd.WarmStart | None], Any],
) -> tuple[FitResult, bool]:
    """Train under thresholds that rise until the bound on ``judge`` reaches what is asked for; then half a step back.

    Args:
        trainer: Makes a trainer under ``rule``; it is used once, round after round from a warm start.
        rule: What is asked for.
        judge: The split that judges.
        fit: One run of a trainer from a warm start.

    Returns:
        The result of the last round that cleared, else of the last, and whether it cleared.
    """
    level, highest = 1 - (1 - CONFIDENCE) / LOOKS, 1 - (1 - rule.required) / 10
    start: kd.WarmStart | None = None
    low = 0.0

    def attempt(share: float) -> tuple[FitResult, bool]:
        raised = rule.with_threshold(interpolate_threshold(rule.required, highest, share))
        result = fit(trainer().with_constraints([raised]), start)
        return result, kd.certify(result.student, rule, judge, level).decision == "safe"

    for number in range(LOOKS):
        share = number / (LOOKS - 1)
        result, cleared = attempt(share)
        start = kd.WarmStart.from_result(result)
        if cleared and number:
            lower, clears_too = attempt((share + low) / 2)
            return (lower, True) if clears_too else (result, True)
        if cleared:
            return result, True
        low = share
    return result, False
