"""``safekd train``: the run that an experiment file describes."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from .._torch_state import limit_threads
from ..data import Split
from ..distributed import Ranks, join_ranks
from ..errors import InvalidInput
from ..experiment import build_experiment, build_tracked_run
from ..experiment.config import ExperimentConfig, copy_config, load_config
from ..report import tabulate_fit, tabulate_tightening
from ..safety import Certificate, SafetyConstraint, certify
from ..saved_students import write_run_files
from ..training import FitResult, RunFolder, open_on_first_rank, open_run_folder
from ..training.resume import CheckpointStore
from ..training.trace import TracePoint
from ._exit_codes import ExitCode, rate_status
from .terminal import err, keep_quiet, print_json, print_plain, show_steps, show_written


@dataclass(frozen=True)
class TrainingOptions:
    """What a command line says of a run besides its file.

    Attributes:
        run_dir: Where results are written; None for where the file says.
        resume: Whether a run that was stopped there is gone on with.
        checkpoint_every: Steps between checkpoints; None for a share of the time.
        allow_change: Keys of what may differ from the run that is gone on with.
        changes: ``key=value`` each, over what the file says.
        as_json: Whether the result is printed for a machine.
    """

    run_dir: Path | None
    resume: bool
    checkpoint_every: int | None
    allow_change: Sequence[str]
    changes: Sequence[str] = ()
    as_json: bool = False


def show_training(console: Console, path: Path, options: TrainingOptions) -> int:
    """Train with a progress bar, save, and print the result; return the exit code.

    Under torchrun every process trains, and the first one alone prints and writes.

    Args:
        console: Where it is printed.
        path: The experiment file.
        options: Of the command line.
    """
    config, folder = load_config(path, options.changes)
    with keep_quiet(console, options.as_json), join_ranks(config.training.device) as ranks:
        console.quiet = console.quiet or not ranks.is_first
        return _train_on_ranks(console, path, options, (config, folder), ranks)


def _train_on_ranks(
    console: Console, path: Path, options: TrainingOptions, loaded: tuple[ExperimentConfig, Path], ranks: Ranks
) -> int:
    config, folder = loaded
    target = options.run_dir or Path(config.run_dir or Path("runs") / path.stem)
    if not options.resume:
        ranks.ask_first(lambda: _require_no_stopped_run(target))
    text = copy_config(path, target, options.changes)
    with (
        open_on_first_rank(target, None, ranks) as run_folder,
        show_steps(console) as progress,
        limit_threads(config.threads),
    ):
        task = progress.add_task("fitting teachers", total=config.training.epochs)
        tracked = build_tracked_run(config, target.name)  # one that is not installed is refused at once
        experiment = build_experiment(config, folder)

        def show_loss(point: TracePoint) -> None:
            each = zip(point.readings, point.multipliers, strict=True)
            shown = [f"{r.name} {r.measured:.3f} of {r.required:g} (multiplier {by:.3g})" for r, by in each]
            text = ", ".join([f"loss {point.loss:.4f}", *shown, f"residual {point.residuals.stationarity:.1e}"])
            progress.update(task, description=text, completed=point.epoch)

        def show_attempt(row: Mapping[str, Any]) -> None:
            text = f"round {row['round']}: '{row['constraint']}' posed at {row['posed']:.4f}, {row['status']}"
            judged = f"new data show {row['judged']:.4f}" if row["cases"] else "no new data were looked at"
            print_plain(progress.console, f"{text}; {judged}")

        with _tell_how_to_go_on(progress.console, path, target):
            result = experiment.trainer().fit(
                experiment.train,
                experiment.validation,
                splits=experiment.others,
                epochs=config.training.epochs,
                tolerance=config.training.tolerance,
                tighten=experiment.tighten,
                on_trace=show_loss,
                callbacks=[] if tracked is None else [tracked],
                on_round=show_attempt,
                run_dir=run_folder or target,
                checkpoint_every=options.checkpoint_every,
                resume="auto" if options.resume else "never",
                allow_change=options.allow_change,
            )

        stated: list[Certificate | str] = []

        def finish() -> list[Path]:
            split = experiment.splits["certify"]
            stated.extend(_certify_together(result, experiment.constraints, split))
            proved = replace(result, certificates=[one for one in stated if isinstance(one, Certificate)])
            refused = [one for one in stated if isinstance(one, str)]
            write_more = partial(
                write_run_files, experiment=experiment, result=proved, text=text, folder=folder, refused=refused
            )
            return _keep_result(console, run_folder, proved, write_more)

        written = ranks.ask_first(finish)
    ranks.ask_first(lambda: _show_result(console, result, stated, written))
    code = rate_status(result.status) if written[0].parent == target else ExitCode.BAD_INPUT
    if options.as_json:
        ranks.ask_first(lambda: _print_result(result, stated, written, code))
    return code


def _print_result(result: FitResult, stated: Sequence[Certificate | str], written: Sequence[Path], code: int) -> None:
    print_json(
        {
            "run": written[0].parent,
            "status": result.status,
            "message": result.message,
            "next_move": result.next_move,
            "exit_code": int(code),
            "distillation_loss": result.point.loss,
            "readings": [asdict(one) for one in (*result.point.readings, *result.point.validation)],
            "multipliers": dict(result.multipliers),
            "residuals": asdict(result.residuals),
            "certificates": [asdict(one) for one in stated if isinstance(one, Certificate)],
            "not_certified": [one for one in stated if isinstance(one, str)],
            "files": written,
        }
    )


def _show_result(
    console: Console, result: FitResult, stated: Sequence[Certificate | str], written: Sequence[Path]
) -> None:
    console.print(tabulate_fit(result))
    if result.tightening is not None:
        console.print(tabulate_tightening(result.tightening))
    print_plain(console, f"{result.status}: {result.message}\n{result.next_move}")
    for certificate in stated:
        print_plain(console, str(certificate))
    print_plain(console, "\n".join(["data used:", *(f"  {use}" for use in result.uses)]))
    show_written(console, written)


def _require_no_stopped_run(target: Path) -> None:
    """Refuse to begin anew over the checkpoints of a run that was stopped."""
    if latest := CheckpointStore(target).find_latest():
        raise InvalidInput(
            f"{target} holds a run that was stopped at step {latest.step}; go on with --resume, choose another folder "
            f"with --run-dir, or remove {latest.folder.parent} to begin anew."
        )


@contextmanager
def _tell_how_to_go_on(console: Console, path: Path, target: Path) -> Iterator[None]:
    """Say, where a run is stopped, what is kept of it."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if latest := CheckpointStore(target).find_latest():
            print_plain(
                console,
                f"stopped at step {latest.step}, which {latest.folder} keeps; go on with: "
                f"safekd train {path} --run-dir {target} --resume",
            )
        raise


