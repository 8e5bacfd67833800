"""The students of a frontier, by row; each is made when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from ..training import WarmStart
from ._cells import Cell
from ._solve import Job


class Students(Mapping[int, nn.Module]):
    """Students by row of the table, in eval mode.  job: whose make_trainer gives the module that parameters fill."""

    def __init__(self, job: Job, cells: Mapping[int, Cell]) -> None:
        self._job, self._cells = job, dict(cells)

    def start(self, row: int) -> WarmStart:
        """Return where a run begins that goes on from this row: student, multipliers, and what a rule had learned."""
        return self._cells[row].start

    def __getitem__(self, row: int) -> nn.Module:
        cell = self._cells[row]
        with torch.random.fork_rng(devices=[]):
            student = self._job.trainer(cell.request).student
        student.load_state_dict(cell.student)
        return student.eval()

    def __iter__(self) -> Iterator[int]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)
