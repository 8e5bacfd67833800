"""Probes of a student where a run ended: evidence for a verdict, read only when it is due, since it costs passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ...data import Split
from ...safety import Constraint
from .._objective import Objective
from .._parameter_vectors import copy_state
from ..checkpoints import BestIterates
from ..trace import TracePoint
from ._dead_parameters import perturb_dead_parameters
from ._feasibility_bound import FeasibilityBound, bound_feasibility
from ._lagrangian_curvature import LagrangianCurvature, measure_curvature
from ._merit_function import MeritFunction
from ._student_restoration import StudentRestoration, restore_student_feasibility


class RunProbes:
    """What can still be asked once the last step is taken.

    Args:
        objective: Holds the student.
        splits: By name, the training split among them.
        constraints: M of them.
        best: Gives the most feasible student, and considers a restored one.
    """

    def __init__(
        self,
        objective: Objective,
        splits: Mapping[str, Split],
        constraints: Sequence[Constraint],
        best: BestIterates,
    ) -> None:
        self.objective, self.splits, self.constraints, self.best = objective, splits, constraints, best

    def bound_feasibility(self) -> FeasibilityBound | None:
        """Return what any student could reach; None where that is not known."""
        return bound_feasibility(self.objective, self.splits, self.constraints)

    def measure_curvature(
        self, point: TracePoint, jacobian_Mn: Tensor, tolerance: float, passes: int
    ) -> LagrangianCurvature:
        """Return the curvature of the Lagrangian where the student is.

        Args:
            point: What was read there.
            jacobian_Mn: Gradients of g there, (M, n).
            tolerance: Of the run.
            passes: About how many passes over the data it may cost.
        """
        return measure_curvature(self._merit(point), jacobian_Mn, tolerance, passes)

    def perturb_dead_parameters(self, point: TracePoint, passes: int) -> tuple[Sequence[str], float]:
        """Name dead parameters, and say how much lower a descent ends once they are perturbed.

        Args:
            point: What was read where the student is.
            passes: About how many passes over the data it may cost.
        """
        return perturb_dead_parameters(self._merit(point), passes)

    def restore_student_feasibility(self, passes: int) -> StudentRestoration:
        """Lower the violation from the most feasible student on; the best iterates take in where that ends.

        Args:
            passes: About how many passes over the data it may cost.
        """
        student = self.objective.student
        final = copy_state(student)
        try:
            student.load_state_dict(self.best.most_feasible(student).state_dict())
            restoration = restore_student_feasibility(self.objective, self.splits, self.constraints, passes)
            self.best.add_restored(student, restoration.full)
        finally:
            student.load_state_dict(final)
        return restoration

    def _merit(self, point: TracePoint) -> MeritFunction:
        return MeritFunction(self.objective, self.splits, self.constraints, point)
