"""The epsilon-constraint sweep: one constrained run a threshold, each begun where its neighbour ended.

Thresholds are tightened step by step, so concave parts of the frontier are reached too, which a sweep over weights
cannot do (Miettinen 1999, theorem 3.2.2: every epsilon-constraint optimum is weakly Pareto optimal).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data import as_split
from ..errors import InvalidInput, SolverFailure
from ..trainer import ConstrainedTrainer, FitResult, WarmStart
from ._frontier import Frontier
from ._marks import mark
from ._schema import SCHEMA_VERSION

MakeTrainer = Callable[[float], ConstrainedTrainer]


def trace_frontier(
    make_trainer: MakeTrainer,
    train: Any,
    audit: Any = None,
    *,
    targets: int | Sequence[float] = 11,
    highest: float = 0.99,
    method: str = "epsilon",
    epochs: int,
    on_point: Callable[[dict[str, Any]], None] | None = None,
    **fit: Any,
) -> Frontier:
    """Trace distillation loss against safety, one constrained run a threshold.

    make_trainer: threshold -> a fresh ConstrainedTrainer whose first constraint asks for it (use
    ``constraint.at(threshold)``).  targets: how many thresholds, spread evenly from what the unconstrained student
    reaches to ``highest``, both ends included; or the thresholds themselves, each in (0, 1].  method: "epsilon".
    epochs, fit: passed to ``ConstrainedTrainer.fit`` for every run; ``run_dir`` gets one folder a run.
    on_point: called with every finished row.
    Every target keeps a row with the status of its run; a threshold that the unconstrained student meets anyway is
    ``redundant`` and is not solved again.  ``.meta`` says which data were used for what.  Raises InvalidInput for
    targets that are no thresholds and for ``tighten``, and SolverFailure when the unconstrained student itself has no
    finite loss and safety to begin from.
    """
    if fit.get("tighten") is not None:
        raise InvalidInput(
            "`tighten` was given to a sweep, whose every target would look at the same data again. Choose a target "
            "from the frontier, then fit(..., tighten=...) for that one."
        )
    if method != "epsilon":
        raise InvalidInput(f"`method` is {method!r}; this release has 'epsilon', the epsilon-constraint sweep.")
    sweep = _Sweep(make_trainer, as_split(train, "train"), audit, epochs, fit, on_point)
    if not isinstance(targets, (int, np.integer)):
        return sweep.run(_checked(targets), 0, highest)
    if targets < 2 or not 0 < highest <= 1:
        raise InvalidInput(
            f"`targets` is {targets} up to {highest}; wanted at least 2 targets and a highest one in (0, 1]."
        )
    return sweep.run(None, int(targets), highest)


class _Sweep:
    """One sweep: the unconstrained anchor, then thresholds upwards, each warm from the last."""

    def __init__(
        self,
        make_trainer: MakeTrainer,
        train: Any,
        audit: Any,
        epochs: int,
        fit: dict[str, Any],
        on_point: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.make_trainer, self.train, self.audit, self.epochs, self.fit = make_trainer, train, audit, epochs, fit
        self.on_point = on_point
        self.rows: list[dict[str, Any]] = []

    def run(self, grid: list[float] | None, count: int, highest: float) -> Frontier:
        """Solve the anchor, decide the grid, walk it."""
        anchor, seconds = self._solve(_TINY, None)
        name = anchor.point.readings[0].name
        lowest = anchor.point.readings[0].measured
        if not anchor.point.finite:
            raise SolverFailure(f"The unconstrained run, where the frontier begins, failed: {anchor.message}")
        if grid is None:
            grid = np.linspace(min(lowest, highest), highest, count).tolist()
        seed = self.seed
        key = f"{name}|{seed}|{self.epochs}|{grid}|{lowest!r}"
        self.run_id = hashlib.sha256(key.encode()).hexdigest()[:12]
        self._add(grid[0] if grid[0] <= lowest else lowest, anchor, None, seconds, seed, "anchor")
        start, warm_from = WarmStart.of(anchor), lowest
        for target in grid:
            if target <= lowest:
                if target != self.rows[0]["target"]:
                    self._add(target, anchor, None, 0.0, seed, "redundant")
                continue
            result, seconds = self._solve(target, start)
            self._add(target, result, warm_from, seconds, seed, result.status)
            if result.status != "diverged":
                start, warm_from = WarmStart.of(result), target
        table = mark(pd.DataFrame(self.rows), name).sort_values("target", kind="stable", ignore_index=True)
        meta = {
            "run_id": self.run_id,
            "senses": {"distillation_loss": "min", f"safety_{name}": "max"},
            "highest": grid[-1],
            "epochs": self.epochs,
            "data": [use.record() for use in anchor.uses],
        }
        return Frontier(table, name, meta)

    def _solve(self, target: float, start: WarmStart | None) -> tuple[FitResult, float]:
        began = time.perf_counter()
        trainer = self.make_trainer(max(target, _TINY))
        if not trainer.constraints:
            raise InvalidInput(
                "make_trainer(threshold) gave a trainer without constraints; its first one is what is swept."
            )
        self.seed = trainer.seed
        fit = dict(self.fit)
        if fit.get("run_dir") is not None:
            fit["run_dir"] = Path(fit["run_dir"]) / ("anchor" if start is None else f"target-{target:.6g}")
        result = trainer.fit(self.train, self.audit, epochs=self.epochs, warm_start=start, **fit)
        return result, time.perf_counter() - began

    def _add(
        self, target: float, result: FitResult, warm_from: float | None, seconds: float, seed: int, status: str
    ) -> None:
        point = replace(
            result.point, readings=[replace(result.point.readings[0], required=target), *result.point.readings[1:]]
        )
        row: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "run_id": self.run_id,
            "method": "epsilon",
            "target": target,
            "seed": seed,
            "distillation_loss": point.loss,
        }
        for reading, price in zip(point.readings, point.multipliers, strict=True):
            row |= {f"safety_{reading.name}": reading.measured, f"violation_{reading.name}": reading.violation}
            row |= {f"lambda_{reading.name}": price, f"se_{reading.name}": reading.standard_error}
        residuals = point.residuals
        row |= {
            "rho": max(point.rho),
            "kkt_stationarity": residuals.stationarity,
            "kkt_primal": residuals.primal,
            "kkt_dual": residuals.dual,
            "kkt_complementarity": residuals.complementarity,
            "split": point.readings[0].split,
            "status": status,
            "feasible": all(reading.violation <= 1e-3 for reading in point.readings),
            "warm_from": math.nan if warm_from is None else warm_from,
            "steps": 0 if status == "redundant" else point.step,
            "wall_s": seconds,
        }
        self.rows.append(row)
        if self.on_point is not None:
            self.on_point(row)


_TINY = 1e-9  # the loosest threshold that is one: met by every student


def _checked(targets: Sequence[float]) -> list[float]:
    try:
        values = [float(value) for value in targets]
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"`targets` is {targets!r}; wanted how many, a whole number, or the thresholds, for example [0.8, 0.9]."
        ) from error
    wrong = [value for value in values if not (math.isfinite(value) and 0 < value <= 1)]
    if not values or wrong:
        found = f"holds {wrong[0]}" if wrong else "is empty"
        raise InvalidInput(
            f"`targets` {found}; wanted safety thresholds above 0 and at most 1, for example [0.8, 0.9, 0.95]."
        )
    return sorted(set(values))
