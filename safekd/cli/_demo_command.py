"""``safekd demo``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ..demo import run_demo, run_seeds
from ..io import write_csv
from ..report import tabulate_frontier, tabulate_seeds, tabulate_teachers, tabulate_variants, write_report
from ._exit_codes import ExitCode
from .terminal import print_plain, show_steps, show_written


@dataclass(frozen=True)
class PromiseSettings:
    """What ``safekd demo --seeds`` calls done; ``tests/safekd/test_demo.py`` notices.

    Attributes:
        share: Of the seeds in which the tightened student is certified, at least.
    """

    share: float = 0.9


_SETTINGS = PromiseSettings()


def show_demo(console: Console, run_dir: Path, seed: int) -> int:
    """Run the demo with a progress bar and print its results; return the exit code.

    Args:
        console: Where it is printed.
        run_dir: Where results are written.
        seed: Of splits, teachers and student.
    """
    with show_steps(console) as progress:
        task = progress.add_task("starting", total=None)

        def show_progress(what: str, done: int, of: int) -> None:
            progress.update(task, description=what, completed=done, total=of)
            if not console.is_terminal:  # a log has no bar
                print_plain(console, f"[{done}/{of}] {what}")

        outcome = run_demo(run_dir, seed, show_progress)
    kept = outcome.reports[-1]
    console.print(tabulate_teachers(outcome.experiment))
    console.print(tabulate_variants(outcome.experiment, outcome.reports))
    console.print(tabulate_frontier(outcome.frontier))
    print_plain(console, outcome.verified)
    print_plain(console, f"The tightened run {kept.result.status}: {kept.result.message}")
    for report in outcome.reports:
        print_plain(console, f"{report.variant.name}: {report.certificate}")
    page = write_report([run_dir], None)
    show_written(console, [*outcome.written, page])
    print_plain(console, f"the whole story: {page}")
    print_plain(console, f"again, step by step: safekd train {run_dir / 'config.toml'}")
    return ExitCode.DONE if kept.certificate.decision == "safe" else ExitCode.CHECK_FAILED


def show_seeds(console: Console, seeds: int, run_dir: Path) -> int:
    """Repeat the demo's promise over seeds and print how often it held; return the exit code.

    Args:
        console: Where it is printed.
        seeds: How many, from 0 on.
        run_dir: Where seeds.csv is written.
    """
    with show_steps(console) as progress:
        task = progress.add_task("seed 0", total=seeds)

        def show_seed(row: dict[str, object]) -> None:
            progress.update(task, description=f"seed {row['seed']} done", advance=1)

        rows = run_seeds(range(seeds), show_seed)
    write_csv(rows, run_dir / "seeds.csv")
    console.print(tabulate_seeds(rows))
    show_written(console, [run_dir / "seeds.csv"])
    shown = int((rows["tightened_decision"] == "safe").sum())
    return ExitCode.DONE if shown >= _SETTINGS.share * len(rows) else ExitCode.CHECK_FAILED
