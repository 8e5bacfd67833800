"""Frontiers with given points, for tests of tables, files and pictures."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

import safekd as kd
from safekd.frontier.table import annotate_rows

CURVE = [(0.1, 0.5), (0.2, 0.7), (1 / 3, 0.8), (0.7, 0.9)]


def frontier(points, *, name="a", feasible=None, seed=0, meta=None, students=None, **columns) -> kd.Frontier:
    """A frontier with given (loss, safety) and plausible rest; NaN and awkward numbers included."""
    draw = np.random.default_rng(seed)
    n = len(points)
    loss, safety = np.asarray(points, dtype=float).reshape(n, 2).T
    table = pd.DataFrame(
        {
            "schema_version": 1,
            "run_id": "0123456789ab",
            "method": "epsilon",
            "target": safety,
            "seed": 3,
            "distillation_loss": loss,
            f"safety_{name}": safety,
            f"violation_{name}": 0.0,
            f"lambda_{name}": draw.normal(size=n) ** 2 * 1e-17,
            f"se_{name}": np.nan,
            "rho": 10.0,
            "kkt_stationarity": draw.normal(size=n) * 10.0 ** draw.integers(-300, 300, n),
            "kkt_primal": 0.0,
            "kkt_dual": -0.0,
            "kkt_complementarity": 1e-9,
            "split": "train",
            "status": "converged",
            "feasible": True if feasible is None else feasible,
            "warm_from": [math.nan, *safety[:-1]][:n],
            "steps": 100,
            "wall_s": draw.uniform(size=n),
        }
    ).assign(**columns)
    return kd.Frontier(
        annotate_rows(table, name), name, meta or {"run_id": "0123456789ab", "epochs": 5}, students or {}
    )


def stacked(*frontiers: kd.Frontier) -> kd.Frontier:
    """Several tables as one, annotated anew."""
    first = frontiers[0]
    table = pd.concat([one.table for one in frontiers], ignore_index=True)
    return kd.Frontier(annotate_rows(table, first.constraint), first.constraint, first.meta)


def held(points, threshold, seed=3) -> kd.Frontier:
    """A slice: "night" held at a threshold and met with a little to spare."""
    night = {"safety_night": threshold + 0.01, "violation_night": 0.0, "lambda_night": 0.1, "se_night": 0.02}
    made = frontier(points, held_night=threshold, **night)
    return kd.Frontier(made.table.assign(seed=seed), made.constraint, made.meta)
