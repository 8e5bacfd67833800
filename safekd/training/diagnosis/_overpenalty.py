"""Whether a run was over-penalized: a multiplier that exploded, or a loss above its start that no constraint explains.

With the final multipliers, a student that minimizes ``f + lambda . g`` is no worse there than the student with which
the run began, so its loss has risen by at most ``lambda . (g before - g now)``.  What it has risen beyond that is
excess: penalties of the past have thrown the student where it cannot come back from, or steps are too long.
Axes: M constraints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .._fit_result import Verdict
from ..trace import TracePoint


@dataclass(frozen=True)
class OverpenaltySettings:
    """When a multiplier has exploded, and when a loss is above its start.

    ``tests/safekd/training/diagnosis/test_overpenalty.py`` and ``python -m benchmarks.counted`` notice them.

    Attributes:
        outweighs: Largest losses of the run that a miss as small as the tolerance must weigh for its multiplier to have
            exploded: the loss then has no say any more.
        least_loss: Nats: losses of the run below this count as this.
        least_excess: Nats: excess up to this is noise of small batches.
        excess_share: Share of the first loss up to which excess is noise.
        flat: Gradient norm of a violated constraint's surrogate that counts as none.
    """

    outweighs: float = 10.0
    least_loss: float = 1.0
    least_excess: float = 0.01
    excess_share: float = 0.05
    flat: float = 1e-4


SETTINGS = OverpenaltySettings()


@dataclass(frozen=True)
class Overpenalty:
    """What shows that a run was over-penalized.

    Attributes:
        exploded: Numbers of the constraints whose multiplier exploded.
        excess: By how much the loss is above its start beyond what the constraints explain, nats; 0 where it is noise.
    """

    exploded: Sequence[int]
    excess: float

    def __bool__(self) -> bool:
        return bool(self.exploded) or self.excess > 0


def find_exploded(points: Sequence[TracePoint], tolerance: float) -> list[int]:
    """Return the constraints whose multiplier makes a miss of the tolerance outweigh every loss of the run.

    Args:
        points: A trace.
        tolerance: Of the run.
    """
    if max(map(abs, points[-1].multipliers), default=0.0) * tolerance <= SETTINGS.outweighs * SETTINGS.least_loss:
        return []  # whatever the losses: asked at every evaluation
    largest = max((point.loss for point in points if math.isfinite(point.loss)), default=math.inf)
    most = SETTINGS.outweighs * max(largest, SETTINGS.least_loss) / tolerance
    return [m for m, multiplier in enumerate(points[-1].multipliers) if abs(multiplier) > most]


def find_overpenalty(points: Sequence[TracePoint], tolerance: float, *, targets_move: bool = False) -> Overpenalty:
    """Look at the first and the last point of a trace.

    Args:
        points: A trace.
        tolerance: Of the run.
        targets_move: Whether losses of different steps are about different targets, so that none can be above another.
    """
    return Overpenalty(find_exploded(points, tolerance), 0.0 if targets_move else _measure_excess(points))


def judge_overpenalized(
    points: Sequence[TracePoint], overpenalty: Overpenalty, rate: float, numbers: str, more: str
) -> Verdict:
    """Return the verdict on a run that was over-penalized.

    Args:
        points: Its trace.
        overpenalty: What shows it.
        rate: Learning rate of the student at the end.
        numbers: The residuals in words.
        more: A sentence more, beginning with a blank; empty for none.
    """
    first, last = points[0], points[-1]
    said = f"The loss is {last.loss:.4g} nats, and was {first.loss:.4g} at the start"
    if overpenalty.exploded:
        names = ", ".join(f"'{last.readings[m].name}' to {last.multipliers[m]:.3g}" for m in overpenalty.exploded)
        said = (
            f"The multiplier exploded, of {names} nats a unit of safety: it outweighs every loss of the run, so the "
            f"student no longer follows its teachers. {said}"
        )
    if overpenalty.excess > 0:
        said += f": {overpenalty.excess:.4g} more than the constraints explain at their multipliers"
    return Verdict(
        "overpenalized",
        f"{said} ({numbers}).{describe_flat(last)}{more}",
        f"Lower the learning rate, now {rate:.3g}; train without constraints first and go on from there, fit(..., "
        "warm_start=kd.WarmStart.from_result(before)); or pose the constraint on a measure whose gradient does not "
        "vanish, such as TruthProbability. result.best_feasible and result.most_feasible may be students from before.",
        {
            "first_loss": first.loss,
            "loss": last.loss,
            "excess": overpenalty.excess,
            "exploded": [last.readings[m].name for m in overpenalty.exploded],
            "multipliers": list(last.multipliers),
        },
    )


def describe_flat(point: TracePoint) -> str:
    """Return a sentence on violated constraints whose surrogate is flat, beginning with a blank; empty for none.

    Args:
        point: What was read.
    """
    flat = [
        f"'{reading.name}'"
        for reading, norm in zip(point.readings, point.constraint_gradient_norms, strict=False)
        if reading.violation > 0 and norm < SETTINGS.flat
    ]
    if not flat:
        return ""
    return f" The surrogate of {', '.join(flat)} has next to no gradient where the student is."


def _measure_excess(points: Sequence[TracePoint]) -> float:
    first, last = points[0], points[-1]
    explained = 0.0
    for multiplier, before, now in zip(last.multipliers, first.readings, last.readings, strict=True):
        gained = (now.measured - before.measured, now.surrogate - before.surrogate)
        explained += max(multiplier * gain for gain in gained)
    excess = last.loss - first.loss - explained
    least = max(SETTINGS.least_excess, SETTINGS.excess_share * first.loss)
    return excess if excess > least else 0.0
