"""``safekd frontier``: the sweep that an experiment file describes, shown point by point as they land."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from .._threads import threads
from ..errors import InvalidInput
from ..experiment import Experiment, build
from ..experiment.config import load_config
from ..frontier import Frontier, trace_frontier, verify
from ..report import frontier_table
from ._progress import show_written

_PICTURES = (".png", ".svg", ".pdf", ".html")
_SHOWN = 30  # rows of the live table: a screen


@dataclass(frozen=True)
class SweepOptions:
    """What the command line says of a sweep; None where it leaves that to the file."""

    method: str | None
    targets: str | None
    budget: int | None
    seeds: int | None
    jobs: int | None
    resume: bool
    verify: bool


def show_frontier(console: Console, path: Path, output: Path, plot: Path | None, options: SweepOptions) -> int:
    """Trace, save, verify where asked, and print the frontier; return the exit code."""
    _check_paths(output, plot)
    asked = None if options.targets is None else _targets(options.targets)
    config, folder = load_config(path)
    settings, pinned = config.frontier, config.training.threads
    seeds = options.seeds or settings.seeds
    jobs = options.jobs or settings.jobs
    with threads(pinned), _Landing(console) as landing:
        experiment = build(config, folder)
        landing.constraint = experiment.constraints[0].name
        frontier = _traced(
            experiment.trainer_at,
            experiment.train,
            experiment.validation,
            method=options.method or settings.method,
            targets=settings.targets if asked is None else asked,
            highest=settings.highest,
            held=settings.held or None,
            epochs=settings.epochs,
            tolerance=settings.tolerance,
            budget=options.budget or settings.budget,
            seeds=None if seeds is None else range(config.seed, config.seed + seeds),
            jobs=jobs,
            threads=pinned,
            run_dir=f"{output}.points",
            resume="auto" if options.resume else None,
            splits=experiment.others,
            on_point=landing.report,
        )
    frontier.to_csv(output)
    written = [output, Path(f"{output}.meta.json"), Path(f"{output}.points")]
    if plot is not None:
        frontier.plot(plot, required=experiment.constraints[0].required)
        written.append(plot)
    console.print(frontier_table(frontier))
    for note in frontier.meta["notes"]:
        console.print(f"note: {note}", markup=False, highlight=False)
    holds = _verified(console, frontier, experiment) if options.verify else True
    show_written(console, written)
    return 0 if holds and bool(frontier.table["feasible"].all()) else 1


def _traced(*given: Any, **more: Any) -> Frontier:
    """Trace; where that is interrupted, say how to go on, which typer's own ending would not."""
    try:
        return trace_frontier(*given, **more)
    except (KeyboardInterrupt, SystemExit) as end:
        for note in getattr(end, "__notes__", []):
            Console(stderr=True).print(note, markup=False, highlight=False, soft_wrap=True)
        raise


def _verified(console: Console, frontier: Frontier, experiment: Experiment) -> bool:
    report = verify(
        frontier, experiment.trainer_at, experiment.train, experiment.validation, splits=experiment.others or None
    )
    console.print(str(report), markup=False, highlight=False)
    return report.holds()


class _Landing:
    """A table that grows on a terminal, and one line a point elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console, self.constraint = console, ""
        self.rows: list[dict[str, Any]] = []
        self.waiting = Spinner("dots", "fitting teachers")
        self.live = Live(self.waiting, console=console, transient=True) if console.is_terminal else None

    def __enter__(self) -> _Landing:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def report(self, row: dict[str, Any]) -> None:
        """Show one more row."""
        self.rows.append(row)
        if self.live is None:
            more = f": {row['note']}" if math.isnan(row["distillation_loss"]) else ""
            said = f"target {row['target']:.4f}: loss {row['distillation_loss']:.4f}, {row['status']}{more}"
            self.console.print(said, markup=False, highlight=False)
            return
        self.waiting.update(text=f"{len(self.rows)} points so far")
        self.live.update(Group(self._table(), self.waiting))

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("target", "safety", "loss, nats", "multiplier", "steps", "status"):
            table.add_column(name, justify="left" if name == "status" else "right")
        for row in self.rows[-_SHOWN:]:
            safety, multiplier = row[f"safety_{self.constraint}"], row[f"lambda_{self.constraint}"]
            table.add_row(
                f"{row['target']:.4f}",
                f"{safety:.4f}",
                f"{row['distillation_loss']:.5f}",
                f"{multiplier:.4g}",
                str(row["steps"]),
                str(row["status"]),
            )
        return table


def _check_paths(output: Path, plot: Path | None) -> None:
    """Refuse names that cannot be written to before anything is trained."""
    if output.is_dir():
        raise InvalidInput(f"--output {output} is a folder; wanted the name of a CSV file in it.")
    if output.exists() and not Path(f"{output}.meta.json").exists():  # an experiment, its data, or other work
        raise InvalidInput(f"--output {output} exists and is no frontier; choose another name, or remove it.")
    if plot is None:
        return
    if plot.suffix.lower() not in _PICTURES:
        raise InvalidInput(f"--plot {plot}: a picture's name must end in one of {', '.join(_PICTURES)}.")
    if plot.is_dir():
        raise InvalidInput(f"--plot {plot} is a folder; wanted the name of a picture in it.")
    if plot.absolute() == output.absolute():
        raise InvalidInput(f"--plot and --output both name {plot}; write to two files.")


def _targets(text: str) -> int | list[float]:
    """Return what "11" or "0.8,0.9" says."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InvalidInput(
            f"--targets is '{text}'; wanted how many, such as 11, or thresholds, such as 0.8,0.9,0.95."
        ) from None
