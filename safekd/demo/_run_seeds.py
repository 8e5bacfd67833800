"""How often the promise held: uniform distillation, the constraint on training data, and raised thresholds, by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from .._torch_state import limit_threads
from ..experiment import build_experiment, run_variant
from ._run_demo import build_variants, load_demo_config

SEED_COLUMNS = {
    "seed": "seed",
    "required": "threshold, the same for every seed",
    "cases": "malignant cases of the certify split, which nothing else read",
    "VARIANT_new": "safety of a variant (uniform, constrained, tightened): average over these cases",
    "VARIANT_bound": "its 95 % lower bound there",
    "VARIANT_decision": "what the certificate says: safe or not_shown",
    "VARIANT_loss": "distillation loss on the training split, nats",
    "VARIANT_status": "verdict of the run",
}
_SHOWN = ("uniform", "constrained", "tightened")


def run_seeds(seeds: Iterable[int], on_seed: Callable[[dict[str, Any]], None] | None = None) -> pd.DataFrame:
    """Run the demo's variants for every seed and return one row a seed, columns as SEED_COLUMNS explains them.

    Args:
        seeds: Of splits, teachers and students.
        on_seed: Called with each row as it is there.
    """
    rows = []
    for seed in seeds:
        _, config = load_demo_config(seed)
        with limit_threads(config.threads):
            experiment = build_experiment(config, Path())
            reports = [run_variant(experiment, one) for one in build_variants(experiment) if one.name in _SHOWN]
        row: dict[str, Any] = {
            "seed": seed,
            "required": experiment.constraints[0].required,
            "cases": reports[0].certificate.count,
        }
        for report in reports:
            shown = {
                "new": report.certificate.estimate,
                "bound": report.certificate.lower_bound,
                "decision": report.certificate.decision,
                "loss": report.loss,
                "status": report.result.status,
            }
            row |= {f"{report.variant.name}_{key}": value for key, value in shown.items()}
        rows.append(row)
        if on_seed is not None:
            on_seed(row)
    return pd.DataFrame(rows)
