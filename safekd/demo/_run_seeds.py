"""How often the promise held: the demo's constrained student against uniform distillation, seed by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from .._torch_state import limit_threads
from ..experiment import build_experiment, run_variant
from ._run_demo import SETTINGS, build_variants, load_demo_config

SEED_COLUMNS = {
    "seed": "seed",
    "required": "threshold, the same for every seed",
    "uniform_train": "safety of uniform distillation on the split on which the constraint is posed",
    "train": "safety of the constrained student there",
    "validation": "the same on the validation split, which measured the teachers",
    "test": "the same on the test split",
    "certified": "95 % lower bound on the certify split",
    "met_train": f"constrained student within {SETTINGS.slack} of the threshold or above, on the posed split",
    "met_validation": "the same on the validation split",
    "met_test": "the same on the test split",
    "decision": "what the certificate says of the threshold itself",
    "status": "verdict of the run",
}


def run_seeds(seeds: Iterable[int], on_seed: Callable[[dict[str, Any]], None] | None = None) -> pd.DataFrame:
    """Run the demo's two ends for every seed and return one row a seed, columns as SEED_COLUMNS explains them.

    Args:
        seeds: Of splits, teachers and students.
        on_seed: Called with each row as it is there.
    """
    rows = []
    for seed in seeds:
        _, config = load_demo_config(seed)
        with limit_threads(config.threads):
            experiment = build_experiment(config, Path())
            variants = build_variants(experiment)
            uniform, constrained = run_variant(experiment, variants[0]), run_variant(experiment, variants[-1])
        required = experiment.constraints[0].required
        reached = {name: constrained.readings[name].measured for name in ("train", "validation", "test")}
        residuals = constrained.result.residuals
        rows.append(
            {
                "seed": seed,
                "required": required,
                "uniform_train": uniform.readings["train"].measured,
                **reached,
                "certified": constrained.certificate.lower_bound,
                **{f"met_{name}": value >= required - SETTINGS.slack for name, value in reached.items()},
                "decision": constrained.certificate.decision,
                "status": constrained.result.status,
                "kkt_stationarity": residuals.stationarity,
                "kkt_primal": residuals.primal,
                "kkt_dual": residuals.dual,
                "kkt_complementarity": residuals.complementarity,
            }
        )
        if on_seed is not None:
            on_seed(rows[-1])
    return pd.DataFrame(rows)
