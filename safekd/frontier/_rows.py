"""Entries of a sweep as rows of the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ._chain import Entry
from ._schema import SCHEMA_VERSION


def row_of(
    entry: Entry,
    *,
    run_id: str,
    method: str,
    seed: int,
    held: Mapping[str, float],
    names: Sequence[str],
    split: str,
    timed: bool,
) -> dict[str, Any]:
    """Return one row.  names: of all constraints, the swept one first.  held: thresholds of the others.

    Numbers that do not exist, such as the loss of a run that failed, are NaN.  Residuals refer to the row's own target.
    """
    cell = entry.cell
    loss = math.nan if cell is None else cell.loss
    row: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "method": method,
        "target": entry.asked,
        "mu": entry.weight,
        **{f"held_{name}": threshold for name, threshold in held.items()},
        "seed": seed,
        "distillation_loss": loss,
    }
    readings = {reading.name: reading for reading in (cell.readings if cell is not None else ())}
    prices = dict(zip(readings, cell.multipliers if cell is not None else (), strict=True))
    for name in names:
        reading = readings.get(name)
        safety = math.nan if reading is None else reading.measured
        missed = math.nan if reading is None else reading.violation
        if name == names[0] and reading is not None:
            missed = max(entry.asked - safety, 0.0) if not math.isnan(safety) else math.nan
        row |= {f"safety_{name}": safety, f"violation_{name}": missed, f"lambda_{name}": prices.get(name, math.nan)}
        row[f"se_{name}"] = math.nan if reading is None else reading.standard_error
    row |= {
        "rho": math.nan if cell is None else cell.rho,
        **_residuals(entry),
        "split": split,
        "status": entry.status,
        "feasible": entry.meets,
        "warm_from": entry.warm_from,
        "steps": entry.steps,
        "wall_s": entry.wall_s if timed else math.nan,
        "note": entry.note,
    }
    return row


def table_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows as a table, without the columns that say nothing."""
    table = pd.DataFrame(list(rows))
    silent = [name for name, empty in (("mu", table["mu"].isna()), ("note", table["note"] == "")) if empty.all()]
    return table.drop(columns=silent)


def _residuals(entry: Entry) -> dict[str, float]:
    cell = entry.cell
    if cell is None:
        return dict.fromkeys(
            (f"kkt_{name}" for name in ("stationarity", "primal", "dual", "complementarity")), math.nan
        )
    primal, complementarity = cell.primal, cell.complementarity
    if math.isnan(entry.weight) and entry.asked != cell.request.target and cell.finite:  # another row's student
        slack = cell.safety - entry.asked
        primal, complementarity = max(-slack, 0.0), abs(min(cell.multipliers[0], slack))
        for price, reading in zip(cell.multipliers[1:], cell.readings[1:], strict=True):
            primal = max(primal, reading.violation)
            loose = abs(reading.residual) if reading.equality else abs(min(price, reading.measured - reading.required))
            complementarity = max(complementarity, loose)
    return {
        "kkt_stationarity": cell.stationarity,
        "kkt_primal": primal,
        "kkt_dual": cell.dual,
        "kkt_complementarity": complementarity,
    }
