"""The table of a frontier: CSV, indicators, picture.

Two objectives: distillation loss, smaller is better; safety, larger is better.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InvalidInput
from ..files import written_whole
from ..tables import write_csv
from ._read import SCHEMA_VERSION, read

COLUMNS_DOC = """schema_version, run_id, method, target, seed; distillation_loss (nats, full training split);
safety_<name>, violation_<name>, lambda_<name>, se_<name> (standard error of safety); rho; the four KKT residuals;
split (where the constraint is posed); status; feasible (violation at most 1e-3); nondominated (among feasible rows);
warm_from (target whose student was the start, empty for a cold one); steps; wall_s."""


@dataclass(frozen=True)
class Frontier:
    """Rows of a sweep, one a target, ordered by target.  constraint: the name whose threshold was swept."""

    table: pd.DataFrame
    constraint: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def points(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Feasible points as (loss, safety), shape (n, 2)."""
        rows = self.table[self.table["feasible"].astype(bool)]
        return rows[["distillation_loss", f"safety_{self.constraint}"]].to_numpy(dtype=np.float64)

    def nondominated(self) -> pd.DataFrame:
        """Return the feasible rows that no other feasible row beats in both loss and safety."""
        return self.table[self.table["nondominated"].astype(bool)]

    def hypervolume(self, reference: tuple[float, float]) -> float:
        """Return the area dominated by the frontier and bounded by ``reference`` = (loss, safety), its worst corner.

        Points outside the corner add nothing.  Source: Zitzler and Thiele 1999; two objectives need one sort.
        """
        corner = np.asarray(reference, dtype=np.float64)
        if corner.shape != (2,) or not np.isfinite(corner).all():
            raise InvalidInput(
                f"`reference` is {reference}; wanted two finite numbers (loss, safety), worse than the points."
            )
        worst_loss, worst_safety = corner
        inside = self.points[(self.points[:, 0] < worst_loss) & (self.points[:, 1] > worst_safety)]
        area, reached = 0.0, worst_safety
        for loss, safety in inside[np.argsort(inside[:, 0], kind="stable")]:
            area += max(safety - reached, 0.0) * (worst_loss - loss)
            reached = max(reached, safety)
        return float(area)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one tidy row a point, floats to the last bit, and ``.meta.json`` beside it; each whole or absent."""
        write_csv(self.table, path)
        with written_whole(f"{os.fspath(path)}.meta.json") as temporary:
            meta = {**self.meta, "constraint": self.constraint, "schema_version": SCHEMA_VERSION}
            temporary.write_text(json.dumps(meta, indent=2) + "\n")

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> Frontier:
        """Read what ``to_csv`` wrote, bit for bit.

        Raises InvalidInput when a file is absent, cut off, of another schema, or lacks columns.
        """
        return cls(*read(path))

    def plot(self, path: str | os.PathLike[str], required: float | None = None) -> None:
        """Draw loss against safety, multiplier below; ``required`` draws the threshold asked for."""
        from ._plot import draw

        draw(self, path, required)


def mark_nondominated(table: pd.DataFrame, constraint: str) -> pd.DataFrame:
    """Return the table with column ``nondominated``: feasible, and beaten by no other feasible row.

    Of rows with equal loss and safety the first counts.
    """
    loss, safety = table["distillation_loss"].to_numpy(float), table[f"safety_{constraint}"].to_numpy(float)
    feasible = table["feasible"].to_numpy(bool) & np.isfinite(loss) & np.isfinite(safety)
    keep = feasible.copy()
    for i in range(len(table)):
        better = feasible & (loss <= loss[i]) & (safety >= safety[i])
        strictly = better & ((loss < loss[i]) | (safety > safety[i]))
        twin = better & ~strictly
        keep[i] &= not strictly.any() and not twin[:i].any()
    return table.assign(nondominated=keep)
