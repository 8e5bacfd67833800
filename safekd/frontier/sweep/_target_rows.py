"""Target rows of a sweep as rows of the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from ...training import build_checked
from ..store import TrainedPoint
from ..table import SCHEMA_VERSION
from ._slice_sweep import TargetRow


@dataclass(frozen=True)
class RowContext:
    """What belongs to all rows of a slice.

    Attributes:
        run_id: Of the sweep.
        method: "epsilon" or "mu".
        seed: Of the slice.
        held: Thresholds of the constraints after the swept one, by name.
        names: Of all constraints, the swept one first.
        split: Where the swept constraint is posed.
        timed: Whether times stand in the table, not beside it.
    """

    run_id: str
    method: str
    seed: int
    held: Mapping[str, float]
    names: Sequence[str]
    split: str
    timed: bool


def build_table_row(row: TargetRow, context: RowContext) -> dict[str, Any]:
    """Return one row of the table.

    Numbers that do not exist, such as the loss of a run that failed, are NaN.  Residuals refer to the row's own target.
    """
    point = row.point
    readings = {reading.name: reading for reading in (point.readings if point is not None else ())}
    multipliers = dict(zip(readings, point.multipliers if point is not None else (), strict=True))
    validation = {reading.name: reading.measured for reading in (point.validation if point is not None else ())}
    built: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run_id": context.run_id,
        "method": context.method,
        "target": row.target,
        "mu": row.weight,
        **{f"held_{name}": threshold for name, threshold in context.held.items()},
        "seed": context.seed,
        "distillation_loss": math.nan if point is None else point.loss,
    }
    for name in context.names:
        reading = readings.get(name)
        safety = math.nan if reading is None else reading.measured
        violation = math.nan if reading is None else reading.violation
        if name == context.names[0] and reading is not None:
            violation = max(row.target - safety, 0.0) if not math.isnan(safety) else math.nan
        built |= {
            f"safety_{name}": safety,
            f"violation_{name}": violation,
            f"lambda_{name}": multipliers.get(name, math.nan),
            f"se_{name}": math.nan if reading is None else reading.standard_error,
            f"validation_safety_{name}": validation.get(name, math.nan),
        }
    return built | {
        "rho": math.nan if point is None else point.rho,
        **_compute_residuals(row, point),
        "split": context.split,
        "status": row.status,
        "feasible": row.feasible,
        "warm_from": row.warm_from,
        "steps": row.steps,
        "wall_s": row.wall_s if context.timed else math.nan,
        "note": row.note,
    }


def describe_row(row: TargetRow, context: RowContext) -> dict[str, Any]:
    """Return what a row says besides its point, as JSON has it."""
    own = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "point"}
    return {**own, "context": asdict(context)}


def restore_row(record: Mapping[str, Any], point: TrainedPoint | None) -> tuple[TargetRow, RowContext]:
    """Return the row that ``describe_row`` described, and what belongs to its slice."""
    own = {name: value for name, value in record.items() if name not in ("context", "point")}
    return build_checked(TargetRow, own, point=point), build_checked(RowContext, record["context"])


def build_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows as a table, without the columns that say nothing."""
    table = pd.DataFrame(list(rows))
    numbers = ["mu", *(name for name in table.columns if name.startswith("validation_safety_"))]
    silent = [name for name in numbers if table[name].isna().all()]
    return table.drop(columns=[*silent, *["note"] * bool((table["note"] == "").all())])


def _compute_residuals(row: TargetRow, point: TrainedPoint | None) -> dict[str, float]:
    if point is None:
        names = ("stationarity", "primal", "dual", "complementarity")
        return dict.fromkeys((f"kkt_{name}" for name in names), math.nan)
    primal, complementarity = point.primal, point.complementarity
    if math.isnan(row.weight) and row.target != point.spec.target and point.finite:  # another row's student
        slack = point.safety - row.target
        primal, complementarity = max(-slack, 0.0), abs(min(point.multipliers[0], slack))
        for multiplier, reading in zip(point.multipliers[1:], point.readings[1:], strict=True):
            primal = max(primal, reading.violation)
            slack = reading.measured - reading.required
            loose = abs(reading.residual) if reading.equality else abs(min(multiplier, slack))
            complementarity = max(complementarity, loose)
    return {
        "kkt_stationarity": point.stationarity,
        "kkt_primal": primal,
        "kkt_dual": point.dual,
        "kkt_complementarity": complementarity,
    }
