"""From readings to a verdict.  Growth of a multiplier alone proves nothing, and is never used as evidence here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from solvers.infeasibility import SETTINGS as INFEASIBILITY

from ._curvature import Curvature
from ._keeper import rank
from ._objective import FullPass
from ._outlook import Outlook
from ._restoration import Restoration
from ._result import Finding, Verdict
from .trace import TracePoint

_MOST_PASSES = 150  # over the data, for evidence; nor does it take more than the run did
_PULLED = 1e-2  # slope of the mean of -log(safety) that has none
LEAST_POINTS = 4


class Evidence(Protocol):
    """What can be looked up once a run has ended."""

    def outlook(self) -> Outlook | None:
        """Return what any student could reach, None where that is not known."""

    def curvature(self, point: TracePoint, jacobian_Mn: Tensor, tolerance: float, passes: int) -> Curvature:
        """Return the curvature where the student is."""

    def hidden_drop(self, point: TracePoint, passes: int) -> tuple[Sequence[str], float]:
        """Name blind parameters, and say how much lower a descent ends once they are nudged."""

    def restoration(self, passes: int) -> Restoration:
        """Return how far the violation alone can be brought down."""


@dataclass(frozen=True)
class Ended:
    """A run that has stopped by itself or spent its budget.

    points: its trace.  jacobian_Mn: slopes of g at the last point.  capped: names of constraints at their cap.
    """

    points: Sequence[TracePoint]
    jacobian_Mn: Tensor
    tolerance: float
    capped: Sequence[str]

    @property
    def last(self) -> TracePoint:
        return self.points[-1]

    @property
    def passes(self) -> int:
        """How many passes over the data evidence may cost."""
        return min(_MOST_PASSES, max(self.last.epoch, 1))

    @property
    def violated(self) -> bool:
        return self.last.residuals.primal > self.tolerance

    @property
    def numbers(self) -> str:
        found = self.last.residuals
        return (
            f"stationarity {found.stationarity:.2g}, primal {found.primal:.2g}, dual {found.dual:.2g}, "
            f"complementarity {found.complementarity:.2g} at step {self.last.step}"
        )

    @property
    def best(self) -> TracePoint:
        """The point whose student ``most_feasible`` is."""
        return min(self.points, key=rank)


def is_converged(point: TracePoint, tolerance: float) -> bool:
    """Say whether all four residuals are small; what is no number never is.

    An estimated stationarity must be small with two standard errors added.  A counted mix moves in steps, and its slack
    cannot be brought below one: its complementarity may be as large as that step, primal feasibility never.
    """
    found = point.residuals
    step = max((reading.resolution for reading in point.readings if not reading.equality), default=0.0)
    return replace(found, stationarity=point.stationarity_bound, complementarity=found.complementarity - step).holds(
        tolerance
    )


def ending(run: Ended, evidence: Evidence) -> Verdict:
    """Judge a run, looking up no more evidence than its end calls for."""
    outlook = evidence.outlook() if run.violated or any(price != 0 for price in run.last.multipliers) else None
    if run.violated and outlook is not None and outlook.impossible:
        return _impossible(run, outlook, evidence)
    if run.violated and run.capped:
        return _at_cap(run)
    if outlook is not None and outlook.at_the_edge:
        return _at_the_edge(run, outlook)
    if growing := _growing_for_ever(run):
        return _without_multiplier(run, growing)
    if is_converged(run.last, run.tolerance):
        return _stationary(run, evidence)
    if run.violated and stands_still(run.points):
        return _stuck(run, evidence)
    return _budget_spent(run, {})


def stands_still(points: Sequence[TracePoint]) -> bool:
    """Say whether the least violation fell by less than a tenth over the second half of the points."""
    half = len(points) // 2
    if len(points) < LEAST_POINTS:
        return False
    return min(map(_worst, points)) > 0.9 * min(map(_worst, points[:half]))


def _worst(point: TracePoint | FullPass) -> float:
    return max((reading.violation for reading in point.readings), default=0.0)


def _growing_for_ever(run: Ended) -> list[int]:
    """Return the constraints whose multiplier grew while its force stayed the same and its violation shrank.

    Stationarity held at every point of the second half, and the force, multiplier times gradient, hardly changed: the
    multiplier rose because the gradient of the constraint vanished, so at the limit no multiplier exists.  One that is
    only slow pulls harder as it rises.
    """
    points = run.points[len(run.points) // 2 :]
    if len(points) < LEAST_POINTS or any(p.residuals.stationarity > 3 * run.tolerance for p in points):
        return []
    growing = []
    for m in range(len(run.last.readings)):
        lambda_P, violation_P = [p.multipliers[m] for p in points], [p.readings[m].violation for p in points]
        force_P = [p.multipliers[m] * p.constraint_gradient_norms[m] for p in points if p.constraint_gradient_norms]
        heavy = lambda_P[-1] * float(run.jacobian_Mn[m].norm()) > 30 * run.tolerance * (1 + run.last.gradient_norm)
        alike = max(force_P, default=0.0) <= 1.05 * min(force_P, default=0.0)
        nearer = min(violation_P) > 0 and violation_P[-1] < 0.7 * violation_P[0]
        if heavy and alike and nearer and lambda_P[-1] > 1.3 * lambda_P[0]:
            growing.append(m)
    return growing


def _reached(point: TracePoint | FullPass) -> str:
    return ", ".join(f"{reading.name} {reading.measured:.4g}" for reading in point.readings)


def _names(point: TracePoint, chosen: Sequence[int]) -> str:
    return ", ".join(f"'{point.readings[m].name}'" for m in chosen)


def _residuals(run: Ended) -> dict[str, Finding]:
    found = run.last.residuals
    return {
        "stationarity": found.stationarity,
        "primal": found.primal,
        "dual": found.dual,
        "complementarity": found.complementarity,
        "tolerance": run.tolerance,
    }


def _lower_to(point: TracePoint | FullPass) -> str:
    """Say which thresholds a student has been seen to reach."""
    missed = [reading for reading in point.readings if reading.violation > 0]
    wanted = ", ".join(f"'{reading.name}' to {_below(reading.measured)}" for reading in missed)
    return f"Lower {wanted}: result.most_feasible reaches that" if wanted else "result.most_feasible meets all of them"


def _below(value: float) -> str:
    """Write a value that can be reached, rounded down."""
    return f"{int(value * 1e4) / 1e4:.4g}"


def _impossible(run: Ended, outlook: Outlook, evidence: Evidence) -> Verdict:
    tried = evidence.restoration(run.passes)
    best = tried.full if tried.least < _worst(run.best) else run.best
    weights = [float(weight) for weight in outlook.weights_M]
    chosen = [m for m, weight in enumerate(weights) if weight > 1e-6]
    weighed = " + ".join(f"{weights[m]:.3g} '{run.last.readings[m].name}'" for m in chosen)
    return Verdict(
        "infeasible",
        f"No student of any size meets these thresholds on this data: {weighed} can be at most {outlook.bound:.4g}, "
        f"and {outlook.wanted:.4g} is asked for, so some constraint stays {outlook.least:.4g} or more below its "
        f"threshold (Farkas weights from a linear program over distributions, checked in closed form). Best safety "
        f"reached: {_reached(best)} ({run.numbers}).",
        f"{_lower_to(best)}.",
        {
            "proof": "farkas",
            "farkas": weights,
            "least_violation": outlook.least,
            "weighted_bound": outlook.bound,
            "weighted_threshold": outlook.wanted,
            **_best(best),
            **_residuals(run),
        },
    )


def _best(point: TracePoint | FullPass) -> dict[str, Finding]:
    return {"best_safety": [reading.measured for reading in point.readings], "best_violation": _worst(point)}


def _at_cap(run: Ended) -> Verdict:
    return Verdict(
        "cap_active",
        f"The multiplier of {', '.join(run.capped)} stands at its cap; a constraint is still violated ({run.numbers}).",
        "Raise or drop the cap, or lower the threshold.",
        {"capped": list(run.capped), **_best(run.best), **_residuals(run)},
    )


def _at_the_edge(run: Ended, outlook: Outlook) -> Verdict:
    chosen = list(outlook.at_the_edge)
    prices = ", ".join(f"{run.last.multipliers[m]:.4g}" for m in chosen)
    many, leave = ("thresholds", "leave") if len(chosen) > 1 else ("threshold", "leaves")
    return Verdict(
        "no_multiplier",
        f"The {many} of {_names(run.last, chosen)} {leave} no room at all: what is asked for is the most that can be "
        f"had, and only with probabilities of exactly 0, which a softmax comes near and never gives. So no multiplier "
        f"exists (now {prices}, and it would grow without end). Best safety reached: "
        f"{_reached(run.best)} ({run.numbers}).",
        f"Lower the {many} a little, by 0.001 for example, or accept the student as it is. {_lower_to(run.best)}.",
        {
            "edge": [run.last.readings[m].name for m in chosen],
            "room": -outlook.least,
            "farkas": [float(weight) for weight in outlook.weights_M],
            "violations": [_worst(point) for point in run.points[-LEAST_POINTS:]],
            **_best(run.best),
            **_residuals(run),
        },
    )


def _without_multiplier(run: Ended, chosen: list[int]) -> Verdict:
    half = run.points[len(run.points) // 2]
    grew = ", ".join(f"from {half.multipliers[m]:.4g} to {run.last.multipliers[m]:.4g}" for m in chosen)
    return Verdict(
        "no_multiplier",
        f"Over the second half of the run the multiplier of {_names(run.last, chosen)} grew {grew} with the student "
        "stationary all the while, and the violation still shrinks: the constraint's slope vanishes where it is met, "
        f"so no multiplier exists. Best safety reached: {_reached(run.best)} ({run.numbers}).",
        f"Lower that threshold a little, or accept the student as it is. {_lower_to(run.best)}.",
        {
            "growing": [run.last.readings[m].name for m in chosen],
            "multipliers_before": [half.multipliers[m] for m in chosen],
            "multipliers_now": [run.last.multipliers[m] for m in chosen],
            "slopes": [float(run.jacobian_Mn[m].norm()) for m in chosen],
            "violations": [_worst(point) for point in run.points[-LEAST_POINTS:]],
            **_best(run.best),
            **_residuals(run),
        },
    )


def _stationary(run: Ended, evidence: Evidence) -> Verdict:
    seen = evidence.curvature(run.last, run.jacobian_Mn, run.tolerance, run.passes)
    found = {**_residuals(run), "least_curvature": seen.least, "largest_curvature": seen.most, "drop": seen.drop}
    if seen.unseen:
        return Verdict(
            "stationary_unverified",
            f"All KKT residuals are within {run.tolerance:g} ({run.numbers}), but whether the student sits at a "
            f"minimum could not be looked at: {seen.unseen}.",
            "Start elsewhere and compare losses, or use a student that can be differentiated twice.",
            {**found, "unseen": seen.unseen},
        )
    if seen.drop > run.tolerance / 10:
        return Verdict(
            "stationary_unverified",
            f"All KKT residuals are within {run.tolerance:g} ({run.numbers}), but the student does not sit at a "
            f"minimum: along the active constraints the Lagrangian curves down ({seen.least:.2g} of at most "
            f"{seen.most:.2g}), and a step that way lowers it by {seen.drop:.2g}.",
            "Start from other parameters, not all alike or zero, or train on in small batches, whose noise leaves such "
            "a point.",
            found,
        )
    blind, lower = evidence.hidden_drop(run.last, run.passes)
    found |= {"blind": list(blind), "drop_once_nudged": lower}
    if lower > run.tolerance / 10:
        return Verdict(
            "stationary_unverified",
            f"All KKT residuals are within {run.tolerance:g} ({run.numbers}), but the student is blind in "
            f"{', '.join(blind)}, all zeros or without a bearing on any output, and a descent from where these were "
            f"nudged ended {lower:.2g} lower.",
            "Start from other parameters: a layer of zeros behind one of zeros never learns.",
            found,
        )
    return Verdict(
        "converged",
        f"All KKT residuals are within {run.tolerance:g} ({run.numbers}), and no direction of descent was found.",
        "Certify it on data that nothing else saw: kd.certify(result, constraint, held_out).",
        found,
    )


def _stuck(run: Ended, evidence: Evidence) -> Verdict:
    """A violation that stands still: unable, or only stuck?  Descend on the violation alone before saying."""
    tried = evidence.restoration(run.passes)
    best = tried.full if tried.least < _worst(run.best) else run.best
    found: dict[str, Finding] = {
        "least_violation": tried.least,
        "slope": tried.slope,
        "pull": tried.pull,
        "dead": tried.dead,
        "passes": tried.passes,
        **_best(best),
    }
    if tried.least <= run.tolerance:
        more = (
            f" A student that meets them exists: {tried.passes} passes that left the loss aside led to "
            "result.most_feasible."
        )
        return _budget_spent(run, found, more)
    why = {
        f"{tried.dead:.0%} of the examples have lost all slope to a wrong class": tried.dead > 0,
        f"the violation still has a slope of {tried.slope:.2g}": not tried.slope <= INFEASIBILITY.flat_gradient,
        f"the mean of -log(safety) still has a slope of {tried.pull:.2g}": not tried.pull <= _PULLED,
    }
    if any(why.values()):
        open_ = next(text for text, holds in why.items() if holds)
        return _budget_spent(run, found, f" Whether the thresholds can be met was not settled: {open_}.")
    worst = max(tried.full.readings, key=lambda reading: reading.violation)
    reached = ", ".join(f"{reading.name} {reading.measured:.4g}" for reading in tried.full.readings)
    return Verdict(
        "infeasible",
        f"'{worst.name}' stays {worst.violation:.4g} below its threshold {worst.required:g}: the violation stood still "
        f"over the second half of the run, and {tried.passes} passes that left the loss aside ended where its slope "
        f"in the parameters is only {tried.slope:.2g}. This evidence is local: students near this one cannot, "
        f"others may. Best safety reached: {reached} ({run.numbers}).",
        f"Lower '{worst.name}' to {_below(worst.measured)}, which result.most_feasible reaches, or give the student "
        "more capacity or better inputs.",
        {"proof": "local", **found, **_residuals(run)},
    )


def _budget_spent(run: Ended, found: dict[str, Finding], more: str = "") -> Verdict:
    met = "a constraint is still violated" if run.violated else "the constraints are met"
    return Verdict(
        "budget_spent",
        f"The steps ended before all KKT residuals were within {run.tolerance:g} ({run.numbers}); {met}.{more}",
        "Train longer, lower the learning rate, or use full batches; see result.trace for which residual still falls.",
        {**_residuals(run), **_best(run.best), **found},
    )
