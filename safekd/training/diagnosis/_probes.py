"""Probes of a student where a run ended: evidence for a verdict, read only when it is due, since it costs passes.

The student is trained by then, and stays so: a probe that fails, for memory, for time or for an error of its own, is
noted and leaves the student as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor

from solvers.second_order import SETTINGS as SECOND_ORDER

from ...data import ExampleSource
from ...safety import Constraint
from .._objective import Objective
from .._parameter_vectors import copy_state
from ..checkpoints import BestIterates
from ..trace import TracePoint
from ._dead_parameters import perturb_dead_parameters
from ._evidence_budget import BeyondBudget, EvidenceBudget, EvidenceMeter
from ._feasibility_bound import FeasibilityBound, bound_feasibility
from ._lagrangian_curvature import LagrangianCurvature, measure_curvature
from ._merit_function import MeritFunction
from ._student_restoration import StudentRestoration, restore_student_feasibility

Evidence = TypeVar("Evidence")

_LONGEST_REASON = 200  # characters of an error's first line


class RunProbes:
    """What can still be asked once the last step is taken.

    Args:
        objective: Holds the student.
        splits: By name, the training split among them; None where no process has all data, and nothing can be asked.
        constraints: M of them.
        best: Gives the most feasible student, and considers a restored one.
        budget: Of each probe.

    Attributes:
        not_examined: What was not looked at, and why.
    """

    def __init__(
        self,
        objective: Objective,
        splits: Mapping[str, ExampleSource] | None,
        constraints: Sequence[Constraint],
        best: BestIterates,
        budget: EvidenceBudget,
    ) -> None:
        self.objective, self.splits, self.constraints, self.best = objective, splits or {}, constraints, best
        self._has_data = splits is not None
        self.meter = EvidenceMeter(budget)
        self.not_examined: dict[str, str] = {}

    def bound_feasibility(self) -> FeasibilityBound | None:
        """Return what any student could reach; None where that is not known."""
        return self._examine(
            "what any student could reach",
            lambda: bound_feasibility(self.objective, self.splits, self.constraints, self.meter),
        )

    def measure_curvature(
        self, point: TracePoint, jacobian_Mn: Tensor | None, tolerance: float, passes: int
    ) -> LagrangianCurvature | None:
        """Return the curvature of the Lagrangian where the student is; None where that was not examined.

        Args:
            point: What was read there.
            jacobian_Mn: Gradients of g there, (M, n); None where they do not fit into the budget.
            tolerance: Of the run.
            passes: About how many passes over the data it may cost.
        """
        steps = min(SECOND_ORDER.products, max(passes, 2))
        return self._examine(
            "the curvature at the student",
            lambda: self._measure_curvature(point, jacobian_Mn, tolerance, steps),
        )

    def _measure_curvature(
        self, point: TracePoint, jacobian_Mn: Tensor | None, tolerance: float, steps: int
    ) -> LagrangianCurvature:
        merit = self._merit(point)  # refuses what does not fit
        if jacobian_Mn is None:
            raise BeyondBudget("the gradients of the constraints were not read")
        return measure_curvature(merit, jacobian_Mn, tolerance, steps)

    def perturb_dead_parameters(self, point: TracePoint, passes: int) -> tuple[Sequence[str], float] | None:
        """Name dead parameters, and say how much lower a descent ends once they are perturbed; None if not examined.

        Args:
            point: What was read where the student is.
            passes: About how many passes over the data it may cost.
        """
        return self._examine(
            "parameters that no output depends on", lambda: perturb_dead_parameters(self._merit(point), passes)
        )

    def restore_student_feasibility(self, passes: int) -> StudentRestoration | None:
        """Lower the violation from the most feasible student on; the best iterates take in where that ends.

        None where that was not examined.

        Args:
            passes: About how many passes over the data it may cost.
        """
        return self._examine("how far the violation falls with the loss left aside", lambda: self._restore(passes))

    def _restore(self, passes: int) -> StudentRestoration:
        student = self.objective.student
        final = copy_state(student)
        try:
            student.load_state_dict(self.best.most_feasible(student).state_dict())
            restoration = restore_student_feasibility(self.objective, self.splits, self.constraints, passes, self.meter)
            self.best.add_restored(student, restoration.full)
        finally:
            student.load_state_dict(final)
        return restoration

    def _examine(self, what: str, probe: Callable[[], Evidence]) -> Evidence | None:
        """Ask a probe within its budget; note why it could not be asked."""
        self.meter.restart()
        try:
            if not self._has_data:
                raise BeyondBudget("each rank has a part of the data of its own, and no process has all of them")
            return probe()
        except Exception as error:
            self.note_failure(what, error)
            return None

    def note_failure(self, what: str, error: Exception) -> None:
        """Note what was not looked at, and why, for the verdict.

        Args:
            what: In words.
            error: That it failed with.
        """
        self.not_examined[what] = _explain_failure(error)

    def _merit(self, point: TracePoint) -> MeritFunction:
        return MeritFunction(self.objective, self.splits, self.constraints, point, self.meter)


def _explain_failure(error: Exception) -> str:
    if isinstance(error, BeyondBudget):
        return str(error)
    lines = str(error).strip().splitlines()
    reason = lines[0][:_LONGEST_REASON] if lines else ""
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
