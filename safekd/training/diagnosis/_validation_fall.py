"""Whether safety on the validation split fell while training went on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .._fit_result import Verdict
from ..checkpoints import rank_validation
from ..trace import TracePoint


@dataclass(frozen=True)
class ValidationFallSettings:
    """When a fall is told; ``tests/safekd/training/test_best_validated.py`` notices.

    Attributes:
        errors: Standard errors of the reading that safety must have fallen by.  Both students are read on the same
            examples, so a fall of one is no noise of the split.
    """

    errors: float = 1.0


SETTINGS = ValidationFallSettings()


def add_validation_fall(verdict: Verdict, points: Sequence[TracePoint]) -> Verdict:
    """Say in a verdict where the validation split shows less safety at the end than it did, and less than required.

    Args:
        verdict: Of the run.
        points: Its trace.

    Returns:
        The verdict, with a sentence, a next move and evidence more where there was such a fall.
    """
    ranks = [(rank, point) for point in points if (rank := rank_validation(point)) is not None]
    if not ranks:
        return verdict
    _, best = min(ranks, key=lambda pair: pair[0])
    falls = [
        (before, now)
        for before, now in zip(best.validation, points[-1].validation, strict=True)
        if now.violation > 0 and now.violation - before.violation > SETTINGS.errors * now.standard_error
    ]
    if not falls:
        return verdict
    told = ", ".join(f"'{now.name}' from {before.measured:.4g} to {now.measured:.4g}" for before, now in falls)
    return replace(
        verdict,
        message=f"{verdict.message} On the validation split safety fell while training went on: {told} since step "
        f"{best.step}.",
        next_move=f"Compare result.best_validated, the student of step {best.step}, which is the safest there; pass "
        f"`patience` to end such runs early. {verdict.next_move}".rstrip(),
        evidence={
            **verdict.evidence,
            "validation_best_step": float(best.step),
            "validation_best": [reading.measured for reading in best.validation],
            "validation_last": [reading.measured for reading in points[-1].validation],
        },
    )
