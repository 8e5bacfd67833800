"""``safekd project`` and ``safekd audit``: weights in a file, made conforming or judged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import InvalidInput
from ..experiment.config import RulesConfig, load_rules
from ..report import projection_summary
from ..weight_files import audit_file, project_file
from ._progress_bars import rows_bar, show_written

_METRICS = ("euclidean", "kl")
_SAID = {
    "teachers": "--teacher",
    "lower": "--lower",
    "upper": "--upper",
    "order": "--order",
    "margin": "--margin",
    "metric": "--metric",
    "safety_columns": "--safety-columns",
    "critical_column": "--critical-column",
}


@dataclass(frozen=True)
class Options:
    """What the command line says of the rules.  file: a rule set.  given: options, None or empty where left out."""

    file: Path | None
    given: Mapping[str, Any]

    def config(self) -> RulesConfig:
        """Return the rule set, options before the file."""
        changes = {key: value for key, value in self.given.items() if value not in (None, [])}
        if changes.get("metric", "kl") not in _METRICS:
            raise InvalidInput(f"--metric is '{changes['metric']}'; wanted euclidean or kl.")
        for key in ("lower", "upper"):
            if key in changes:
                changes[key] = _bounds(_SAID[key], changes[key])
        base = RulesConfig() if self.file is None else load_rules(self.file)
        return base.model_copy(update=changes)

    @property
    def key_labels(self) -> dict[str, str]:
        """What messages call each key: its option, or its name in the file if that is where it was said."""
        return {key: said for key, said in _SAID.items() if self.file is None or self.given.get(key) not in (None, [])}


def show_projection(out: Console, err: Console, path: Path, output: Path, options: Options) -> int:
    """Project every row with a progress bar, write, and print what moved; return the exit code."""
    with _told(err, "projecting") as tell:
        done = project_file(path, output, options.config(), key_labels=options.key_labels, on_progress=tell)
    out.print(projection_summary(done))
    show_written(out, [output])
    return 0


def show_audit(
    out: Console, err: Console, path: Path, options: Options, scale: str, json: Path | None, csv: Path | None
) -> int:
    """Judge every row with a progress bar, print and write the report; return the exit code."""
    targets = {"--json": json, "--csv": csv}
    for option, target in targets.items():
        if target is not None and target.exists() and path.exists() and target.samefile(path):
            raise InvalidInput(f"{option} {target} is the input itself, which would be lost; write to another file.")
    if json is not None and csv is not None and os.path.abspath(json) == os.path.abspath(csv):
        raise InvalidInput(f"--json and --csv both name {json}; write to two files.")
    with _told(err, "judging") as tell:
        report = audit_file(path, options.config(), scale=scale, key_labels=options.key_labels, on_progress=tell)
    out.print(report)
    if json is not None:
        report.to_json(json)
    if csv is not None:
        report.to_csv(csv)
    written = [target for target in targets.values() if target is not None]
    if written:
        show_written(out, written)
    return 0 if report.holds() else 1


@contextmanager
def _told(console: Console, what: str) -> Iterator[Callable[[int, int, int | None], None]]:
    """Show a bar while rows go by."""
    with rows_bar(console) as progress:
        task = progress.add_task(what, total=None, rows="")

        def tell(rows: int, done: int, total: int | None) -> None:
            elapsed = progress.tasks[0].elapsed or 0.0
            rate = f", {rows / elapsed:,.0f} a second" if elapsed else ""
            progress.update(task, completed=done, total=total, rows=f"{rows:,} rows{rate}")

        yield tell


def _bounds(option: str, text: str) -> float | list[float] | dict[str, float]:
    """Return what "0.1", "0.1,0.2" or "a=0.1,b=0.2" says."""
    parts = text.split(",")
    if "=" in text:
        named = [part.rpartition("=") for part in parts]
        names = [name.strip() for name, _, _ in named]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise InvalidInput(f"{option}: '{min(twice)}' has two bounds in '{text}'; give it one.")
        return {name: _number(option, number) for name, (_, _, number) in zip(names, named, strict=True)}
    numbers = [_number(option, part) for part in parts]
    return numbers if len(numbers) > 1 else numbers[0]


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(
            f"{option}: found '{text.strip()}', wanted a number; or one for each teacher, as 0.1,0.2; or a=0.1."
        ) from None
