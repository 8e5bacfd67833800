"""Why a run ended, and what that says of the problem.

``judge_run`` turns a trace into a Verdict.  It asks ``RunProbes`` for no more evidence than the ending calls for, in
this order: a bound on what any student can reach (``bound_feasibility``, a proof); the curvature of the Lagrangian and
parameters without influence, where a run is stationary; a descent on the violation alone, where a violation stands
still.  A probe keeps to an ``EvidenceBudget``; one that fails is named in the verdict, and loses nothing.
``advise_...`` say what to do now, ``find_..._source`` where a number that is not finite comes from.
"""

from ._ended_run import SETTINGS as STATUS_SETTINGS
from ._ended_run import EndedRun, format_residuals, is_converged, is_stalled
from ._evidence_budget import BeyondBudget, EvidenceBudget, EvidenceMeter
from ._feasibility_bound import FeasibilityBound, bound_feasibility
from ._lagrangian_curvature import LagrangianCurvature
from ._next_moves import RunFacts, advise_finite_numbers
from ._non_finite_source import (
    find_gradient_source,
    find_loss_source,
    find_non_finite_parameter,
    find_rule_source,
    find_rule_step_source,
    find_value_source,
)
from ._overpenalty import find_exploded
from ._probes import RunProbes
from ._status import judge_run
from ._student_restoration import StudentRestoration
from ._validation_fall import add_validation_fall

__all__ = [
    "STATUS_SETTINGS",
    "BeyondBudget",
    "EndedRun",
    "EvidenceBudget",
    "EvidenceMeter",
    "FeasibilityBound",
    "LagrangianCurvature",
    "RunFacts",
    "RunProbes",
    "StudentRestoration",
    "add_validation_fall",
    "advise_finite_numbers",
    "bound_feasibility",
    "find_exploded",
    "find_gradient_source",
    "find_loss_source",
    "find_non_finite_parameter",
    "find_rule_source",
    "find_rule_step_source",
    "find_value_source",
    "format_residuals",
    "is_converged",
    "is_stalled",
    "judge_run",
]
