"""Small run folders for tests of reports: names as a user chooses them, or as somebody who means harm does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from safekd.experiment import Experiment, build_experiment
from safekd.experiment.config import parse_config
from safekd.safety import certify
from safekd.saved_students import write_run_files
from safekd.training import FitResult, open_run_folder

from ..frontiers import frontier
from ..problems import at_least, one_each, trainer_for

CURVE = [(0.01, 0.75), (0.05, 0.8), (0.2, 0.9)]
HOSTILE = '</style><script>alert(1)</script><img src=x onerror="alert(2)">\u202e&amp;\'"'
_CONFIG = """
seed = {seed}
[data]
source = "cases.csv"
label = "outcome"
[data.context]
column = "x0"
names = {contexts}
[[teachers]]
name = {first}
kind = "logistic_regression"
features = ["x0"]
[[teachers]]
name = {second}
kind = "logistic_regression"
features = ["x1"]
[weights]
lower = 0.1
upper = 0.9
critical_contexts = {critical}
[student]
hidden = [4]
[[constraints]]
name = {constraint}
critical = {sick}
at_least = 0.8
[training]
epochs = {epochs}
learning_rate = 0.05
tolerance = 1e-2
threads = 1
"""


@dataclass(frozen=True)
class MadeRun:
    """A run folder, and what was put into it."""

    folder: Path
    experiment: Experiment
    result: FitResult


def make_run(place: Path, name: str = "run", *, hostile: bool = False, seed: int = 0, epochs: int = 120) -> MadeRun:
    """Train on 160 cases of two classes and keep it in a folder, with a frontier beside it."""
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    x = rng.normal(size=(160, 2))
    sick = f"{HOSTILE}sick" if hostile else "sick"
    label = np.where(x.sum(1) + 0.5 * rng.normal(size=160) > 0, sick, "well")
    pd.DataFrame(x, columns=["x0", "x1"]).assign(outcome=label).to_csv(place / "cases.csv", index=False)
    quote = lambda text: _quote(f"{HOSTILE}{text}" if hostile else text)  # noqa: E731
    contexts = f"[{quote('low')}, {quote('high')}]"
    text = _CONFIG.format(
        seed=seed,
        epochs=epochs,
        contexts=contexts,
        critical=f"[{quote('low')}]",
        first=quote("first teacher"),
        second=quote("second teacher"),
        constraint=quote("safe"),
        sick=f"[{_quote(sick)}]",
    )
    experiment = build_experiment(parse_config(text, "test"), place)
    trainer = experiment.trainer()
    result = trainer.fit(experiment.train, experiment.validation, epochs=epochs, tolerance=1e-2)
    rule = experiment.constraints[0]
    result = replace(result, certificates=[certify(result, rule, experiment.splits["certify"])])
    traced = frontier(CURVE, name=rule.name, status=["anchor", "converged", "converged"])
    traced.table[f"validation_safety_{rule.name}"] = [0.7, 0.76, 0.81]

    def write_more(part: Path) -> None:
        write_run_files(part, experiment, result, text, place)
        traced.to_csv(part / "frontier.csv")

    with open_run_folder(place / name) as folder:
        kept = folder.keep(result, write_more)
    assert not kept.save_note
    return MadeRun(place / name, experiment, result)


def make_bare_run(folder: Path, threshold: float = 0.5) -> FitResult:
    """A run of a module of the user's own: its folder has no features, no weights, no facts."""
    trainer = trainer_for(at_least(threshold))
    return trainer.fit(one_each(), one_each(name="validation"), epochs=60, tolerance=1e-3, run_dir=folder)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\u202e", "\\u202e")
    return f'"{escaped}"'
