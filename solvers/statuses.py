"""How a solve or a training run can end: one vocabulary for ``solvers.minimize`` and for the trainer.

A status says what was *shown*, not what a method hopes.  Growth of a multiplier alone shows nothing.
"""

from __future__ import annotations

from typing import Literal

Status = Literal[
    "converged",
    "stationary_unverified",
    "infeasible",
    "no_multiplier",
    "unbounded",
    "cap_active",
    "overpenalized",
    "loss_rose",
    "diverged",
    "cleared",
    "not_cleared",
    "budget_spent",
]

STATUS_MEANINGS: dict[Status, str] = {
    "converged": "All four KKT residuals are within the tolerance, and no direction of descent along the constraints "
    "was found.",
    "stationary_unverified": "The residuals are within the tolerance, but a direction of descent was found, or could "
    "not be looked for: the point may be a saddle.",
    "infeasible": "The constraints cannot be met: by any point, with Farkas' weights as the proof, or by points near "
    "this one.",
    "no_multiplier": "The constraints are met, perhaps in the limit only, and multipliers grow without end on the way.",
    "unbounded": "The objective falls without end.",
    "cap_active": "A multiplier stands at its cap, and a constraint is violated.",
    "overpenalized": "A multiplier exploded, or the objective is above its start by more than the constraints explain, "
    "and they pushed hard enough to have caused it.",
    "loss_rose": "The objective is above its start, and no constraint pushed hard enough to have caused it.",
    "diverged": "A value or a gradient was not finite.",
    "cleared": "Thresholds were raised, and new data show what was asked for.",
    "not_cleared": "Thresholds were raised, and new data still do not show what was asked for.",
    "budget_spent": "None of the others was shown in time.",
}
