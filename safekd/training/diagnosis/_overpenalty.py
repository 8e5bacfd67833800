"""Whether a run was over-penalized: a multiplier that exploded, or a loss above its start that no constraint explains.

With the final multipliers, a student that minimizes ``f + lambda . g`` is no worse there than the student with which
the run began, so its loss has risen by at most ``lambda . (g before - g now)``.  What it has risen beyond that is
excess: penalties of the past have thrown the student where it cannot come back from, or steps are too long.

Which of the two, the largest weight w says with which a surrogate's gradient ever entered a step.  Where ``w |grad g|``
stays below ``|grad f|``, the loss falls along ``-(grad f + w grad g)`` whatever the angle; and descent on ``f + w . g``
raises f by at most ``w . (g before - g after)``.  Where one of the two clears the constraints, the loss rose by the
steps themselves, as it would have without them: the status is ``loss_rose``.
Axes: M constraints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .._fit_result import Verdict
from ..trace import TracePoint
from ._next_moves import RunFacts


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
        least_share: Share of the excess that the constraints' weights must be able to cause, to be blamed for it.
        least_force: Share of the loss's gradient that the force of one must have reached, likewise.  Of students whose
            loss rises with and without a constraint forces reach .13; where penalties throw a student, 1 and more.
        flat: Gradient norm of a violated constraint's surrogate that counts as none.
    """

    outweighs: float = 10.0
    least_loss: float = 1.0
    least_excess: float = 0.01
    excess_share: float = 0.05
    least_share: float = 0.5
    least_force: float = 0.5
    flat: float = 1e-4


SETTINGS = OverpenaltySettings()


@dataclass(frozen=True)
class Overpenalty:
    """What shows that a run was over-penalized.

    Attributes:
        exploded: Numbers of the constraints whose multiplier exploded.
        excess: By how much the loss is above its start beyond what the constraints explain, nats; 0 where it is noise.
        caused: By how much the constraints can have raised it at most, by the largest weights that they had, nats.
        force: The largest force of one, weight times gradient, as a share of the loss's gradient.
    """

    exploded: Sequence[int]
    excess: float
    caused: float = math.inf
    force: float = math.inf

    def __bool__(self) -> bool:
        return bool(self.exploded) or self.excess > 0

    @property
    def acquits(self) -> bool:
        """Whether the constraints cannot have raised the loss."""
        weak = self.caused < SETTINGS.least_share * self.excess or self.force < SETTINGS.least_force
        return weak and not self.exploded


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
    excess = 0.0 if targets_move else _measure_excess(points)
    return Overpenalty(find_exploded(points, tolerance), excess, _bound_caused_rise(points), _measure_force(points))


def judge_overpenalized(
    points: Sequence[TracePoint], overpenalty: Overpenalty, facts: RunFacts, numbers: str, more: str
) -> Verdict:
    """Return the verdict on a run that was over-penalized, or whose loss rose by itself.

    Args:
        points: Its trace.
        overpenalty: What shows it.
        facts: What the run was given.
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
    if overpenalty.acquits:
        return _judge_loss_rose(points, overpenalty, facts, f"{said} ({numbers}).", more)
    if overpenalty.excess > 0:
        said += f": {overpenalty.excess:.4g} more than the constraints explain at their multipliers"
    return Verdict(
        "overpenalized",
        f"{said} ({numbers}).{describe_flat(last)}{more}",
        f"Lower the learning rate, now {facts.rate:.3g}; train without constraints first and go on from there, "
        "fit(..., warm_start=kd.WarmStart.from_result(before)); or pose the constraint on a measure whose gradient "
        "does not vanish, such as TruthProbability. result.best_feasible and result.most_feasible may be students "
        "from before.",
        {
            "first_loss": first.loss,
            "loss": last.loss,
            "excess": overpenalty.excess,
            "caused_at_most": overpenalty.caused,
            "force": overpenalty.force,
            "exploded": [last.readings[m].name for m in overpenalty.exploded],
            "multipliers": list(last.multipliers),
            "peak_weights": list(last.peak_weights),
        },
    )


def _judge_loss_rose(
    points: Sequence[TracePoint], overpenalty: Overpenalty, facts: RunFacts, said: str, more: str
) -> Verdict:
    last = points[-1]
    why = (
        f" The constraints never pushed harder than {overpenalty.force:.2g} times as hard as the loss, with weights "
        f"that explain {overpenalty.caused:.2g} nats at most: it rose by the steps themselves."
        if last.readings
        else " No constraint was posed: it rose by the steps themselves."
    )
    batches = "" if facts.full_batches else f" or take batches of more than {facts.batch_size} examples,"
    return Verdict(
        "loss_rose",
        f"{said}{why}{more}",
        f"Lower the learning rate, now {facts.rate:.3g},{batches} or keep the student as it was before.",
        {
            "first_loss": points[0].loss,
            "loss": last.loss,
            "excess": overpenalty.excess,
            "caused_at_most": overpenalty.caused,
            "force": overpenalty.force,
            "multipliers": list(last.multipliers),
            "peak_weights": list(last.peak_weights),
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


def _bound_caused_rise(points: Sequence[TracePoint]) -> float:
    """Return how far descent on the loss and on surrogates of the largest weights can have raised the loss."""
    last = points[-1]
    if len(last.peak_weights) < len(last.readings):  # nobody knows them
        return math.inf
    moved = [[point.readings[m].surrogate for point in points] for m in range(len(last.readings))]
    ranges = [max(1.0, max(values) - min(values)) for values in moved]
    return sum(weight * size for weight, size in zip(last.peak_weights, ranges, strict=True))


def _measure_force(points: Sequence[TracePoint]) -> float:
    """Return the largest force of a constraint as a share of the loss's gradient, by batches that violated it.

    Where a dual method reads no scales, gradients on whole splits have to do.
    """
    last = points[-1]
    norm = max(max(point.gradient_norm for point in points), 1e-300)
    forces = [0.0]
    for m, weight in enumerate(last.peak_weights):
        scale = last.multiplier_scales[m] if last.multiplier_scales else math.nan
        if weight > 0 and math.isnan(scale):
            norms = [point.constraint_gradient_norms[m] for point in points if point.constraint_gradient_norms]
            scale = norm / max(max(norms, default=math.inf), 1e-300)
        forces.append(weight / max(scale, 1e-300) if weight > 0 else 0.0)
    return max(forces) if len(last.peak_weights) == len(last.readings) else math.inf
