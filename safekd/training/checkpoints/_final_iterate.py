"""What a run hands back after its last step: the best of some students, each as it is and corrected.

Best is the most feasible, then the one with the least loss.  Axes: M constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...data import ExampleSource
from ...safety import Constraint
from .._full_pass import FullPass, measure_gaps, read_full_pass
from .._objective import Objective
from .._parameter_vectors import copy_state
from ..trace import TracePoint
from ._best_iterates import rank_point
from ._constraint_correction import ConstraintGaps, correct_constraints, is_near_constraints

ReadPoint = Callable[[], tuple[FullPass, TracePoint]]


class FinalIterate:
    """Chooses among the students that may be handed back.

    Args:
        objective: Holds the student.
        train: Training split.
        splits: The others, by name.
        constraints: In the order of the readings.
        tolerance: Of the run.
        corrects: Whether students are corrected: full passes with gradients may cost too much.
    """

    def __init__(
        self,
        objective: Objective,
        train: ExampleSource,
        splits: Mapping[str, ExampleSource],
        constraints: Sequence[Constraint],
        tolerance: float,
        corrects: bool,
    ) -> None:
        self._objective, self._train, self._splits, self._constraints = objective, train, splits, list(constraints)
        self._tolerance, self._corrects = tolerance, corrects
        self.failure: Exception | None = None  # of a correction, which a verdict tells

    def choose(
        self, states: Sequence[Mapping[str, Tensor]], read: ReadPoint, first_gap: float
    ) -> tuple[FullPass, TracePoint]:
        """Leave the student at the best of what may be handed back; return what was read there.

        Args:
            states: Parameters and buffers of the candidates, by name.
            read: Reads the student as it is.
            first_gap: Largest violation at the start of the run.
        """
        student, candidates = self._objective.student, []
        for state in states:
            student.load_state_dict(state)
            full, point = read()
            candidates.append((rank_point(point), state, full, point))
            try:
                if self._correct(full, point, first_gap):
                    full, point = read()
                    candidates.append((rank_point(point), copy_state(student), full, point))
            except Exception as error:  # for want of memory or else: it loses no trained student
                self.failure = error
        _, state, full, point = min(candidates, key=lambda candidate: candidate[0])
        student.load_state_dict(state)
        return full, point

    def _read_gaps(self) -> ConstraintGaps:
        full = read_full_pass(self._objective, self._train, self._splits, self._constraints, with_gradients=True)
        return self._measure(full)

    def _measure(self, full: FullPass) -> ConstraintGaps:
        _, jacobian_Mn = full.require_gradients()
        return ConstraintGaps(jacobian_Mn, measure_gaps(self._constraints, full, jacobian_Mn.device))

    def _correct(self, full: FullPass, point: TracePoint, first_gap: float) -> bool:
        """Move the student onto its active constraints; say whether it moved."""
        if not (self._corrects and self._constraints and point.finite) or full.jacobian_Mn is None:
            return False
        here = self._measure(full)
        if not is_near_constraints(here.g_M, first_gap, self._tolerance):
            return False
        device, readings = here.g_M.device, point.readings
        smooth = [reading.equality or reading.measured == reading.surrogate for reading in readings]
        lambda_M = [m or float(reading.equality) for m, reading in zip(point.multipliers, readings, strict=True)]
        corrected = correct_constraints(
            self._objective.student,
            here,
            self._read_gaps,
            torch.tensor(lambda_M, dtype=torch.float64, device=device),
            torch.tensor(smooth, device=device),
            self._tolerance,
        )
        return corrected is not None
