"""The status of a run that has ended, from its readings and from probes.

Growth of a multiplier alone proves nothing, and is never used as evidence here.
"""

from __future__ import annotations

from dataclasses import replace

from solvers.infeasibility import SETTINGS as INFEASIBILITY

from .._fit_result import Finding, Verdict
from ._ended_run import (
    SETTINGS,
    EndedRun,
    best_findings,
    choose_safer,
    format_names,
    format_reachable,
    format_safety,
    is_converged,
    is_stalled,
    largest_violation,
    residual_findings,
    suggest_thresholds,
)
from ._feasibility_bound import FeasibilityBound
from ._next_moves import (
    advise_after_convergence,
    advise_leaving_saddle,
    advise_more_training,
    advise_raising_cap,
)
from ._overpenalty import Overpenalty, describe_flat, find_overpenalty, judge_overpenalized
from ._probes import RunProbes


def judge_run(run: EndedRun, probes: RunProbes) -> Verdict:
    """Judge a run, looking up no more evidence than its end calls for.

    Args:
        run: The run.
        probes: Look at its student.
    """
    verdict = _judge_evidence(run, probes)
    if not probes.not_examined:
        return verdict
    reasons = [f"{what} ({why})" for what, why in probes.not_examined.items()]
    return replace(
        verdict,
        message=f"{verdict.message} Not examined: {'; '.join(reasons)}.",
        evidence={**verdict.evidence, "not_examined": reasons},
    )


def _judge_evidence(run: EndedRun, probes: RunProbes) -> Verdict:
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
        force = lambda_P[-1] * run.gradient_norm(m)
        heavy = force > least_force
        steady = max(force_P, default=0.0) <= SETTINGS.steady_force * min(force_P, default=0.0)
        nearer = min(violation_P) > 0 and violation_P[-1] < SETTINGS.shrinking * violation_P[0]
        if heavy and steady and nearer and lambda_P[-1] > SETTINGS.growing * lambda_P[0]:
            growing.append(m)
    return growing


def _judge_impossible(run: EndedRun, bound: FeasibilityBound, probes: RunProbes) -> Verdict:
    restored = probes.restore_student_feasibility(run.passes)
    best = run.best if restored is None else choose_safer(restored, run.best)
    weights = [float(weight) for weight in bound.weights_M]
    chosen = [m for m, weight in enumerate(weights) if weight > SETTINGS.least_weight]
    weighed = " + ".join(f"{weights[m]:.3g} '{run.last.readings[m].name}'" for m in chosen)
    return Verdict(
        "infeasible",
        f"No student of any size meets these thresholds on this data: {weighed} can be at most {bound.bound:.4g}, "
        f"and {bound.wanted:.4g} is asked for, so some constraint stays {bound.least:.4g} or more below its "
        f"threshold (Farkas weights from a linear program over distributions, checked in closed form). Best safety "
        f"reached: {format_safety(best)} ({run.numbers}).",
        f"{suggest_thresholds(best)}.",
        {
            "proof": "farkas",
            "farkas": weights,
            "least_violation": bound.least,
            "weighted_bound": bound.bound,
            "weighted_threshold": bound.wanted,
            **best_findings(best),
            **residual_findings(run),
        },
    )


def _judge_capped(run: EndedRun) -> Verdict:
    return Verdict(
        "cap_active",
        f"The multiplier of {', '.join(run.capped)} stands at its cap; a constraint is still violated ({run.numbers}).",
        advise_raising_cap(run.facts),
        {"capped": list(run.capped), **best_findings(run.best), **residual_findings(run)},
    )


def _judge_boundary(run: EndedRun, bound: FeasibilityBound) -> Verdict:
    chosen = list(bound.boundary)
    multipliers = ", ".join(f"{run.last.multipliers[m]:.4g}" for m in chosen)
    many, leave = ("thresholds", "leave") if len(chosen) > 1 else ("threshold", "leaves")
    return Verdict(
        "no_multiplier",
        f"The {many} of {format_names(run.last, chosen)} {leave} no room at all: what is asked for is the most that "
        f"can be had, and only with probabilities of exactly 0, which a softmax comes near and never gives. So no "
        f"multiplier exists (now {multipliers}, and it would grow without end). Best safety reached: "
        f"{format_safety(run.best)} ({run.numbers}).",
        f"Lower the {many} a little, by 0.001 for example, or accept the student as it is. "
        f"{suggest_thresholds(run.best)}.",
        {
            "boundary": [run.last.readings[m].name for m in chosen],
            "room": -bound.least,
            "farkas": [float(weight) for weight in bound.weights_M],
            "violations": [largest_violation(point) for point in run.points[-SETTINGS.least_points :]],
            **best_findings(run.best),
            **residual_findings(run),
        },
    )


