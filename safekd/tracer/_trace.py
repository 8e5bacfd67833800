"""Points of a run, and the table that they make."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from solvers.kkt import KKTResiduals

from ..tables import write_csv


@dataclass(frozen=True)
class ConstraintReading:
    """One constraint on one split, read in a full pass.

    measured, surrogate: averages, in [0, 1] but for a budget; required: the threshold; count: examples averaged;
    standard_error: of ``measured``, from the spread over examples (not a number below two examples).
    equality: whether the threshold is to be met exactly.  resolution: by how much one example can move a measure that
    counts; 0 for one that moves smoothly.
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


@dataclass(frozen=True)
class TracePoint:
    """State of a run after ``step`` optimizer steps, read on whole splits.

    loss: distillation loss on the training split, nats; readings: each constraint on the split on which it is
    posed; multipliers, rho: one a constraint, same order; audit_loss, audit: the same readings on the audit split.
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
    audit_loss: float | None = None
    audit: Sequence[ConstraintReading] = ()

    @property
    def unusable(self) -> str:
        """What is not finite among loss, readings and gradient, in words; empty when all is well."""
        found = {"the distillation loss": self.loss}
        found |= {f"constraint '{reading.name}'": reading.measured for reading in self.readings}
        found |= {"the gradient": self.gradient_norm, "stationarity": self.residuals.stationarity}
        return ", ".join(f"{what} is {value:g}" for what, value in found.items() if not math.isfinite(value))

    @property
    def finite(self) -> bool:
        """Whether every number that a verdict rests on is finite."""
        return not self.unusable

    def flat(self) -> dict[str, float | int | str]:
        """Return the point as one row of the table."""
        row: dict[str, float | int | str] = {"step": self.step, "epoch": self.epoch, "distillation_loss": self.loss}
        for reading, price, rho in zip(self.readings, self.multipliers, self.rho, strict=True):
            row |= {
                f"safety_{reading.name}": reading.measured,
                f"surrogate_{reading.name}": reading.surrogate,
                f"required_{reading.name}": reading.required,
                f"violation_{reading.name}": reading.violation,
                f"se_{reading.name}": reading.standard_error,
                f"split_{reading.name}": reading.split,
                f"lambda_{reading.name}": price,
                f"rho_{reading.name}": rho,
            }
        row |= {
            "kkt_stationarity": self.residuals.stationarity,
            "kkt_primal": self.residuals.primal,
            "kkt_dual": self.residuals.dual,
            "kkt_complementarity": self.residuals.complementarity,
            "gradient_norm": self.gradient_norm,
        }
        if self.audit_loss is not None:
            row["audit_distillation_loss"] = self.audit_loss
            row |= {f"audit_safety_{reading.name}": reading.measured for reading in self.audit}
        return row | {"wall_s": self.wall_s}


@dataclass
class Trace:
    """The points of one run, in order."""

    points: list[TracePoint] = field(default_factory=list)

    def record(self, point: TracePoint) -> None:
        """Add one point."""
        self.points.append(point)

    def table(self) -> pd.DataFrame:
        """Return one tidy row a point."""
        return pd.DataFrame([point.flat() for point in self.points])

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table, floats to the last bit; the file appears whole or not at all."""
        write_csv(self.table(), path)
