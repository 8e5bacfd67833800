"""What a run hands back after its last step: the best of its averaged student, its last one, and each corrected.

Best is the most feasible, then the one with the least loss.  Axes: M constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..data import Split
from ..safety import Constraint
from ._attainable import attainable
from ._averaging import AveragedIterate
from ._correction import Gaps, correct, is_near
from ._keeper import copied_state, rank
from ._objective import FullPass, Objective
from .trace import TracePoint

Read = Callable[[], tuple[FullPass, TracePoint]]


class Closing:
    """Reads the students that may be handed back.

    Args:
        objective: Holds the student.
        train: Training split.
        splits: The others, by name.
        rules: Constraints, in the order of the readings.
        tolerance: Of the run.
        corrects: Whether students are corrected: full passes with gradients may cost too much.
    """

    def __init__(
        self,
        objective: Objective,
        train: Split,
        splits: Mapping[str, Split],
        rules: Sequence[Constraint],
        tolerance: float,
        corrects: bool,
    ) -> None:
        self._objective, self._train, self._splits, self._rules = objective, train, splits, list(rules)
        self._tolerance, self._corrects = tolerance, corrects

    def gaps(self, full: FullPass) -> Tensor:
        """Return threshold less measured value of each constraint, (M,); a counted one to what it can attain."""
        pairs = zip(self._rules, full.readings, strict=True)
        gaps = [float(attainable(rule, torch.tensor(r.count))) - r.measured for rule, r in pairs]
        return torch.tensor(gaps, dtype=torch.float64, device=full.gradient_n.device)

    def best(self, average: AveragedIterate | None, read: Read, first_gap: float) -> tuple[FullPass, TracePoint]:
        """Leave the student at the best of what may be handed back; return what was read there.

        Args:
            average: The averaged student, None for full batches.
            read: Reads the student as it is.
            first_gap: Largest violation at the start of the run.
        """
        student, candidates = self._objective.student, []
        starts = [copied_state(student)]
        if average is not None:
            with average.installed():
                starts.insert(0, copied_state(student))
        for start in starts:
            student.load_state_dict(start)
            full, point = read()
            candidates.append((rank(point), start, full, point))
            if self._corrected(full, point, first_gap):
                full, point = read()
                candidates.append((rank(point), copied_state(student), full, point))
        _, state, full, point = min(candidates, key=lambda candidate: candidate[0])
        student.load_state_dict(state)
        return full, point

    def _read_gaps(self) -> Gaps:
        full = self._objective.full_pass(self._train, self._splits, self._rules, with_gradients=True)
        return Gaps(full, self.gaps(full))

    def _corrected(self, full: FullPass, point: TracePoint, first_gap: float) -> bool:
        """Move the student onto its active constraints; say whether it moved."""
        here = Gaps(full, self.gaps(full))
        if not (self._corrects and self._rules and point.finite and is_near(here.g_M, first_gap, self._tolerance)):
            return False
        at, readings = here.g_M.device, point.readings
        smooth = [reading.equality or reading.measured == reading.surrogate for reading in readings]
        lambda_M = [m or float(reading.equality) for m, reading in zip(point.multipliers, readings, strict=True)]
        moved = correct(
            self._objective.student,
            here,
            self._read_gaps,
            torch.tensor(lambda_M, dtype=torch.float64, device=at),
            torch.tensor(smooth, device=at),
            self._tolerance,
        )
        return moved is not None
