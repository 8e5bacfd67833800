"""``safekd train`` and ``safekd frontier``: what an experiment file describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from ..config import load_config
from ..errors import InvalidInput
from ..experiment import build, threads
from ..files import written_whole
from ..frontier import trace_frontier
from ..report import fit_summary, frontier_table, rounds_table
from ..safety import certify
from ..tracer import TracePoint
from ..trainer import save_run
from ._progress import bar, show_written

_PICTURES = (".png", ".svg", ".pdf")


def show_training(console: Console, path: Path, run_dir: Path | None) -> int:
    """Train with a progress bar, save, and print the result; return the exit code."""
    config, folder = load_config(path)
    target = run_dir or Path(config.run_dir or Path("runs") / path.stem)
    text = path.read_text(encoding="utf-8")
    with bar(console) as progress, threads(config.training.threads):
        task = progress.add_task("fitting teachers", total=config.training.epochs)
        experiment = build(config, folder)

        def tell(point: TracePoint) -> None:
            said = f"loss {point.loss:.4f}, " + ", ".join(f"{r.name} {r.measured:.4f}" for r in point.readings)
            progress.update(task, description=said, completed=point.epoch)

        def told(row: Mapping[str, Any]) -> None:
            said = f"round {row['round']}: '{row['constraint']}' posed at {row['posed']:.4f}, {row['status']}"
            progress.console.print(f"{said}; new data show {row['judged']:.4f}", highlight=False)

        result = experiment.trainer().fit(
            experiment.train,
            experiment.audit,
            splits=experiment.others,
            epochs=config.training.epochs,
            tolerance=config.training.tolerance,
            tighten=experiment.tighten,
            on_trace=tell,
            on_round=told,
        )
    written = save_run(result, target)
    with written_whole(target / "config.toml") as temporary:
        temporary.write_text(text, encoding="utf-8")
    console.print(fit_summary(result))
    if result.tightening is not None:
        console.print(rounds_table(result.tightening))
    console.print(f"{result.status}: {result.message}\n{result.next_move}", highlight=False)
    for constraint in experiment.constraints:
        console.print(str(certify(result, constraint, experiment.splits["certify"])), highlight=False)
    console.print("data used:", *(f"  {use}" for use in result.uses), sep="\n", highlight=False)
    show_written(console, [*written, target / "config.toml"])
    return 0 if result.status == "converged" else 1


def show_frontier(console: Console, path: Path, output: Path, targets: int | None, plot: Path | None) -> int:
    """Trace with a progress bar, save, and print the frontier; return the exit code."""
    if plot is not None and plot.suffix.lower() not in _PICTURES:
        raise InvalidInput(f"--plot {plot}: a picture's name must end in one of {', '.join(_PICTURES)}.")
    config, folder = load_config(path)
    wanted: Any = targets or config.frontier.targets
    with bar(console) as progress, threads(config.training.threads):
        task = progress.add_task("fitting teachers", total=wanted if isinstance(wanted, int) else len(wanted))
        experiment = build(config, folder)

        def tell(row: dict[str, Any]) -> None:
            said = f"target {row['target']:.4f}: loss {row['distillation_loss']:.4f}, {row['status']}"
            progress.console.print(said, highlight=False)
            progress.update(task, description=said, advance=1)

        frontier = trace_frontier(
            experiment.trainer_at,
            experiment.train,
            experiment.audit,
            targets=wanted,
            splits=experiment.others,
            highest=config.frontier.highest,
            epochs=config.frontier.epochs,
            tolerance=config.frontier.tolerance,
            on_point=tell,
        )
    frontier.to_csv(output)
    written = [output, Path(f"{output}.meta.json")]
    if plot is not None:
        frontier.plot(plot, required=experiment.constraints[0].required)
        written.append(plot)
    console.print(frontier_table(frontier))
    show_written(console, written)
    return 0 if bool(frontier.table["feasible"].all()) else 1
