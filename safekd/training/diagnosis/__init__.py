"""Why a run ended, and what that says of the problem.

``judge_run`` turns a trace into a Verdict.  It asks ``RunProbes`` for no more evidence than the ending calls for, in
this order: a bound on what any student can reach (``bound_feasibility``, a proof); the curvature of the Lagrangian and
parameters without influence, where a run is stationary; a descent on the violation alone, where a violation stands
still.  ``find_..._source`` say where a number that is not finite comes from, for the steps of a run.
"""

from ._feasibility_bound import FeasibilityBound, bound_feasibility
from ._lagrangian_curvature import LagrangianCurvature
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
from ._status import SETTINGS as STATUS_SETTINGS
from ._status import EndedRun, format_residuals, is_converged, judge_run
from ._student_restoration import StudentRestoration

__all__ = [
    "STATUS_SETTINGS",
    "EndedRun",
    "FeasibilityBound",
    "LagrangianCurvature",
    "RunProbes",
    "StudentRestoration",
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
    "judge_run",
]
