"""Commands and their options.  Heavy imports happen inside commands, so that ``--help`` answers at once."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ._cache_app import cache_app
from ._exit_codes import ExitCode
from ._options import (
    AsJson,
    Config,
    CriticalColumn,
    Decimal,
    Lower,
    Margin,
    Order,
    Overrides,
    RulesFile,
    SafetyColumns,
    Separator,
    Teacher,
    Upper,
    Weights,
)
from .starting import add_starting_commands
from .students import add_student_commands
from .terminal import err, out, print_plain

FAULT = "this is a fault of safekd itself, please report it"
SHOW_FAULTS = "SAFEKD_SHOW_FAULTS"

app = typer.Typer(
    name="safekd",
    help="Multi-teacher knowledge distillation that is safe by construction.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(cache_app, name="cache")


def main() -> None:
    """Run the command line; whatever goes wrong becomes one message and exit code 2, never a traceback."""
    from ..errors import SafekdError

    for stream in (sys.stdout, sys.stderr):  # names may hold what the encoding of the terminal lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _unwind_on_sigterm():
            app(prog_name="safekd")
    except SafekdError as error:
        _print_error(" ".join([str(error), *getattr(error, "__notes__", [])]))
        sys.exit(ExitCode.BAD_INPUT)
    except OSError as error:
        _print_error(f"{error.filename or 'the system'}: {error.strerror or error}.")
        sys.exit(ExitCode.BAD_INPUT)
    except (KeyboardInterrupt, SystemExit) as end:
        code = 130 if isinstance(end, KeyboardInterrupt) else end.code
        if code in (130, 143):  # typer turns the former into the latter
            _print_error("stopped; nothing half written was left behind.")
            code = ExitCode.INTERRUPTED
        sys.exit(code)
    except MemoryError:
        _print_error("there is not enough memory for this; nothing half written was left behind.")
        sys.exit(ExitCode.BAD_INPUT)
    except Exception as error:
        if os.environ.get(SHOW_FAULTS):
            raise
        _print_error(
            f"{FAULT}: {type(error).__name__}: {error}. With {SHOW_FAULTS}=1 in the environment it says where."
        )
        sys.exit(ExitCode.BAD_INPUT)


def _print_error(message: str) -> None:
    print_plain(err, f"safekd: {message}", style="red")


@contextmanager
def _unwind_on_sigterm() -> Iterator[None]:
    """Let a request to terminate unwind like an interrupt, so that temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():  # signals are none of its business
        yield
        return

    def exit_on_signal(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, exit_on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _read_run_dir(run_dir: str) -> Path:
    """Return the folder of --run-dir; an empty one, as an unset variable leaves it, would be the working folder."""
    from ..errors import InvalidInput

    if not run_dir.strip():
        raise InvalidInput("--run-dir is empty; wanted the name of a folder, or . for the one that you are in.")
    return Path(run_dir)


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print_plain(out, f"safekd {__version__}")
        raise typer.Exit()


@app.callback()
def take_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version and stop")
    ] = False,
) -> None:
    """Take the options that belong to no command."""


@app.command("demo")
def demo_command(
    run_dir: Annotated[str, typer.Option(help="where results are written")] = "runs/demo",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="splits, teachers and student follow from it")] = 0,
    seeds: Annotated[int, typer.Option(min=0, max=10_000, help="instead: repeat the promise over this many seeds")] = 0,
) -> None:
    """Distill four biased breast-cancer teachers into one student that meets its safety threshold.

    Example: safekd demo --run-dir runs/demo

    Exit code 0: new cases show that it does (with --seeds: in nine of ten seeds); 1: they do not; 2: bad input.
    """
    print_plain(out, "safekd demo: 569 real cases, four teachers, one student that must not miss malignant ones")
    from ._demo_command import show_demo, show_seeds

    folder = _read_run_dir(run_dir)
    code = show_seeds(out, seeds, folder) if seeds else show_demo(out, folder, seed)
    raise typer.Exit(code)


@app.command("train")
def train_command(
    config: Config,
    run_dir: Annotated[str | None, typer.Option(help="where results are written; overrides the file")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where a run was stopped, else begin")] = False,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, max=10**12, help="steps between checkpoints; a minute or more if left out")
    ] = None,
    allow_change: Annotated[
        list[str] | None, typer.Option(help="what may differ from the run gone on with: optimizer.lr; repeatable")
    ] = None,
    changes: Overrides = None,
    json: AsJson = False,
) -> None:
    """Train the student that an experiment file describes, under its safety constraints.

    Example: safekd train experiment.toml --run-dir runs/a --set training.epochs=500

    Ctrl-C and SIGTERM finish the step and save: --resume goes on there.  Exit code 0: converged; 1: not; 2: bad
    input; 3: no student can meet the constraints; 4: interrupted.
    """
    from ._train_command import TrainingOptions, show_training

    folder = None if run_dir is None else _read_run_dir(run_dir)
    options = TrainingOptions(folder, resume, checkpoint_every, allow_change or [], changes or [], json)
    raise typer.Exit(show_training(out, config, options))


