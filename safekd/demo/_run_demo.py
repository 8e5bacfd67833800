"""The demo: four ways of training on the same data, what new cases show of each, and what is written to disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from solvers.short_repr import ShortRepr

from .._torch_state import limit_threads
from ..errors import InvalidInput, SolverFailure
from ..experiment import Experiment, Variant, VariantReport, build_experiment, run_variant
from ..experiment.config import ExperimentConfig, parse_config
from ..frontier import Frontier, VerifyReport, trace_frontier, verify
from ..saved_students import write_run_files
from ..training import RunFolder, open_run_folder
from ..weights import Uniform

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, repr=False)
class DemoOutcome(ShortRepr):
    """What the demo measured, and the files that it wrote.

    Attributes:
        experiment: Data, teachers and constraints.
        reports: The compared variants; the last is the one that is kept.
        frontier: Distillation loss against safety.
        verified: Every student of the frontier, read anew.
        written: Files, in the order in which they were written.
    """

    experiment: Experiment
    reports: list[VariantReport]
    frontier: Frontier
    verified: VerifyReport
    written: list[Path]


def load_demo_config(seed: int = 0) -> tuple[str, ExperimentConfig]:
    """Return the embedded configuration for a seed, as text and as a model.

    Args:
        seed: Of splits, teachers and student, at least 0.
    """
    text = files("safekd.demo").joinpath("breast_cancer.toml").read_text(encoding="utf-8")
    text = text.replace("seed = 0\n", f"seed = {seed}\n", 1)
    return text, parse_config(text, "the demo's configuration")


def build_variants(experiment: Experiment) -> list[Variant]:
    """Return the four ways of training that the demo compares.

    Uniform distillation; adaptive weights as they come, neither projected nor constrained; conforming weights with the
    constraint on training data; the same with thresholds raised until unseen cases show what is asked for.

    Args:
        experiment: Its weights and constraints.
    """
    weights, constraints = experiment.unified, experiment.constraints
    return [
        Variant("uniform", Uniform(), ()),
        Variant("adaptive", weights.compose, ()),
        Variant("constrained", weights, constraints, before=weights.compose),
        Variant("tightened", weights, constraints, before=weights.compose, tightened=True),
    ]


def run_demo(
    run_dir: str | os.PathLike[str] = "runs/demo", seed: int = 0, on_progress: OnProgress | None = None
) -> DemoOutcome:
    """Run the demo and write its results; files appear only when all is done.

    Args:
        run_dir: Where they are written.
        seed: Of splits, teachers and student, at least 0.
        on_progress: Called with what is being done, how much is done, of how much.

    Raises:
        InvalidInput: The folder cannot be written to, or is in use.
        SolverFailure: A student of the frontier is not what its row says.
    """
    text, config = load_demo_config(seed)
    with open_run_folder(run_dir) as folder, limit_threads(config.threads):
        return _run_config(text, config, folder, on_progress)


def _run_config(text: str, config: ExperimentConfig, folder: RunFolder, on_progress: OnProgress | None) -> DemoOutcome:
    report = on_progress or (lambda what, done, of: None)
    steps = 5 + config.frontier.targets if isinstance(config.frontier.targets, int) else 0
    report("fitting four teachers", 0, steps)
    experiment = build_experiment(config, Path())
    reports = []
    for number, variant in enumerate(build_variants(experiment)):
        report(f"training: {variant.name}", 1 + number, steps)
        reports.append(run_variant(experiment, variant))
    report("tracing the frontier", 5, steps)
    done = [5]

    def report_point(row: dict[str, Any]) -> None:
        done[0] += 1
        of = max(steps, done[0])
        report(f"frontier: safety {row['safety_malignant']:.3f} costs {row['distillation_loss']:.4f} nats", done[0], of)

    frontier = trace_frontier(
        experiment.trainer_at,
        experiment.train,
        experiment.validation,
        targets=config.frontier.targets,
        highest=config.frontier.highest,
        epochs=config.frontier.epochs,
        tolerance=config.frontier.tolerance,
        on_point=report_point,
    )
    report("writing", done[0], done[0])
    verified = verify(frontier, experiment.trainer_at, experiment.train, experiment.validation)
    if not verified.holds():
        raise SolverFailure(str(verified))
    written = _write_outcome(experiment, reports, frontier, folder, text)
    return DemoOutcome(experiment, reports, frontier, verified, written)


def _write_outcome(
    experiment: Experiment, reports: list[VariantReport], frontier: Frontier, folder: RunFolder, text: str
) -> list[Path]:
    constrained = reports[-1]
    proved = replace(constrained.result, certificates=[constrained.certificate])

    def write_more(part: Path) -> None:
        write_run_files(part, experiment, proved, text, Path(), rivals=reports[:-1])
        frontier.to_csv(part / "frontier.csv")
        frontier.plot(part / "frontier.png", required=experiment.constraints[0].required)

    kept = folder.keep(proved, write_more)
    if kept.save_note:
        raise InvalidInput(kept.save_note)
    return folder.list_files()
