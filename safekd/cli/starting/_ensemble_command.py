"""``safekd ensemble``: how good, how safe and how different the teachers of an experiment are, whom to leave out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..._torch_state import limit_threads
from ...data import Group
from ...errors import InvalidInput
from ...experiment import Experiment, build_experiment
from ...experiment.config import load_config
from ...report import show_name, tabulate_teachers
from ...theory.ensembles import EnsembleReport, ensemble_report
from .._exit_codes import ExitCode
from ..terminal import keep_quiet, print_json, show_written

_ENDINGS = (".png", ".svg", ".pdf")


def print_ensemble(console: Console, path: Path, changes: Sequence[str], plot: Path | None, *, as_json: bool) -> int:
    """Print what the validation split shows of the teachers; return the exit code.

    Args:
        console: Where it is printed.
        path: The experiment file.
        changes: ``key=value`` each, over what the file says.
        plot: Picture to write, or None.
        as_json: Whether it is for a machine.
    """
    if plot is not None and plot.suffix.lower() not in _ENDINGS:
        raise InvalidInput(f"--plot is {plot}; wanted a name that ends in {', '.join(_ENDINGS)}.")
    config, folder = load_config(path, changes)
    with limit_threads(config.threads), keep_quiet(console, as_json):
        experiment = build_experiment(config, folder)
        report = measure_ensemble(experiment)
        console.print(tabulate_teachers(experiment))
        console.print(_tabulate_agreement(report))
        console.print(report)
        if plot is not None:
            report.plot(plot)
            show_written(console, [plot])
    if as_json:
        print_json(_describe_ensemble(report, experiment))
    return ExitCode.DONE


def measure_ensemble(experiment: Experiment) -> EnsembleReport:
    """Return the report on the teachers of an experiment on its validation split, weighed and pooled as it says.

    Args:
        experiment: Its teachers, rule, pool and first safety measure.
    """
    return ensemble_report(
        experiment.ensemble,
        experiment.validation,
        weights=experiment.unified,
        pool=experiment.config.weights.make_pool(),
        safety=experiment.constraints[0].measure,
        evidence=experiment.evidence,
        critical_classes=frozenset[Group]().union(*(rule.critical for rule in experiment.constraints)),
        critical_contexts=experiment.critical_contexts,
    )


def _describe_ensemble(report: EnsembleReport, experiment: Experiment) -> dict[str, Any]:
    record, evidence = report.to_dict(), experiment.evidence
    for k, teacher in enumerate(record["teachers"]):
        by_context = evidence.safety_CK[:, k].tolist()
        teacher["safety_by_context"] = dict(zip(experiment.table.contexts, by_context, strict=True))
    return record


def _tabulate_agreement(report: EnsembleReport) -> Table:
    title = "How often two teachers name the same class"
    table = Table(box=box.SIMPLE_HEAD, title=title, min_width=len(title))
    table.add_column("teacher")
    for one in report.teachers:
        table.add_column(show_name(one.name), justify="right", max_width=14)
    for one in report.teachers:
        table.add_row(show_name(one.name), *(f"{share:.3f}" for share in one.agreement.values()))
    return table
