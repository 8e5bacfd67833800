"""From readings to a verdict.  Growth of a multiplier alone proves nothing, and is never used as evidence here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from solvers.kkt import KKTResiduals

from ..safety import SafetyConstraint
from ..tracer import TracePoint
from ._result import Verdict


def is_converged(point: TracePoint, constraints: Sequence[SafetyConstraint], tolerance: float) -> bool:
    """Say whether all four residuals are small.

    A counted measure (recall) moves in steps of 1/count, so its slack cannot be brought below one step: then its
    complementarity may be as large as that step.  Primal feasibility never gets this allowance.
    """
    gaps = [
        abs(min(price, reading.measured - reading.required)) - (1 / reading.count if rule.measure.binary else 0.0)
        for reading, price, rule in zip(point.readings, point.multipliers, constraints, strict=True)
    ]  # a reading that is no number fails in `primal`
    found = point.residuals
    allowed = KKTResiduals(found.stationarity, found.primal, found.dual, max(gaps, default=0.0))
    return allowed.holds(tolerance)


def infeasibility_evidence(points: Sequence[TracePoint], jacobian_Mn: Tensor) -> str | None:
    """Return why no nearby student meets the constraints, or None while that is not shown.

    Evidence is local: the squared violation, as a function of the parameters, has (almost) no slope left at a
    violated point, and the violation has not fallen over the second half of the run.
    """
    last = points[-1]
    violation_M = torch.tensor([reading.violation for reading in last.readings], dtype=torch.float64)
    size = float(violation_M.norm())
    half = points[: max(1, len(points) // 2)]
    if not size > 0 or len(points) < 4:
        return None
    slope = float((jacobian_Mn.cpu().T @ violation_M).norm()) / size
    before = min(point.residuals.primal for point in half)
    if slope > 1e-3 or last.residuals.primal < 0.99 * before:
        return None
    worst = max(last.readings, key=lambda reading: reading.violation)
    return (
        f"'{worst.name}' stays {worst.violation:.4g} below its threshold {worst.required:g}: the violation fell by "
        f"less than 1 % over the second half of the run, and its slope in the parameters is only {slope:.2g}"
    )


def ending(
    points: Sequence[TracePoint],
    constraints: Sequence[SafetyConstraint],
    jacobian_Mn: Tensor,
    tolerance: float,
    capped: Sequence[str],
) -> Verdict:
    """Judge a run that has stopped by itself or spent its budget."""
    last = points[-1]
    numbers = (
        f"stationarity {last.residuals.stationarity:.2g}, primal {last.residuals.primal:.2g}, "
        f"dual {last.residuals.dual:.2g}, complementarity {last.residuals.complementarity:.2g} at step {last.step}"
    )
    if is_converged(last, constraints, tolerance):
        return Verdict(
            "converged",
            f"All KKT residuals are within {tolerance:g} ({numbers}).",
            "Certify it on data that nothing else saw: kd.certify(result, constraint, held_out).",
        )
    if last.residuals.primal > tolerance and capped:
        return Verdict(
            "cap_active",
            f"The multiplier of {', '.join(capped)} stands at its cap; a constraint is still violated ({numbers}).",
            "Raise or drop the cap, or lower the threshold.",
        )
    evidence = infeasibility_evidence(points, jacobian_Mn) if last.residuals.primal > tolerance else None
    if evidence is not None:
        best = min(points, key=lambda point: point.residuals.primal)
        reached = ", ".join(f"{reading.name} {reading.measured:.4g}" for reading in best.readings)
        return Verdict(
            "infeasible",
            f"{evidence} ({numbers}). Best safety reached: {reached}.",
            "Lower the threshold to what was reached, or give the student more capacity or better inputs.",
        )
    met = "the constraints are met" if last.residuals.primal <= tolerance else "a constraint is still violated"
    return Verdict(
        "budget_spent",
        f"The steps ended before all KKT residuals were within {tolerance:g} ({numbers}); {met}.",
        "Train longer, lower the learning rate, or use full batches; see result.trace for which residual still falls.",
    )
