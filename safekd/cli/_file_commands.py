"""``safekd project`` and ``safekd audit``: weights in a file, made conforming or judged."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from ..errors import InvalidInput
from ..experiment.config import Metric, RulesConfig, load_rules
from ..report import tabulate_projection
from ..weight_files import project_file
from ._exit_codes import ExitCode
from .terminal import keep_quiet, print_json, report_rows, show_written

_OPTION_OF = {
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
class FileOptions:
    """What the command line says of a file of weights: its rules, and how it is written.

    Attributes:
        file: A rule set in TOML, or None.
        given: Options by the key that they set, None or empty where left out.
        dialect: Separator and decimal sign of a CSV file.
    """

    file: Path | None
    given: Mapping[str, Any]
    dialect: Mapping[str, Any]

    def config(self) -> RulesConfig:
        """Return the rule set, options before the file."""
        changes = {key: value for key, value in self.given.items() if value not in (None, [])}
        if changes.get("metric", "kl") not in get_args(Metric):
            raise InvalidInput(f"--metric is '{changes['metric']}'; wanted {' or '.join(get_args(Metric))}.")
        for key in ("lower", "upper"):
            if key in changes:
                changes[key] = _parse_bounds(_OPTION_OF[key], changes[key])
        base = RulesConfig() if self.file is None else load_rules(self.file)
        return base.model_copy(update=changes)

    @property
    def key_labels(self) -> dict[str, str]:
        """What messages call each key: its option, or its name in the file if that is where it stands."""
        return {
            key: option
            for key, option in _OPTION_OF.items()
            if self.file is None or self.given.get(key) not in (None, [])
        }


def show_projection(
    out: Console, err: Console, path: Path, output: Path, options: FileOptions, *, as_json: bool
) -> int:
    """Project every row with a progress bar, write, and print what moved; return the exit code.

    Args:
        out: Where results are printed.
        err: Where the progress bar is drawn.
        path: The weights.
        output: The copy to write.
        options: The rules, and how the file is written.
        as_json: Whether the summary is for a machine.
    """
    with keep_quiet(err, as_json), report_rows(err, "projecting") as report:
        more: dict[str, Any] = {**options.dialect, "key_labels": options.key_labels, "on_progress": report}
        done = project_file(path, output, options.config(), **more)
    if as_json:
        print_json({"rows": done.rows, "moved": done.moved, "largest_move": done.furthest, "files": [output]})
    else:
        out.print(tabulate_projection(done))
        show_written(out, [output])
    return ExitCode.DONE


def show_audit(
    out: Console, err: Console, path: Path, options: FileOptions, scale: str, json: Path | None, csv: Path | None
) -> int:
    """Judge every row with a progress bar, print and write the report; return the exit code.

    Args:
        out: Where the report is printed.
        err: Where the progress bar is drawn.
        path: The weights.
        options: The rules, and how the file is written.
        scale: Whose axioms are judged.
        json: Where the report is written as JSON, or None.
        csv: Where it is written as CSV, or None.
    """
    from ..weight_files import audit_file  # not above: the axioms import solvers that projecting does not need

    targets = {"--json": json, "--csv": csv}
    for option, target in targets.items():
        if target is not None and target.exists() and path.exists() and target.samefile(path):
            raise InvalidInput(f"{option} {target} is the input itself, which would be lost; write to another file.")
    if json is not None and csv is not None and os.path.abspath(json) == os.path.abspath(csv):
        raise InvalidInput(f"--json and --csv both name {json}; write to two files.")
    with report_rows(err, "judging") as report:
        more: dict[str, Any] = {**options.dialect, "key_labels": options.key_labels, "on_progress": report}
        judged = audit_file(path, options.config(), scale=scale, **more)
    out.print(judged)
    if json is not None:
        judged.to_json(json)
    if csv is not None:
        judged.to_csv(csv)
    written = [target for target in targets.values() if target is not None]
    if written:
        show_written(out, written)
    return 0 if judged.holds() else 1


def _parse_bounds(option: str, text: str) -> float | list[float] | dict[str, float]:
    """Return what "0.1", "0.1,0.2" or "a=0.1,b=0.2" says."""
    parts = text.split(",")
    if "=" in text:
        named = [part.rpartition("=") for part in parts]
        names = [name.strip() for name, _, _ in named]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise InvalidInput(f"{option}: '{min(twice)}' has two bounds in '{text}'; give it one.")
        return {name: _parse_option_number(option, number) for name, (_, _, number) in zip(names, named, strict=True)}
    numbers = [_parse_option_number(option, part) for part in parts]
    return numbers if len(numbers) > 1 else numbers[0]


def _parse_option_number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(
            f"{option}: found '{text.strip()}', wanted a number; or one for each teacher, as 0.1,0.2; or a=0.1."
        ) from None