def _judge_growing(run: EndedRun, chosen: list[int]) -> Verdict:
    half = run.points[len(run.points) // 2]
    grew = ", ".join(f"from {half.multipliers[m]:.4g} to {run.last.multipliers[m]:.4g}" for m in chosen)
    return Verdict(
        "no_multiplier",
        f"Over the second half of the run the multiplier of {format_names(run.last, chosen)} grew {grew} with the "
        "student stationary all the while, and the violation still shrinks: the constraint's gradient vanishes where "
        f"it is met, so no multiplier exists. Best safety reached: {format_safety(run.best)} ({run.numbers}).",
        f"Lower that threshold a little, or accept the student as it is. {suggest_thresholds(run.best)}.",
        {
            "growing": [run.last.readings[m].name for m in chosen],
            "multipliers_before": [half.multipliers[m] for m in chosen],
            "multipliers_now": [run.last.multipliers[m] for m in chosen],
            "constraint_gradient_norms": [run.gradient_norm(m) for m in chosen],
            "violations": [largest_violation(point) for point in run.points[-SETTINGS.least_points :]],
            **best_findings(run.best),
            **residual_findings(run),
        },
    )


def _judge_stationary(run: EndedRun, probes: RunProbes) -> Verdict:
    curvature = probes.measure_curvature(run.last, run.jacobian_Mn, run.tolerance, run.passes)
    if curvature is None:
        return _judge_unexamined(run, {})
    findings: dict[str, Finding] = {
        **residual_findings(run),
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
            findings,
        )
    if curvature.decrease > SETTINGS.decrease * run.tolerance:
        return Verdict(
            "stationary_unverified",
            f"All KKT residuals are within {run.tolerance:g} ({run.numbers}), but the student does not sit at a "
            f"minimum: along the active constraints the Lagrangian curves down ({curvature.least:.2g} of at most "
            f"{curvature.largest:.2g}), and a step that way lowers it by {curvature.decrease:.2g}.",
            advise_leaving_saddle(run.facts),
            findings,
        )
    perturbed = probes.perturb_dead_parameters(run.last, run.passes)
    if perturbed is None:
        return _judge_unexamined(run, findings)
    dead, decrease = perturbed
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
        advise_after_convergence(run.facts),
        findings,
    )


def _judge_unexamined(run: EndedRun, findings: dict[str, Finding]) -> Verdict:
    """A stationary point that could not be looked at; ``judge_run`` says why."""
    return Verdict(
        "stationary_unverified",
        f"All KKT residuals are within {run.tolerance:g} ({run.numbers}); the student may sit at a minimum or not.",
        "Start elsewhere and compare losses, or raise what probes may cost: "
        "ConstrainedTrainer(..., evidence_budget=kd.training.EvidenceBudget(memory_bytes, seconds)).",
        {**residual_findings(run), **findings},
    )


def _judge_stalled(run: EndedRun, probes: RunProbes) -> Verdict:
    """A violation that has stalled: unable, or only stuck?  Descend on the violation alone before saying."""
    restored = probes.restore_student_feasibility(run.passes)
    if restored is None:
        return _judge_budget(run, {}, " Whether the thresholds can be met was not settled.")
    best = choose_safer(restored, run.best)
    findings: dict[str, Finding] = {
        "least_violation": restored.least,
        "violation_gradient_norm": restored.gradient_norm,
        "log_safety_gradient_norm": restored.log_safety_gradient_norm,
        "zero_gradient_share": restored.zero_gradient_share,
        "passes": restored.passes,
        **best_findings(best),
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
        f"Lower '{worst.name}' to {format_reachable(worst.measured)}, which result.most_feasible reaches, or give the "
        "student more capacity or better inputs.",
        {"proof": "local", **findings, **residual_findings(run)},
    )


def _find_overpenalty(run: EndedRun) -> Overpenalty:
    return find_overpenalty(run.points, run.tolerance, targets_move=run.targets_move)


def _judge_budget(run: EndedRun, findings: dict[str, Finding], more: str = "") -> Verdict:
    if overpenalty := _find_overpenalty(run):
        return judge_overpenalized(run.points, overpenalty, run.facts, run.numbers, more)
    more = describe_flat(run.last) + more
    met = "a constraint is still violated" if run.violated else "the constraints are met"
    return Verdict(
        "budget_spent",
        f"The steps ended before all KKT residuals were within {run.tolerance:g} ({run.numbers}); {met}.{more}",
        advise_more_training(run.points, run.tolerance, run.facts),
        {**residual_findings(run), **best_findings(run.best), **findings},
    )
