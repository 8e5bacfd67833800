"""The students of a frontier, by row; each is made when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from ...training import WarmStart
from ..store import Parameters, TrainedPoint
from ._slice_sweep import TargetRow
from ._target_rows import RowContext
from ._training_run import SweepJob


class RowStudents(Mapping[int, nn.Module]):
    """Students by row of the table, in eval mode.

    Args:
        job: Whose make_trainer gives the module that parameters fill.
        points: The trained points, by row.
        traced: Every row as it was traced, and what belongs to its slice.
    """

    def __init__(
        self, job: SweepJob, points: Mapping[int, TrainedPoint], traced: Sequence[tuple[TargetRow, RowContext]]
    ) -> None:
        self._job, self._points, self.traced = job, dict(points), tuple(traced)

    def warm_start(self, row: int) -> WarmStart:
        """Return where a run begins that goes on from this row: student, multipliers, and what a rule had learned."""
        return self._points[row].warm_start

    def read_states(self, row: int) -> tuple[Parameters, Parameters]:
        """Return the student's parameters and what a weighting rule had learned."""
        return self._points[row].student, self._points[row].rule_state

    def __getitem__(self, row: int) -> nn.Module:
        point = self._points[row]
        with torch.random.fork_rng(devices=[]):
            student = self._job.make(point.spec).student
        student.load_state_dict(point.student)
        return student.eval()

    def __iter__(self) -> Iterator[int]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)
