"""The trace of a run of the trainer: the same columns as any other trace, read on a fixed sample of sequences.

Each point costs one forward pass of student and teachers over the sample and two backward passes of the student:
``grad f`` and ``grad f + J^T lambda``, of which only norms are kept.  Axes: M constraints, G groups, n parameters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from solvers.kkt import KKTResiduals, residuals_from_norms

from ..._torch_state import evaluation_mode
from ...data import Batch
from ...distributed import Ranks
from ...training.checkpoints import rank_point
from ...training.trace import Memory, TracePoint, pack_points, unpack_points
from .passes import DistillationTerms, GradientNorms, SequenceAnswers, SequenceReading, SequenceSums


class AskAll(Protocol):
    """Asks student and teachers about a batch."""

    def __call__(self, batch: Batch) -> SequenceAnswers: ...


@dataclass(frozen=True)
class StepState:
    """Where a run stands when a point is read.

    Attributes:
        step: Optimizer steps so far.
        epoch: Passes over the training data so far.
        multiplier_M: Multipliers.
        rho_M: Penalties.
        capped_M: Whether each multiplier stands at its cap.
        running_M: Each g as the engine last saw it.
    """

    step: int
    epoch: int
    multiplier_M: Tensor
    rho_M: Tensor
    capped_M: Tensor
    running_M: Tensor


class TraceRecorder:
    """Reads points and keeps them.

    Args:
        terms: The loss and the constraints.
        ask: Asks student and teachers.
        student: Whose gradients are read.
        readers: Student and modules of the rule: what has an eval mode.
        sample: Gives the part of the sample that this process reads.
        ranks: Who reads the rest.
        rows: Positions whose logits are held at once.
        whole: Whether the sample is all training data.
        moves: Whether it is another one at each point: what the student writes then.
    """

    def __init__(
        self,
        terms: DistillationTerms,
        ask: AskAll,
        student: nn.Module,
        readers: nn.Module,
        sample: Callable[[], Sequence[Batch]],
        ranks: Ranks,
        rows: int,
        whole: bool,
        moves: bool = False,
    ) -> None:
        self._terms, self._ask, self._student, self._readers = terms, ask, student, readers
        self._sample, self._ranks, self._rows, self._whole, self._moves = sample, ranks, rows, whole, moves
        self._began = time.perf_counter()
        self._batches: Sequence[Batch] = ()
        self.points: list[TracePoint] = []

    def record(self, state: StepState) -> TracePoint:
        """Read a point and keep it; one that is there for the same step already is handed back.

        Args:
            state: Where the run stands.
        """
        if self.points and self.points[-1].step == state.step:
            return self.points[-1]
        if self._moves or not self._batches:
            self._batches = self._sample()
            self._positions, self._counts = self._count_positions()
        with evaluation_mode(self._readers):
            reading, norms = self._read(state.multiplier_M)
        residuals = self._find_residuals(reading, norms, state.multiplier_M)
        error = 0.0 if self._whole else norms[2] / (1 + norms[0])
        point = TracePoint(
            step=state.step,
            epoch=state.epoch,
            loss=reading.loss,
            readings=list(reading.readings),
            multipliers=state.multiplier_M.tolist(),
            rho=state.rho_M.tolist(),
            residuals=residuals,
            gradient_norm=norms[0],
            wall_s=time.perf_counter() - self._began,
            loss_se=reading.loss_se,
            capped=state.capped_M.tolist(),
            running=state.running_M.tolist(),
            sampled=not self._whole,
            stationarity_se=error,
            memory=Memory.read(next(self._student.parameters()).device),
        )
        self.points.append(point)
        return point

    @property
    def batches(self) -> Sequence[Batch]:
        """What the last point was read on, as far as this process reads it."""
        return self._batches

    def is_best(self, feasible: bool) -> bool:
        """Say whether the last point is the best so far: of least violation, or of least loss among feasible ones.

        Args:
            feasible: Whether only points count that met every constraint.
        """
        *before, last = [rank_point(point) for point in self.points]
        if not math.isfinite(last[0]) or (feasible and last[0] > 0):
            return False
        return all(last < other for other in before)

    def state(self) -> dict[str, Any]:
        """Return what a run that goes on needs."""
        return {"points": pack_points(self.points), "seconds": time.perf_counter() - self._began}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave.

        Args:
            state: The same.
        """
        self.points = unpack_points(state["points"])
        self._began = time.perf_counter() - state["seconds"]

    def _count_positions(self) -> tuple[float, list[Tensor]]:
        """Return how many positions the whole sample has, and how many each group of each constraint."""
        constraints = self._terms.constraints
        sizes = [sum(average.size for _, average in constraint.parts) for constraint in constraints]

        def count() -> Tensor:
            total = torch.zeros(1 + sum(sizes), dtype=torch.float64)
            for batch in self._batches:
                total[0] += batch.positions
                counts = [constraint.counts(batch).cpu() for constraint in constraints]
                total[1:] += torch.cat([*counts, total[:0]])
            return total

        positions, *counts = torch.split(self._ranks.add_up(count, 1 + sum(sizes)).cpu(), [1, *sizes])
        return float(positions), counts

    def _read(self, multiplier_M: Tensor) -> tuple[SequenceReading, tuple[float, float, float]]:
        """Return what the sample says, and the norms of both gradients with the error of the second."""
        groups = self._weigh_groups()
        sums = SequenceSums(self._terms.constraints, self._rows)
        norms = GradientNorms([p for p in self._student.parameters() if p.requires_grad])
        constrained = bool((multiplier_M != 0).any())

        def add_up() -> Tensor:
            for batch in self._batches:
                with torch.enable_grad():
                    answers = self._ask(batch)
                    plain = self._terms.compare(answers, batch, count=self._positions)
                    whole = None
                    if constrained:
                        whole = self._terms.compare(
                            answers,
                            batch,
                            count=self._positions,
                            multipliers=multiplier_M,
                            group_weights=groups,
                            measure_counts=self._counts,
                        ).loss
                    norms.add(plain.loss, whole)
                n = plain.positions
                sums.add(answers, batch, float(plain.distillation) * n, float(plain.cross_entropy or 0.0) * n)
            return sums.pack()

        sums.unpack(self._ranks.add_up(add_up, sums.length))
        return sums.total("train"), norms.finish(self._ranks)

    def _weigh_groups(self) -> list[Tensor] | None:
        """Return what each group counts where that depends on means, which are read in a pass of their own."""
        constraints = self._terms.constraints
        if not any(constraint.gradient_depends_on_means for constraint in constraints):
            return None
        sums = SequenceSums(constraints, self._rows)

        def add_up() -> Tensor:
            with torch.no_grad():
                for batch in self._batches:
                    sums.add(self._ask(batch), batch, 0.0, 0.0)
            return sums.pack()

        sums.unpack(self._ranks.add_up(add_up, sums.length))
        return [
            constraint.gradient(surrogate_G / count_G, count_G, surrogate=True)
            for constraint, surrogate_G, count_G in zip(constraints, sums.surrogates, self._counts, strict=True)
        ]

    def _find_residuals(
        self, reading: SequenceReading, norms: tuple[float, float, float], multiplier_M: Tensor
    ) -> KKTResiduals:
        gap_M = torch.tensor([r.required - r.measured for r in reading.readings], dtype=torch.float64)
        equal_M = torch.tensor([r.equality for r in reading.readings], dtype=torch.bool)
        lambda_M = multiplier_M.detach().double().cpu()
        return residuals_from_norms(norms[0], norms[1], gap_M[~equal_M], lambda_M[~equal_M], gap_M[equal_M])
