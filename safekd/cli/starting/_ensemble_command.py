"""``safekd ensemble``: how good, how safe and how different the teachers of an experiment are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from ..._torch_state import limit_threads
from ...experiment import Experiment, build_experiment
from ...experiment.config import load_config
from ...report import show_name, tabulate_teachers
from .._exit_codes import ExitCode
from ..terminal import keep_quiet, print_json, print_plain


def print_ensemble(console: Console, path: Path, changes: Sequence[str], *, as_json: bool) -> int:
    """Print what the validation split shows of the teachers; return the exit code.

    Args:
        console: Where it is printed.
        path: The experiment file.
        changes: ``key=value`` each, over what the file says.
        as_json: Whether it is for a machine.
    """
    config, folder = load_config(path, changes)
    with limit_threads(config.threads), keep_quiet(console, as_json):
        experiment = build_experiment(config, folder)
        figures = measure_ensemble(experiment)
        console.print(tabulate_teachers(experiment))
        console.print(_tabulate_agreement(figures))
        pooled = figures["pooled"]
        print_plain(
            console,
            f"all with equal weight: accuracy {pooled['accuracy']:.3f}, loss {pooled['loss']:.3f} nats "
            f"({figures['split']} split, {figures['examples']} examples)",
        )
    if as_json:
        print_json(figures)
    return ExitCode.DONE


def measure_ensemble(experiment: Experiment) -> dict[str, Any]:
    """Return accuracy, loss, safety and agreement of teachers on the validation split.

    Args:
        experiment: Its teachers, and what was measured of them.
    """
    split, evidence = experiment.validation, experiment.evidence
    batch = split.batch()
    log_p_NKV = experiment.ensemble.cached_log_probabilities(split, batch).double()
    said_NK, label_N = log_p_NKV.argmax(-1), batch.labels
    pooled_NV = torch.logsumexp(log_p_NKV, dim=1) - torch.log(torch.tensor(float(log_p_NKV.shape[1])))
    names, contexts = experiment.ensemble.names, experiment.table.contexts
    return {
        "split": split.name,
        "examples": len(split),
        "teachers": [
            {
                "name": name,
                "accuracy": float((said_NK[:, k] == label_N).double().mean()),
                "loss": float(evidence.task_loss_MK[:, k].mean()),
                "safety": dict(zip(contexts, evidence.safety_CK[:, k].tolist(), strict=True)),
                "agreement": {
                    other: float((said_NK[:, k] == said_NK[:, j]).double().mean()) for j, other in enumerate(names)
                },
            }
            for k, name in enumerate(names)
        ],
        "pooled": {
            "accuracy": float((pooled_NV.argmax(-1) == label_N).double().mean()),
            "loss": float(-pooled_NV.gather(1, label_N[:, None]).mean()),
        },
    }


def _tabulate_agreement(figures: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="How often two teachers name the same class")
    for name in ("teacher", "accuracy"):
        table.add_column(name, justify="right" if name == "accuracy" else "left")
    for one in figures["teachers"]:
        table.add_column(show_name(one["name"]), justify="right", max_width=14)
    for one in figures["teachers"]:
        table.add_row(
            show_name(one["name"]), f"{one['accuracy']:.3f}", *(f"{share:.3f}" for share in one["agreement"].values())
        )
    return table
