"""One training run of a sweep: what it is asked for, and what it left behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from solvers.short_repr import ShortRepr

from ...training import FEASIBLE, WarmStart
from ...training.trace import ConstraintReading

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class RunSpec:
    """A training run that a sweep asks for.

    Attributes:
        name: Of its folder.
        seed: Handed to make_trainer, None where that decides.
        target: Threshold of the swept constraint.
        held: Thresholds of other constraints, by name.
        tolerance: Of the KKT residuals.
        weight: The fixed weight that the swept constraint gets instead of a threshold, nats a unit; None for none.
        start: Name of the trained point where it begins, None for a cold run.
        before: Name of the one before that, along whose line it begins, or None.
        trace_every: Steps between full passes, None for the trainer's own choice.
    """

    name: str
    seed: int | None
    target: float
    held: Mapping[str, float]
    tolerance: float
    weight: float | None = None
    start: str | None = None
    before: str | None = None
    trace_every: int | None = None


@dataclass(frozen=True, repr=False)
class TrainedPoint(ShortRepr):
    """What a run left behind: one student, and its numbers, each evaluated on whole splits.

    Attributes:
        spec: What was asked for.
        status: As its row has it.
        note: What the status leaves unsaid.
        seed: Of the trainer.
        loss: Distillation loss, nats.
        loss_se: Its standard error, nats.
        readings: Of each constraint, the swept one first.
        validation: The same on the validation split; none where there is no such split.
        multipliers: Of each constraint, nats a unit.
        rho: The largest penalty.
        stationarity: KKT residual.
        primal: KKT residual.
        dual: KKT residual.
        complementarity: KKT residual.
        steps: Of the optimizer.
        interval: Steps between full passes.
        impossible: Whether it was proved that no student meets its thresholds.
        optimizer_kind: Name of the optimizer's class.
        wall_s: Seconds it took.
        sampled: Whether gradients, and stationarity with them, are estimates.
        data: Which splits were read, and how.
        student: Parameters and buffers.
        rule_state: What a weighting rule had learned.
        optimizer: The optimizer's state.
    """

    spec: RunSpec
    status: str
    note: str = ""
    seed: int = 0
    loss: float = math.nan
    loss_se: float = math.nan
    readings: Sequence[ConstraintReading] = ()
    validation: Sequence[ConstraintReading] = ()
    multipliers: Sequence[float] = ()
    rho: float = math.nan
    stationarity: float = math.nan
    primal: float = math.nan
    dual: float = math.nan
    complementarity: float = math.nan
    steps: int = 0
    interval: int | None = None
    impossible: bool = False
    optimizer_kind: str = ""
    wall_s: float = 0.0
    sampled: bool = False
    data: Sequence[Mapping[str, Any]] = ()
    student: Parameters = field(default_factory=dict)
    rule_state: Parameters = field(default_factory=dict)
    optimizer: Parameters = field(default_factory=dict)

    @property
    def safety(self) -> float:
        """What the swept constraint reads."""
        return self.readings[0].measured if self.readings else math.nan

    @property
    def finite(self) -> bool:
        """Whether there is a student with a loss and a safety."""
        return math.isfinite(self.loss) and all(math.isfinite(reading.measured) for reading in self.readings)

    @property
    def warm_start(self) -> WarmStart:
        """Where a run that follows begins."""
        return WarmStart(self.student, list(self.multipliers), self.rule_state)

    def violation(self, target: float) -> float:
        """Return by how much the student misses ``target`` or what else was asked, 0 where all is met."""
        if not self.finite:
            return math.inf
        others = [reading.violation for reading in self.readings[1:]]
        return max([target - self.safety, 0.0, *others])

    def meets(self, target: float) -> bool:
        """Say whether the student meets ``target`` and all else that was asked, to 1e-3."""
        return self.violation(target) <= FEASIBLE