def _certify_together(
    result: FitResult, constraints: Sequence[SafetyConstraint], split: Split
) -> list[Certificate | str]:
    """Return what held-out data show of each constraint, or why they can show nothing: the run itself is not in doubt.

    Those of which something can be shown are certified together.
    """
    with suppress(InvalidInput):
        return list(certify(result, list(constraints), split))
    stated: list[Certificate | str] = []
    for constraint in constraints:
        try:
            stated.append(certify(result, constraint, split))
        except InvalidInput as error:
            stated.append(f"{constraint.name}: not certified. {error}")
    shown = [m for m, one in enumerate(stated) if isinstance(one, Certificate)]
    if shown:
        for m, one in zip(shown, certify(result, [constraints[m] for m in shown], split), strict=True):
            stated[m] = one
    return stated


def _keep_result(
    console: Console, folder: RunFolder | None, result: FitResult, write_more: Callable[[Path], None]
) -> list[Path]:
    """Write a result and what goes with it, elsewhere where its folder fails; return the files."""
    assert folder is not None  # on the rank that writes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it would say is printed
        kept = folder.keep(result, write_more)
        if not kept.save_note:
            return folder.list_files()
        with open_run_folder(tempfile.mkdtemp(prefix="safekd-run-")) as other:
            again = other.keep(result, write_more)
    if again.save_note:
        raise InvalidInput(f"{kept.save_note} {again.save_note}")
    # with --json nothing but the record goes to standard output
    print_plain(err if console.quiet else console, f"{kept.save_note} It was written to {other.folder} instead.")
    return other.list_files()
