"""What a run hands back after its last step: the best of some students, each as it is and corrected.

Best is the most feasible, then the one with the least loss.  Axes: M constraints.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data import ExampleSource
from ...safety import Constraint
from .._full_pass import FullPass, measure_gaps, read_full_pass
from .._objective import Objective
from .._parameter_vectors import copy_state
from ..trace import TracePoint
from ._best_iterates import rank_point
from ._constraint_correction import correct_constraints, is_near_constraints
from ._correction_step import ConstraintGaps, LossCurvature
from ._descent_along import descend_along_constraints


@dataclass(frozen=True)
class CorrectionCostSettings:
    """What corrections may cost; ``tests/safekd/training/checkpoints/test_final_iterate.py`` notices.

    Attributes:
        share: Of the training's examples that gradients for the curvature of the loss may read, over all candidates.
        sample: Examples of the training data that such a gradient reads at least; else those of a step.  With 64, 128
            and 256 the cells of ``benchmarks.primal_dual`` end alike.
        seed: Of that sample.
    """

    share: float = 0.02
    sample: int = 64
    seed: int = 0


COSTS = CorrectionCostSettings()
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
        batch_size: Examples of a training step.
        steps: Of the run.
    """

    def __init__(
        self,
        objective: Objective,
        train: ExampleSource,
        splits: Mapping[str, ExampleSource],
        constraints: Sequence[Constraint],
        tolerance: float,
        corrects: bool,
        batch_size: int,
        steps: int,
    ) -> None:
        self._objective, self._train, self._splits, self._constraints = objective, train, splits, list(constraints)
        self._tolerance, self._corrects = tolerance, corrects
        self._batch_size, self._examples_read = batch_size, batch_size * steps
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
                curvature = self._find_curvature(len(states))
                if self._correct(full, point, first_gap, curvature):
                    full, point = read()
                    candidates.append((rank_point(point), copy_state(student), full, point))
                if self._descend(full, point, curvature):
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
        gradient_n, jacobian_Mn = full.require_gradients()
        g_M = measure_gaps(self._constraints, full, jacobian_Mn.device)
        surrogate_g_M = torch.tensor([r.required - r.surrogate for r in full.readings]).to(g_M)
        return ConstraintGaps(jacobian_Mn, g_M, gradient_n, surrogate_g_M, full.loss)

    @functools.cached_property
    def _sample(self) -> ExampleSource:
        return self._train.sample(max(self._batch_size, COSTS.sample), COSTS.seed)

    def _find_curvature(self, candidates: int) -> LossCurvature | None:
        """Return what tells one of so many candidates how the loss bends, None where differences would be rounding."""
        student = self._objective.student
        parameters = [p for p in student.parameters() if p.requires_grad]
        if self._objective.autocast is not None or any(torch.finfo(p.dtype).bits < 32 for p in parameters):
            return None
        passes = int(COSTS.share * self._examples_read / (candidates * len(self._sample)))
        return LossCurvature(parameters, self._read_sampled_gradient, passes)

    def _read_sampled_gradient(self) -> Tensor:
        full = read_full_pass(self._objective, self._sample, {}, [], with_gradients=True)
        return full.require_gradients()[0]

    def _correct(self, full: FullPass, point: TracePoint, first_gap: float, curvature: LossCurvature | None) -> bool:
        """Move the student onto its active constraints; say whether it moved."""
        if not (self._corrects and self._constraints and point.finite) or full.jacobian_Mn is None:
            return False
        here = self._measure(full)
        if not is_near_constraints(here.g_M, first_gap, self._tolerance):
            return False
        lambda_M, smooth_M = self._read_multipliers(point, full.jacobian_Mn.device)
        corrected = correct_constraints(
            self._objective.student, here, self._read_gaps, lambda_M, smooth_M, self._tolerance, curvature
        )
        return corrected is not None

    def _descend(self, full: FullPass, point: TracePoint, curvature: LossCurvature | None) -> bool:
        """Move the student along its active constraints, unless it is at rest there; say whether it moved."""
        equalities = any(reading.equality for reading in point.readings)
        if not (self._corrects and self._constraints and point.finite) or full.jacobian_Mn is None or equalities:
            return False
        if point.residuals.holds(self._tolerance):  # a verdict that can be given is not given away
            return False
        lambda_M, smooth_M = self._read_multipliers(point, full.jacobian_Mn.device)
        active_M = (lambda_M != 0) & smooth_M
        return descend_along_constraints(
            self._objective.student, self._measure(full), self._read_gaps, active_M, self._tolerance, curvature
        )

    def _read_multipliers(self, point: TracePoint, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return multipliers, not 0 for an equality, and whether values move smoothly, (M,) each."""
        readings = point.readings
        smooth = [reading.equality or reading.measured == reading.surrogate for reading in readings]
        lambdas = [m or float(reading.equality) for m, reading in zip(point.multipliers, readings, strict=True)]
        return torch.tensor(lambdas, dtype=torch.float64, device=device), torch.tensor(smooth, device=device)
