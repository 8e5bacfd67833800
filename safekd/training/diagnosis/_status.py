"""The status of a run that has ended, from its readings and from probes.

Growth of a multiplier alone proves nothing, and is never used as evidence here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from torch import Tensor

from solvers.infeasibility import SETTINGS as INFEASIBILITY
from solvers.kkt import KKTResiduals

from .._fit_result import Finding, Verdict
from .._full_pass import FullPass
from ..checkpoints import rank_point
from ..trace import TracePoint
from ._feasibility_bound import FeasibilityBound
from ._overpenalty import Overpenalty, describe_flat, find_overpenalty, judge_overpenalized
from ._probes import RunProbes


@dataclass(frozen=True)
class StatusSettings:
    """Numbers by which endings are told apart; ``tests/safekd/training/diagnosis/test_verdict_truth.py`` notices them.

    Attributes:
        least_points: Of a trace: with fewer, its second half shows no tendency.
        most_passes: Passes over the data that probes may cost, nor do they take more than the run did.
        flat_log_safety: Gradient norm of the mean of -log(safety) that counts as none, a unit of parameters.
        stalled: A least violation above this share of the one of the first half of the run has stalled.
        stationary: Multiples of the tolerance that stationarity may reach while a multiplier grows without end.
        heavy: Multiples of the tolerance that such a multiplier's force must reach beside the loss's gradient.
        steady_force: Largest over smallest force, multiplier times gradient norm, that counts as steady.
        shrinking: Share of its first violation below which a violation shrinks.
        growing: Multiple of its first value above which a multiplier grows.
        decrease: Share of the tolerance that a step must lower the merit by to refute a minimum.
        least_weight: Farkas weight above which a constraint is named.
    """

    least_points: int = 4
    most_passes: int = 150
    flat_log_safety: float = 1e-2
    stalled: float = 0.9
    stationary: float = 3.0
    heavy: float = 30.0
    steady_force: float = 1.05
    shrinking: float = 0.7
    growing: float = 1.3
    decrease: float = 0.1
    least_weight: float = 1e-6


SETTINGS = StatusSettings()


@dataclass(frozen=True)
class EndedRun:
    """A run that has stopped by itself or spent its budget.

    Attributes:
        points: Its trace.
        jacobian_Mn: Gradients of g at the last point, (M, n).
        tolerance: Of the run.
        capped: Names of constraints whose multiplier stands at its cap.
        targets_move: Whether targets change as the run goes on.
    """

    points: Sequence[TracePoint]
    jacobian_Mn: Tensor
    tolerance: float
    capped: Sequence[str]
    targets_move: bool = False

    @property
    def last(self) -> TracePoint:
        return self.points[-1]

    @property
    def passes(self) -> int:
        """How many passes over the data evidence may cost."""
        return min(SETTINGS.most_passes, max(self.last.epoch, 1))

    @property
    def violated(self) -> bool:
        return self.last.residuals.primal > self.tolerance

    @property
    def numbers(self) -> str:
        return f"{format_residuals(self.last.residuals)} at step {self.last.step}"

    @property
    def best(self) -> TracePoint:
        """The point whose student ``most_feasible`` is."""
        return min(self.points, key=rank_point)


def is_converged(point: TracePoint, tolerance: float) -> bool:
    """Say whether all four residuals are small; what is no number never is.

    An estimated stationarity must be small with two standard errors added.  A counted mix moves in steps, and its slack
    cannot be brought below one: its complementarity may be as large as that step, primal feasibility never.

    Args:
        point: What was read.
        tolerance: Residuals up to this are small.
    """
    residuals = point.residuals
    step = max((reading.resolution for reading in point.readings if not reading.equality), default=0.0)
    adjusted = replace(
        residuals, stationarity=point.stationarity_bound, complementarity=residuals.complementarity - step
    )
    return adjusted.holds(tolerance)


def format_residuals(residuals: KKTResiduals) -> str:
    """Write the four residuals with two digits each.

    Args:
        residuals: Of a point.
    """
    return ", ".join(f"{name} {value:.2g}" for name, value in asdict(residuals).items())


def judge_run(run: EndedRun, probes: RunProbes) -> Verdict:
    """Judge a run, looking up no more evidence than its end calls for.

    Args:
        run: The run.
        probes: Look at its student.
    """
    constrained = run.violated or any(multiplier != 0 for multiplier in run.last.multipliers)
    bound = probes.bound_feasibility() if constrained else None
    if run.violated and bound is not None and bound.infeasible:
        return _judge_impossible(run, bound, probes)
    if run.violated and run.capped:
        return _judge_capped(run)
    if bound is not None and bound.boundary:
        return _judge_boundary(run, bound)
    if growing := _find_growing(run):
        return _judge_growing(run, growing)
    if is_converged(run.last, run.tolerance) and not _find_overpenalty(run).excess:
        return _judge_stationary(run, probes)
    if run.violated and is_stalled(run.points):
        return _judge_stalled(run, probes)
    return _judge_budget(run, {})


def is_stalled(points: Sequence[TracePoint]) -> bool:
    """Say whether the least violation fell by less than a tenth over the second half of the points.

    Args:
        points: A trace.
    """
    half = len(points) // 2
    if len(points) < SETTINGS.least_points:
        return False
    return min(map(_largest_violation, points)) > SETTINGS.stalled * min(map(_largest_violation, points[:half]))


def _largest_violation(point: TracePoint | FullPass) -> float:
    return max((reading.violation for reading in point.readings), default=0.0)


def _find_growing(run: EndedRun) -> list[int]:
    """Return the constraints whose multiplier grew while its force stayed the same and its violation shrank.

    Stationarity held at every point of the second half, and the force, multiplier times gradient, hardly changed: the
    multiplier rose because the gradient of the constraint vanished, so at the limit no multiplier exists.  One that is
    only slow pulls harder as it rises.
    """
    points, moving = run.points[len(run.points) // 2 :], SETTINGS.stationary * run.tolerance
    if len(points) < SETTINGS.least_points or any(p.residuals.stationarity > moving for p in points):
        return []
    growing, least_force = [], SETTINGS.heavy * run.tolerance * (1 + run.last.gradient_norm)
    for m in range(len(run.last.readings)):
        lambda_P, violation_P = [p.multipliers[m] for p in points], [p.readings[m].violation for p in points]
        force_P = [p.multipliers[m] * p.constraint_gradient_norms[m] for p in points if p.constraint_gradient_norms]
        force = lambda_P[-1] * float(run.jacobian_Mn[m].norm())
        heavy = force > least_force
        steady = max(force_P, default=0.0) <= SETTINGS.steady_force * min(force_P, default=0.0)
        nearer = min(violation_P) > 0 and violation_P[-1] < SETTINGS.shrinking * violation_P[0]
        if heavy and steady and nearer and lambda_P[-1] > SETTINGS.growing * lambda_P[0]:
            growing.append(m)
    return growing


def _format_safety(point: TracePoint | FullPass) -> str:
    return ", ".join(f"{reading.name} {reading.measured:.4g}" for reading in point.readings)


def _format_names(point: TracePoint, chosen: Sequence[int]) -> str:
    return ", ".join(f"'{point.readings[m].name}'" for m in chosen)


def _residual_findings(run: EndedRun) -> dict[str, Finding]:
    return {**asdict(run.last.residuals), "tolerance": run.tolerance}


def _suggest_thresholds(point: TracePoint | FullPass) -> str:
    """Say which thresholds a student has reached."""
    missed = [reading for reading in point.readings if reading.violation > 0]
    wanted = ", ".join(f"'{reading.name}' to {_round_down(reading.measured)}" for reading in missed)
    return f"Lower {wanted}: result.most_feasible reaches that" if wanted else "result.most_feasible meets all of them"


def _round_down(value: float) -> str:
    """Write a value that can be reached, rounded down."""
    return f"{int(value * 1e4) / 1e4:.4g}"


def _judge_impossible(run: EndedRun, bound: FeasibilityBound, probes: RunProbes) -> Verdict:
    restored = probes.restore_student_feasibility(run.passes)
    best = restored.full if restored.least < _largest_violation(run.best) else run.best
    weights = [float(weight) for weight in bound.weights_M]
    chosen = [m for m, weight in enumerate(weights) if weight > SETTINGS.least_weight]
    weighed = " + ".join(f"{weights[m]:.3g} '{run.last.readings[m].name}'" for m in chosen)
    return Verdict(
        "infeasible",
        f"No student of any size meets these thresholds on this data: {weighed} can be at most {bound.bound:.4g}, "
        f"and {bound.wanted:.4g} is asked for, so some constraint stays {bound.least:.4g} or more below its "
        f"threshold (Farkas weights from a linear program over distributions, checked in closed form). Best safety "
        f"reached: {_format_safety(best)} ({run.numbers}).",
        f"{_suggest_thresholds(best)}.",
        {
            "proof": "farkas",
            "farkas": weights,
            "least_violation": bound.least,
            "weighted_bound": bound.bound,
            "weighted_threshold": bound.wanted,
            **_best_findings(best),
            **_residual_findings(run),
        },
    )


def _best_findings(point: TracePoint | FullPass) -> dict[str, Finding]:
    return {
        "best_safety": [reading.measured for reading in point.readings],
        "best_violation": _largest_violation(point),
    }


def _judge_capped(run: EndedRun) -> Verdict:
    return Verdict(
        "cap_active",
        f"The multiplier of {', '.join(run.capped)} stands at its cap; a constraint is still violated ({run.numbers}).",
        "Raise or drop the cap, or lower the threshold.",
        {"capped": list(run.capped), **_best_findings(run.best), **_residual_findings(run)},
    )


def _judge_boundary(run: EndedRun, bound: FeasibilityBound) -> Verdict:
    chosen = list(bound.boundary)
    multipliers = ", ".join(f"{run.last.multipliers[m]:.4g}" for m in chosen)
    many, leave = ("thresholds", "leave") if len(chosen) > 1 else ("threshold", "leaves")
    return Verdict(
        "no_multiplier",
        f"The {many} of {_format_names(run.last, chosen)} {leave} no room at all: what is asked for is the most that "
        f"can be had, and only with probabilities of exactly 0, which a softmax comes near and never gives. So no "
        f"multiplier exists (now {multipliers}, and it would grow without end). Best safety reached: "
        f"{_format_safety(run.best)} ({run.numbers}).",
        f"Lower the {many} a little, by 0.001 for example, or accept the student as it is. "
        f"{_suggest_thresholds(run.best)}.",
        {
            "boundary": [run.last.readings[m].name for m in chosen],
            "room": -bound.least,
            "farkas": [float(weight) for weight in bound.weights_M],
            "violations": [_largest_violation(point) for point in run.points[-SETTINGS.least_points :]],
            **_best_findings(run.best),
            **_residual_findings(run),
        },
    )


def _judge_growing(run: EndedRun, chosen: list[int]) -> Verdict:
    half = run.points[len(run.points) // 2]
    grew = ", ".join(f"from {half.multipliers[m]:.4g} to {run.last.multipliers[m]:.4g}" for m in chosen)
    return Verdict(
        "no_multiplier",
        f"Over the second half of the run the multiplier of {_format_names(run.last, chosen)} grew {grew} with the "
        "student stationary all the while, and the violation still shrinks: the constraint's gradient vanishes where "
        f"it is met, so no multiplier exists. Best safety reached: {_format_safety(run.best)} ({run.numbers}).",
        f"Lower that threshold a little, or accept the student as it is. {_suggest_thresholds(run.best)}.",
        {
            "growing": [run.last.readings[m].name for m in chosen],
            "multipliers_before": [half.multipliers[m] for m in chosen],
            "multipliers_now": [run.last.multipliers[m] for m in chosen],
            "constraint_gradient_norms": [float(run.jacobian_Mn[m].norm()) for m in chosen],
            "violations": [_largest_violation(point) for point in run.points[-SETTINGS.least_points :]],
            **_best_findings(run.best),
            **_residual_findings(run),
        },
    )


def _judge_stationary(run: EndedRun, probes: RunProbes) -> Verdict:
    curvature = probes.measure_curvature(run.last, run.jacobian_Mn, run.tolerance, run.passes)
    findings: dict[str, Finding] = {
        **_residual_findings(run),
        "least_curvature": curvature.least,
        "largest_curvature": curvature.largest,
        "decrease": curvature.decrease,
    }
    if curvature.not_examined:
        return Verdict(
            "stationary_unverified",
            f"All KKT residuals are within {run.tolerance:g} ({run.numbers}), but whether the student sits at a "
            f"minimum could not be examined: {curvature.not_examined}.",
            "Start elsewhere and compare losses, or use a student that can be differentiated twice.",
            {**findings, "not_examined": curvature.not_examined},
        )
    if curvature.decrease > SETTINGS.decrease * run.tolerance:
        return Verdict(
            "stationary_unverified",
            f"All KKT residuals are within {run.tolerance:g} ({run.numbers}), but the student does not sit at a "
            f"minimum: along the active constraints the Lagrangian curves down ({curvature.least:.2g} of at most "
            f"{curvature.largest:.2g}), and a step that way lowers it by {curvature.decrease:.2g}.",
            "Start from other parameters, not all alike or zero, or train on in small batches, whose noise leaves such "
            "a point.",
            findings,
        )
    dead, decrease = probes.perturb_dead_parameters(run.last, run.passes)
    findings |= {"dead_parameters": list(dead), "decrease_after_perturbation": decrease}
    if decrease > SETTINGS.decrease * run.tolerance:
        return Verdict(
            "stationary_unverified",
            f"All KKT residuals are within {run.tolerance:g} ({run.numbers}), but no output depends on "
            f"{', '.join(dead)} to first order (all zeros, or the next layer is): a saddle may be taken for a minimum, "
            f"and a descent from where these were perturbed ended {decrease:.2g} lower.",
            "Start from other parameters: a layer of zeros behind one of zeros never learns.",
            findings,
        )
    return Verdict(
        "converged",
        f"All KKT residuals are within {run.tolerance:g} ({run.numbers}), and no direction of descent was found.",
        "Certify it on data that nothing else saw: kd.certify(result, constraint, held_out).",
        findings,
    )


def _judge_stalled(run: EndedRun, probes: RunProbes) -> Verdict:
    """A violation that has stalled: unable, or only stuck?  Descend on the violation alone before saying."""
    restored = probes.restore_student_feasibility(run.passes)
    best = restored.full if restored.least < _largest_violation(run.best) else run.best
    findings: dict[str, Finding] = {
        "least_violation": restored.least,
        "violation_gradient_norm": restored.gradient_norm,
        "log_safety_gradient_norm": restored.log_safety_gradient_norm,
        "zero_gradient_share": restored.zero_gradient_share,
        "passes": restored.passes,
        **_best_findings(best),
    }
    if restored.least <= run.tolerance:
        more = (
            f" A student that meets them exists: {restored.passes} passes that left the loss aside led to "
            "result.most_feasible."
        )
        return _judge_budget(run, findings, more)
    lost, norm, log_norm = restored.zero_gradient_share, restored.gradient_norm, restored.log_safety_gradient_norm
    why = {
        f"{lost:.0%} of the examples have lost all gradient to a wrong class": lost > 0,
        f"the violation still has a gradient norm of {norm:.2g}": not norm <= INFEASIBILITY.flat_gradient,
        f"the mean of -log(safety) still has one of {log_norm:.2g}": not log_norm <= SETTINGS.flat_log_safety,
    }
    if any(why.values()):
        reason = next(text for text, holds in why.items() if holds)
        return _judge_budget(run, findings, f" Whether the thresholds can be met was not settled: {reason}.")
    worst = max(restored.full.readings, key=lambda reading: reading.violation)
    reached = ", ".join(f"{reading.name} {reading.measured:.4g}" for reading in restored.full.readings)
    return Verdict(
        "infeasible",
        f"'{worst.name}' stays {worst.violation:.4g} below its threshold {worst.required:g}: the violation stood still "
        f"over the second half of the run, and {restored.passes} passes that left the loss aside ended where its "
        f"gradient in the parameters has a norm of only {restored.gradient_norm:.2g}. This evidence is local: students "
        f"near this one cannot, others may. Best safety reached: {reached} ({run.numbers}).",
        f"Lower '{worst.name}' to {_round_down(worst.measured)}, which result.most_feasible reaches, or give the "
        "student more capacity or better inputs.",
        {"proof": "local", **findings, **_residual_findings(run)},
    )


def _find_overpenalty(run: EndedRun) -> Overpenalty:
    return find_overpenalty(run.points, run.tolerance, targets_move=run.targets_move)


def _judge_budget(run: EndedRun, findings: dict[str, Finding], more: str = "") -> Verdict:
    if overpenalty := _find_overpenalty(run):
        return judge_overpenalized(run.points, overpenalty, run.numbers, more)
    more = describe_flat(run.last) + more
    met = "a constraint is still violated" if run.violated else "the constraints are met"
    return Verdict(
        "budget_spent",
        f"The steps ended before all KKT residuals were within {run.tolerance:g} ({run.numbers}); {met}.{more}",
        "Train longer, lower the learning rate, or use full batches; see result.trace for which residual still falls.",
        {**_residual_findings(run), **_best_findings(run.best), **findings},
    )
