"""Points of a run, and the table that they make."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import TypeVar

import pandas as pd

from solvers.kkt import KKTResiduals
from solvers.short_repr import ShortRepr

from ...io import write_csv
from ._memory import Memory
from ._trace_files import Cell, write_jsonl

MACHINE_COLUMNS = ("wall_s", "memory_bytes", "peak_memory_bytes", "cuda_peak_bytes")
"""What differs from one machine, and one hour, to the next; every other column repeats bit for bit."""

FEASIBLE = 1e-3
"""Violations up to this count as none where a student is called feasible; in the unit of the constraint."""

T = TypeVar("T")


@dataclass(frozen=True)
class ConstraintReading:
    """One constraint on one split, read in a full pass.

    Attributes:
        name: Of the constraint.
        split: On which it was read.
        measured: Average of the measure, in [0, 1] but for a budget.
        surrogate: Average of its smooth surrogate, the same as ``measured`` for a smooth measure.
        required: Threshold.
        count: Examples averaged.
        standard_error: Of ``measured``, from the spread over examples; no number below two examples.
        equality: Whether the threshold is to be met exactly.
        resolution: By how much one example can move a measure that counts; 0 for one that moves smoothly.
    """

    name: str
    split: str
    measured: float
    surrogate: float
    required: float
    count: int
    standard_error: float
    equality: bool = False
    resolution: float = 0.0

    @property
    def residual(self) -> float:
        """How far below the threshold, 0 when met; negative above the threshold of an equality."""
        if self.equality or math.isnan(self.measured):
            return self.required - self.measured
        return max(self.required - self.measured, 0.0)

    @property
    def violation(self) -> float:
        """How far from what is required, 0 when met."""
        return abs(self.residual)


@dataclass(frozen=True, repr=False)
class TracePoint(ShortRepr):
    """State of a run after ``step`` optimizer steps, read on whole splits.

    Attributes:
        step: Optimizer steps so far.
        epoch: Passes over the training data so far.
        loss: Distillation loss on the training split, nats.
        readings: One a constraint, on the split on which it is posed.
        multipliers: One a constraint, same order.
        rho: Penalty of each constraint.
        residuals: KKT residuals.
        gradient_norm: Of the loss.
        wall_s: Seconds since the run began.
        validation_loss: Loss on the validation split; None where there is none.
        validation: Readings on the validation split.
        loss_se: Standard error of ``loss``, from the spread over positions.
        constraint_gradient_norms: Of each surrogate.
        capped: Whether each multiplier stands at its cap.
        peak_weights: Largest weight of each surrogate's gradient in a step so far, multiplier and penalty together.
        multiplier_scales: Weight at which each surrogate's gradient was as large as the loss's, in batches that
            violated it; no number where none did, and for dual methods that go by no scale.
        running: Each g = required - measured as the engine sees it, an average over the last steps' batches; no number
            before the first step.  Here alone a number is not read in full.
        sampled: Whether gradients, and stationarity with them, are estimates from random batches, or all was read on a
            sample of the examples.
        stationarity_se: Standard error of stationarity then, 0 for exact gradients.
        memory: Of the process.
        clipped_steps: Steps since the point before whose gradient was shortened.
        skipped_steps: Steps since the point before that were left out, their gradients beyond float16.
    """

    step: int
    epoch: int
    loss: float
    readings: Sequence[ConstraintReading]
    multipliers: Sequence[float]
    rho: Sequence[float]
    residuals: KKTResiduals
    gradient_norm: float
    wall_s: float
    validation_loss: float | None = None
    validation: Sequence[ConstraintReading] = ()
    loss_se: float = math.nan
    constraint_gradient_norms: Sequence[float] = ()
    capped: Sequence[bool] = ()
    peak_weights: Sequence[float] = ()
    multiplier_scales: Sequence[float] = ()
    running: Sequence[float] = ()
    sampled: bool = False
    stationarity_se: float = 0.0
    memory: Memory = field(default_factory=Memory)
    clipped_steps: int = 0
    skipped_steps: int = 0

    @property
    def stationarity_bound(self) -> float:
        """Stationarity and two standard errors: what must be within a tolerance."""
        return self.residuals.stationarity + 2 * self.stationarity_se

    @property
    def unusable(self) -> str:
        """What is not finite among loss, readings and gradients, in words; empty when all is well."""
        numbers = {"the distillation loss": self.loss}
        for reading, norm in zip(self.readings, _pad_forever(self.constraint_gradient_norms, 0.0), strict=False):
            numbers[f"constraint '{reading.name}'"] = reading.measured
            if math.isfinite(reading.measured):
                numbers[f"the surrogate of constraint '{reading.name}'"] = reading.surrogate
                numbers[f"the gradient of constraint '{reading.name}'"] = norm
        numbers |= {"the gradient": self.gradient_norm, "stationarity": self.residuals.stationarity}
        return ", ".join(f"{what} is {value:g}" for what, value in numbers.items() if not math.isfinite(value))

    @property
    def finite(self) -> bool:
        """Whether every number that a verdict rests on is finite."""
        return not self.unusable

    def as_row(self) -> dict[str, Cell]:
        """Return the point as one row of the table."""
        row: dict[str, Cell] = {"step": self.step, "epoch": self.epoch, "distillation_loss": self.loss}
        row["se_distillation_loss"] = self.loss_se
        mine = zip(self.readings, self.multipliers, self.rho, strict=True)
        more = zip(
            _pad_forever(self.capped, False),
            _pad_forever(self.running),
            _pad_forever(self.constraint_gradient_norms),
            _pad_forever(self.peak_weights),
            _pad_forever(self.multiplier_scales),
            strict=False,
        )
        for (reading, multiplier, rho), (capped, running, norm, peak, scale) in zip(mine, more, strict=False):
            row |= {
                f"safety_{reading.name}": reading.measured,
                f"surrogate_{reading.name}": reading.surrogate,
                f"required_{reading.name}": reading.required,
                f"violation_{reading.name}": reading.violation,
                f"se_{reading.name}": reading.standard_error,
                f"split_{reading.name}": reading.split,
                f"ema_{reading.name}": running,
                f"lambda_{reading.name}": multiplier,
                f"rho_{reading.name}": rho,
                f"peak_weight_{reading.name}": peak,
                f"multiplier_scale_{reading.name}": scale,
                f"capped_{reading.name}": capped,
                f"gradient_norm_{reading.name}": norm,
            }
        row |= {
            "kkt_stationarity": self.residuals.stationarity,
            "kkt_stationarity_se": self.stationarity_se,
            "kkt_primal": self.residuals.primal,
            "kkt_dual": self.residuals.dual,
            "kkt_complementarity": self.residuals.complementarity,
            "gradient_norm": self.gradient_norm,
            "gradients": "sampled" if self.sampled else "exact",
            "clipped_steps": self.clipped_steps,
            "skipped_steps": self.skipped_steps,
        }
        if self.validation_loss is not None:
            row["validation_distillation_loss"] = self.validation_loss
            for reading in self.validation:
                row |= {f"validation_safety_{reading.name}": reading.measured}
                row |= {f"validation_se_{reading.name}": reading.standard_error}
        row |= {"wall_s": self.wall_s, "memory_bytes": self.memory.resident, "peak_memory_bytes": self.memory.peak}
        return row if math.isnan(self.memory.cuda_peak) else row | {"cuda_peak_bytes": self.memory.cuda_peak}


def _pad_forever(values: Sequence[T], missing: T = math.nan) -> chain[T]:  # type: ignore[assignment]
    """Return the values, and after them what is missing, without end."""
    return chain(values, repeat(missing))


@dataclass(repr=False)
class Trace(ShortRepr):
    """The points of one run, in order.

    Attributes:
        points: From step 0 on.
    """

    points: list[TracePoint] = field(default_factory=list)

    def record(self, point: TracePoint) -> None:
        """Add one point.

        Args:
            point: The next one.
        """
        self.points.append(point)

    def table(self) -> pd.DataFrame:
        """Return one tidy row a point."""
        return pd.DataFrame([point.as_row() for point in self.points])

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table, floats to the last bit; the file appears whole or not at all.

        Args:
            path: A .csv file.
        """
        write_csv(self.table(), path)

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON object a point and line, floats to the last bit; the file appears whole or not at all.

        Args:
            path: A .jsonl file.
        """
        write_jsonl([point.as_row() for point in self.points], path)
