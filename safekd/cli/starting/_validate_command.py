"""``safekd validate``: what can be known of an experiment before it is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from ..._torch_state import limit_threads
from ...experiment import Experiment, build_experiment, build_tracked_run, estimate_training_bytes
from ...experiment.config import ExperimentConfig, load_config
from ...report import show_name
from ...safety import SafetyConstraint, cases_needed
from ...training.diagnosis import BeyondBudget, bound_feasibility
from .._exit_codes import ExitCode
from ..terminal import keep_quiet, print_json, print_plain


@dataclass(frozen=True)
class EstimateSettings:
    """How the time of a training is estimated; ``tests/safekd/cli/starting/test_cli_starting.py`` notices.

    Attributes:
        steps: Of a short run and of a long one: what every run does once is in both.
        rows: Of the training split at most that they read, where a step reads all of it.
    """

    steps: tuple[int, int] = (10, 50)
    rows: int = 100_000


_SETTINGS = EstimateSettings()


def show_validation_of_config(console: Console, path: Path, changes: Sequence[str], *, as_json: bool) -> int:
    """Print what an experiment is made of, and what it can show; return the exit code.

    Args:
        console: Where it is printed.
        path: The experiment file.
        changes: ``key=value`` each, over what the file says.
        as_json: Whether it is for a machine.
    """
    config, folder = load_config(path, changes)
    with limit_threads(config.threads), keep_quiet(console, as_json):
        build_tracked_run(config, path.stem)
        experiment = build_experiment(config, folder)
        figures = measure_experiment(experiment)
        print_plain(
            console,
            f"{figures['rows']:,} rows, {figures['features']} features, {len(figures['classes'])} classes, "
            f"{len(figures['contexts'])} contexts, {len(figures['teachers'])} teachers: "
            f"{', '.join(figures['teachers'])}",
        )
        console.print(_tabulate_cases(figures))
        for constraint in figures["constraints"]:
            print_plain(console, _tell_constraint(constraint))
        print_plain(
            console,
            f"student: {figures['parameters']:,} parameters, some {figures['megabytes']:,.1f} MB in training; "
            f"{figures['steps']:,} steps at most a training, some {figures['seconds']:,.1f} s"
            + (f", and up to {figures['trainings']} trainings to raise thresholds" if config.tighten else ""),
        )
        print_plain(console, figures["feasibility"])
    if as_json:
        print_json(figures)
    if figures["feasible"] is False:
        return ExitCode.INFEASIBLE
    possible = all(one["shown_if_faultless"] for one in figures["constraints"])
    return ExitCode.DONE if possible else ExitCode.CHECK_FAILED


def measure_experiment(experiment: Experiment) -> dict[str, Any]:
    """Return sizes, cases of every constraint in every split, what certificates need, and what training costs.

    Args:
        experiment: Built, not trained.
    """
    config, table = experiment.config, experiment.table
    label_N = np.concatenate([split.batch().labels.numpy() for split in experiment.splits.values()])
    counts = np.bincount(label_N, minlength=len(table.classes))
    sizes = {name: len(split) for name, split in experiment.splits.items()}
    if experiment.stream is not None and config.data.split is None:  # beside a column only the sample is counted
        sizes["train"] = round(config.data.splits.train * experiment.rows)
    parameters = sum(value.numel() for value in experiment.student().parameters())
    feasible, told = _bound_feasibility(experiment)
    steps = config.training.epochs * max(1, math.ceil(sizes["train"] / (config.training.batch_size or sizes["train"])))
    return {
        "rows": experiment.rows,
        "features": len(table.features),
        "classes": dict(zip(table.classes, counts.tolist(), strict=True)),
        "contexts": table.contexts,
        "teachers": experiment.ensemble.names,
        "splits": {
            name: {
                "examples": sizes[name],
                **{one.name: _count_cases(one, experiment, name) for one in experiment.constraints},
            }
            for name in experiment.splits
        },
        "constraints": [_measure_constraint(one, experiment) for one in experiment.constraints],
        "parameters": parameters,
        "megabytes": estimate_training_bytes(parameters) / 1e6,
        "steps": steps,
        "seconds": _estimate_seconds(experiment, steps),
        "trainings": _count_trainings(config),
        "feasible": feasible,
        "feasibility": told,
    }


def _bound_feasibility(experiment: Experiment) -> tuple[bool | None, str]:
    """Return whether any student could meet all thresholds where they are posed, None where that is not known."""
    constraints = experiment.constraints
    try:
        bound = bound_feasibility(experiment.trainer().objective, experiment.splits, constraints)
    except BeyondBudget as error:
        return None, f"whether the thresholds can be met together was not looked at: {error}"
    if bound is None:
        return None, "whether the thresholds can be met together is not known for constraints of these kinds"
    if not bound.infeasible:
        return True, "nothing speaks against the thresholds: cases that look alike do not contradict them"
    names = ", ".join(f"'{one.name}'" for one, weight in zip(constraints, bound.weights_M, strict=True) if weight > 0)
    return False, (
        f"infeasible: no student can meet {names} together: cases that look alike would need probabilities that sum to "
        f"more than 1; weighed by Farkas' weights they ask for {bound.wanted:.4f}, and {bound.bound:.4f} is the most. "
        "Ask for less, or give features that tell these cases apart."
    )


def _measure_constraint(constraint: SafetyConstraint, experiment: Experiment) -> dict[str, Any]:
    cases, required = _count_cases(constraint, experiment, "certify"), constraint.required
    reachable = not constraint.is_equality and required < 1
    halfway = (1 + required) / 2
    least = cases_needed(required, 1.0, binary=constraint.measure.binary) if reachable else None
    return {
        "name": constraint.name,
        "required": required,
        "cases": cases,
        "needed_if_faultless": least,
        "needed_at_halfway": cases_needed(required, halfway, binary=constraint.measure.binary) if reachable else None,
        "halfway": halfway,
        "shown_if_faultless": least is None or cases >= least,
    }


def _count_cases(constraint: SafetyConstraint, experiment: Experiment, split: str) -> int:
    return int(constraint.counts(experiment.splits[split].batch()).sum())


def _tell_constraint(one: dict[str, Any]) -> str:
    if one["needed_if_faultless"] is None:
        return f"{one['name']}: asks for {one['required']:g} exactly, or for 1, which no number of cases can show"
    wanted = (
        f"a student without a fault needs {one['needed_if_faultless']} to show {one['required']:g}, one that reaches "
        f"{one['halfway']:.3f} at most {one['needed_at_halfway']:,}"
    )
    if one["shown_if_faultless"]:
        return f"{one['name']}: {one['cases']} held-out cases; {wanted}"
    return (
        f"{one['name']}: {one['cases']} held-out cases are too few for any certificate: {wanted}. "
        "Give the certify split a larger share, find more data, or ask for less."
    )


def _estimate_seconds(experiment: Experiment, steps: int) -> float:
    """Return how long a training of so many steps will take: what a run does once, and each step.

    Constraints are left out: a sample may lack their cases, and they cost little beside the teachers.
    """
    train, settings = experiment.splits["train"], experiment.config.training
    size = settings.batch_size
    most = _SETTINGS.rows if size is None else size * _SETTINGS.steps[0]
    share = max(1.0, len(train) / most) if size is None else 1.0
    if len(train) > most:
        train = train.sample(most, experiment.config.seed)
    a_pass = 1 if size is None else math.ceil(len(train) / size)

    def time_run(epochs: int) -> float:
        trainer, began = experiment.trainer(constraints=()), time.perf_counter()
        trainer.fit(train, epochs=epochs, tolerance=1e-12)  # which is not reached: no run ends before its steps
        return time.perf_counter() - began

    few, many = (max(1, number // a_pass) for number in _SETTINGS.steps)
    time_run(few)  # the first asks teachers and loads code
    once, longer = time_run(few), time_run(many)
    return once + steps * share * max(0.0, longer - once) / max(1, (many - few) * a_pass)


def _count_trainings(config: ExperimentConfig) -> int:
    settings = config.tighten
    if settings is None:
        return 1
    rounds = settings.rounds or (4 if settings.on == "crossfit" else 2)
    return settings.folds * rounds + (1 if settings.on == "crossfit" else settings.attempts)


def _tabulate_cases(figures: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Cases that constraints cover")
    table.add_column("split")
    for name in next(iter(figures["splits"].values())):
        table.add_column(show_name(name), justify="right")
    for name, counts in figures["splits"].items():
        table.add_row(show_name(name), *(f"{count:,}" for count in counts.values()))
    return table
