"""What to do after a run, as advice that fits it: full batches are not advised to whoever used them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

from ..trace import TracePoint

GO_ON = "fit(..., warm_start=kd.WarmStart.from_result(result))"


@dataclass(frozen=True)
class AdviceSettings:
    """Where advice turns; ``tests/safekd/training/diagnosis/test_next_moves.py`` notices.

    Attributes:
        falling: Share of what a residual was at the middle of a run below which it still falls.
        rising: Share of the evaluations since then at which it rose, above which it goes up and down.
        spent_rate: Share of its first value below which a scheduled learning rate moves nothing any more.
        coarse: Relative precision of parameters above which their rounding may hold a residual up.
    """

    falling: float = 0.7
    rising: float = 0.25
    spent_rate: float = 1e-3
    coarse: float = 1e-4


SETTINGS = AdviceSettings()


@dataclass(frozen=True)
class RunFacts:
    """What a run was given, as far as advice depends on it.

    Attributes:
        examples: Of the training split.
        batch_size: Examples a step.
        rate: Largest learning rate at the end.
        first_rate: The same at the start of its schedule.
        weight_decay: Largest of the optimizer.
        cap: Of multipliers; None for none.
        validation: Whether a validation split was read.
        certifiable: Names of constraints that ``kd.certify`` takes.
        sampled: Examples from which gradients of full passes are estimated; None where they are exact.
        dtype: Name of the coarsest floats among the student's parameters.
        eps: Their relative precision.
    """

    examples: int
    batch_size: int
    rate: float
    first_rate: float
    weight_decay: float = 0.0
    cap: float | None = None
    validation: bool = False
    certifiable: Sequence[str] = ()
    sampled: int | None = None
    dtype: str = "float32"
    eps: float = 2.0**-23

    @property
    def full_batches(self) -> bool:
        """Whether each step read the whole training split."""
        return self.batch_size >= self.examples


def advise_after_convergence(facts: RunFacts) -> str:
    """Say how to judge a student that has converged.

    Args:
        facts: Of the run.
    """
    unseen = "" if facts.validation else " Pass `validation=` to fit to see beforehand what new data show."
    if not facts.certifiable:
        return f"Evaluate it on data that nothing else saw.{unseen}"
    what = "constraint" if len(facts.certifiable) == 1 else "constraints"  # a list, which holds together
    return f"Certify it on data that nothing else saw: kd.certify(result, {what}, held_out).{unseen}"


def advise_leaving_saddle(facts: RunFacts) -> str:
    """Say how to leave a point that is no minimum.

    Args:
        facts: Of the run.
    """
    if not facts.full_batches:
        return "Start from other parameters, not all alike or zero."
    return (
        "Start from other parameters, not all alike or zero, or train on in small batches, whose noise leaves such a "
        "point."
    )


def advise_more_training(points: Sequence[TracePoint], tolerance: float, facts: RunFacts) -> str:
    """Say what could bring the residuals down that are still too large.

    Args:
        points: The trace.
        tolerance: Residuals up to this are none.
        facts: Of the run.
    """
    half = [asdict(point.residuals) for point in points[len(points) // 2 :]]
    large = {name: value for name, value in half[-1].items() if not value <= tolerance}
    if facts.sampled is not None and not large:
        return f"Estimate stationarity from more than {facts.sampled} examples, so that its error shrinks: `Sampled`."
    worst = max(large, key=lambda name: large[name], default="stationarity")
    value_P = [residuals[worst] for residuals in half]
    rises_P = [after > before for before, after in pairwise(value_P)]
    wavers = SETTINGS.rising * len(rises_P) < sum(rises_P) < len(rises_P)
    slow = value_P[-1] > SETTINGS.falling * value_P[0]
    if facts.rate < SETTINGS.spent_rate * facts.first_rate:
        moves = [f"Let the learning rate fall more slowly: its schedule ended at {facts.rate:.2g}, where nothing moves"]
    elif slow and wavers:
        moves = [f"Lower the learning rate, now {facts.rate:.3g}: {worst} goes up and down"]
        moves += [] if facts.full_batches else [f"or take batches of more than {facts.batch_size} examples"]
    else:
        moves = [f"Train longer: {GO_ON} goes on from here"]
        moves += [f"or raise the learning rate, now {facts.rate:.3g}: {worst} hardly falls"] if slow else []
    if facts.weight_decay > 0 and worst == "stationarity":
        moves.append(f"set weight_decay, now {facts.weight_decay:g}, to 0: it holds stationarity up")
    if facts.eps > SETTINGS.coarse and worst == "stationarity":
        moves.append(f"keep the parameters in float32: those of {facts.dtype} move in steps of {facts.eps:.1g}")
    return "; ".join(moves) + ". result.trace has every residual."


def advise_raising_cap(facts: RunFacts) -> str:
    """Say what to do about a multiplier at its cap.

    Args:
        facts: Of the run.
    """
    now = "" if facts.cap is None else f", now {facts.cap:g}"
    return f"Raise or drop the cap{now}, or lower the threshold."


def advise_finite_numbers(source: str, step: int, facts: RunFacts) -> str:
    """Say what to mend where a number was not finite.

    Args:
        source: What was not finite, from ``find_..._source``.
        step: Steps taken before.
        facts: Of the run.
    """
    if source.startswith("Teacher"):
        return "Mend what is named, or leave that teacher out: no learning rate changes what a teacher gives."
    if "weighting rule" in source:
        return "Lower the rate of `weights_optimizer`, or mend what is named."
    if step == 0:
        return "Mend what is named: it was so before the first step, whatever the learning rate."
    return f"Lower the learning rate, now {facts.rate:.3g}, or mend what is named."