@app.command("frontier")
def frontier_command(
    config: Config,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file to write; runs are kept in OUTPUT.points")],
    method: Annotated[
        str | None, typer.Option(help="epsilon: one constrained run a threshold; mu: one run a fixed weight")
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="how many thresholds, 11, or which, 0.8,0.9; overrides the file")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, max=10**9, help="training runs at most, of each slice and seed")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="how many sweeps, each from a seed of its own")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, max=256, help="processes side by side")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where a sweep was stopped")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="read every student again, compare with its row")] = False,
    plot: Annotated[Path | None, typer.Option(help="picture to write: .png, .svg, .pdf or .html")] = None,
    changes: Overrides = None,
    json: AsJson = False,
) -> None:
    """Trace the Pareto frontier between distillation loss and safety.

    Example: safekd frontier experiment.toml -o frontier.csv --targets 5 --plot frontier.html

    Finished runs survive in OUTPUT.points: after a kill, --resume goes on there.  Exit code 0: every row is feasible;
    1: some are not, or --verify found a row that is not what its student is; 2: bad input; 4: interrupted.
    """
    from ._frontier_command import SweepOptions, show_frontier

    options = SweepOptions(method, targets, budget, seeds, jobs, resume, verify, changes or [], json)
    raise typer.Exit(show_frontier(out, config, output, plot, options))


@app.command("report")
def report_command(
    runs: Annotated[list[Path], typer.Argument(help="folders of runs; several are compared")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file to write; RUN/report.html for one run if left out")
    ] = None,
    frontier: Annotated[Path | None, typer.Option(help="frontier to show, a CSV file of `safekd frontier`")] = None,
) -> None:
    """Write one HTML file about runs: verdict, safety, course, weights, frontier, axioms, where all of it is from.

    Example: safekd report runs/demo

    Exit code 0: done; 2: bad input.
    """
    from ._report_command import show_report

    raise typer.Exit(show_report(out, runs, output, frontier))


@app.command("verify")
def verify_command(
    path: Annotated[
        Path,
        typer.Argument(
            help="folder of a run, of a sweep (OUTPUT.points) or of a teacher cache, or a frontier's CSV file"
        ),
    ],
    repair: Annotated[
        bool, typer.Option("--repair", help="set damaged checkpoints aside; the run goes on from the last whole one")
    ] = False,
    json: AsJson = False,
) -> None:
    """Compare every file with the hash that was written beside it.

    Example: safekd verify runs/demo

    Exit code 0: all is as it was written, or was repaired; 1: something was changed; 2: it is none of these.
    """
    from ._verify_command import show_verification

    raise typer.Exit(show_verification(out, path, repair=repair, as_json=json))


@app.command("project")
def project_command(
    weights: Weights,
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write, all columns kept; not the input")],
    teacher: Teacher = None,
    lower: Lower = None,
    upper: Upper = None,
    order: Order = None,
    margin: Margin = None,
    safety_columns: SafetyColumns = None,
    critical_column: CriticalColumn = None,
    metric: Annotated[str | None, typer.Option(help="euclidean, or kl to keep ratios where it can")] = None,
    rules: RulesFile = None,
    separator: Separator = None,
    decimal: Decimal = "point",
    json: AsJson = False,
) -> None:
    """Project the weights in a file onto the nearest ones that obey the rules.  Any number of rows.

    Example: safekd project weights.csv -o conforming.csv --teacher expert,fast,cheap --lower 0.05 --upper 0.6

    Exit code 0: done; 2: bad input, or rules that no weights meet.
    """
    from ._file_commands import FileOptions, show_projection

    order_by = {"order": order, "margin": margin, "safety_columns": safety_columns, "critical_column": critical_column}
    given = {"teachers": teacher, "lower": lower, "upper": upper, "metric": metric, **order_by}
    options = FileOptions(rules, given, {"separator": separator, "decimal": decimal})
    raise typer.Exit(show_projection(out, err, weights, output, options, as_json=json))


@app.command("audit")
def audit_command(
    weights: Weights,
    teacher: Teacher = None,
    lower: Lower = None,
    upper: Upper = None,
    order: Order = None,
    margin: Margin = None,
    safety_columns: SafetyColumns = None,
    critical_column: CriticalColumn = None,
    rules: RulesFile = None,
    separator: Separator = None,
    decimal: Decimal = "point",
    scale: Annotated[str, typer.Option(help="whose axioms: token, task, context or unified")] = "token",
    json: Annotated[Path | None, typer.Option(help="write the report here, as JSON")] = None,
    csv: Annotated[Path | None, typer.Option(help="write the report here, as CSV")] = None,
) -> None:
    """Judge the weights in a file: do they sum to one, are they positive, within bounds, in order?

    Example: safekd audit conforming.csv --teacher expert,fast,cheap --lower 0.05 --upper 0.6 --json report.json

    Exit code 0: nothing is violated; 1: something is; 2: bad input.
    """
    from ._file_commands import FileOptions, show_audit

    order_by = {"order": order, "margin": margin, "safety_columns": safety_columns, "critical_column": critical_column}
    given = {"teachers": teacher, "lower": lower, "upper": upper, **order_by}
    options = FileOptions(rules, given, {"separator": separator, "decimal": decimal})
    raise typer.Exit(show_audit(out, err, weights, options, scale, json, csv))


add_starting_commands(app)
add_student_commands(app)
# as one comes to them
_ORDER = (
    "demo", "init", "validate", "train", "predict", "certify", "export", "report", "frontier", "project", "audit",
    "ensemble", "verify", "list",
)  # fmt: skip
app.registered_commands.sort(key=lambda command: _ORDER.index(str(command.name)))
