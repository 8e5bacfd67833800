"""``safekd frontier``: the sweep that an experiment file describes, shown point by point as they land."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from .._torch_state import limit_threads
from ..errors import InvalidInput
from ..experiment import Experiment, build_experiment
from ..experiment.config import load_config
from ..frontier import Frontier, trace_frontier, verify
from ..io import require_writable
from ..report import tabulate_frontier
from ._exit_codes import ExitCode
from .terminal import err, keep_quiet, print_json, print_plain, show_written

_PICTURES = (".png", ".svg", ".pdf", ".html")
_ROWS_SHOWN = 30  # rows of the live table: a screen


@dataclass(frozen=True)
class SweepOptions:
    """What the command line says of a sweep; None where it leaves that to the file.

    Attributes:
        method: "epsilon" or "mu".
        targets: How many thresholds, or which, as text.
        budget: Training runs at most, of each slice and seed.
        seeds: How many sweeps.
        jobs: Processes side by side.
        resume: Whether to go on where a sweep was stopped.
        verify: Whether to read every student again.
        changes: ``key=value`` each, over what the file says.
        as_json: Whether the result is printed for a machine.
    """

    method: str | None
    targets: str | None
    budget: int | None
    seeds: int | None
    jobs: int | None
    resume: bool
    verify: bool
    changes: Sequence[str] = ()
    as_json: bool = False


def show_frontier(console: Console, path: Path, output: Path, plot: Path | None, options: SweepOptions) -> int:
    """Trace, save, verify where asked, and print the frontier; return the exit code.

    Args:
        console: Where it is printed.
        path: The experiment file.
        output: The CSV file to write; runs are kept beside it.
        plot: Picture to write, or None.
        options: What overrides the file.
    """
    with keep_quiet(console, options.as_json):
        code, record = _trace_and_show(console, path, output, plot, options)
    if options.as_json:
        print_json(record)
    return code


def _trace_and_show(
    console: Console, path: Path, output: Path, plot: Path | None, options: SweepOptions
) -> tuple[int, dict[str, Any]]:
    _require_paths(output, plot)
    targets = None if options.targets is None else _parse_targets(options.targets)
    config, folder = load_config(path, options.changes)
    settings, pinned = config.frontier, config.threads
    seeds = options.seeds or settings.seeds
    jobs = options.jobs or settings.jobs
    with limit_threads(pinned), _LivePoints(console) as live:
        experiment = build_experiment(config, folder)
        live.constraint = experiment.constraints[0].name
        frontier = _trace_or_explain(
            experiment.trainer_at,
            experiment.train,
            experiment.validation,
            method=options.method or settings.method,
            targets=settings.targets if targets is None else targets,
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
            on_point=live.show,
        )
    frontier.to_csv(output)
    written = [output, Path(f"{output}.meta.json"), Path(f"{output}.points")]
    if plot is not None:
        frontier.plot(plot, required=experiment.constraints[0].required)
        written.append(plot)
    console.print(tabulate_frontier(frontier))
    for note in frontier.meta["notes"]:
        print_plain(console, f"note: {note}")
    holds = _verify_students(console, frontier, experiment) if options.verify else True
    show_written(console, written)
    feasible = bool(frontier.table["feasible"].all())
    code = ExitCode.DONE if holds and feasible else ExitCode.CHECK_FAILED
    rows = [{str(key): one for key, one in row.items()} for row in frontier.table.to_dict("records")]
    return code, {"rows": rows, "feasible": feasible, "verified": holds if options.verify else None, "files": written}


def _trace_or_explain(*given: Any, **more: Any) -> Frontier:
    """Trace; where that is interrupted, say how to go on, which typer's own ending would not."""
    try:
        return trace_frontier(*given, **more)
    except (KeyboardInterrupt, SystemExit) as end:
        for note in getattr(end, "__notes__", []):
            print_plain(err, note)
        raise


def _verify_students(console: Console, frontier: Frontier, experiment: Experiment) -> bool:
    report = verify(
        frontier, experiment.trainer_at, experiment.train, experiment.validation, splits=experiment.others or None
    )
    print_plain(console, report)
    return report.holds()


class _LivePoints:
    """A table that grows on a terminal, and one line a point elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console, self.constraint = console, ""
        self.rows: list[dict[str, Any]] = []
        self.waiting = Spinner("dots", "fitting teachers")
        self.live = Live(self.waiting, console=console, transient=True) if console.is_terminal else None

    def __enter__(self) -> _LivePoints:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def show(self, row: dict[str, Any]) -> None:
        """Show one more row."""
        self.rows.append(row)
        if self.live is None:
            more = f": {row['note']}" if math.isnan(row["distillation_loss"]) else ""
            text = f"target {row['target']:.4f}: loss {row['distillation_loss']:.4f}, {row['status']}{more}"
            print_plain(self.console, text)
            return
        self.waiting.update(text=f"{len(self.rows)} points so far")
        self.live.update(Group(self._table(), self.waiting))

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("target", "safety", "loss, nats", "multiplier", "steps", "status"):
            table.add_column(name, justify="left" if name == "status" else "right")
        for row in self.rows[-_ROWS_SHOWN:]:
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


def _require_paths(output: Path, plot: Path | None) -> None:
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
    require_writable(plot)


def _parse_targets(text: str) -> int | list[float]:
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
