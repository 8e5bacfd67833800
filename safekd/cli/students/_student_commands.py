"""What ``safekd predict``, ``certify`` and ``export`` do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from ...errors import InvalidInput
from ...io import write_atomically
from ...safety import certify
from ...saved_students import (
    SavedStudent,
    Which,
    export_student,
    load,
    predict_file,
    read_labeled_rows,
    read_run_constraints,
)
from .._exit_codes import ExitCode
from ..terminal import keep_quiet, print_json, print_plain, report_rows, show_written


@dataclass(frozen=True)
class CertifyOptions:
    """What the command line says of a certificate.

    Attributes:
        label: Column of labels, None for that of the run's own data.
        confidence: Of each certificate.
        student: Which student of the run.
        dialect: Separator and decimal sign of a CSV file.
    """

    label: str | None
    confidence: float
    student: str
    dialect: Mapping[str, Any]


def show_predictions(
    out: Console,
    err: Console,
    run: Path,
    rows: Path,
    output: Path,
    student: str,
    dialect: Mapping[str, Any],
    *,
    as_json: bool,
) -> int:
    """Predict every row with a progress bar, write, and print how many of each class; return the exit code.

    Args:
        out: Where the summary is printed.
        err: Where the progress bar is drawn.
        run: The run folder.
        rows: The file of rows.
        output: The file to write.
        student: Which student of the run.
        dialect: Separator and decimal sign of a CSV file.
        as_json: Whether the summary is for a machine.
    """
    with keep_quiet(out, as_json), keep_quiet(err, as_json):
        saved = _load_student(run, student)
        with report_rows(err, "predicting") as report:
            done = predict_file(saved, rows, output, on_progress=report, **dialect)
        counts = ", ".join(f"{name}: {number:,}" for name, number in done.counts.items())
        print_plain(out, f"{done.rows:,} rows predicted: {counts}")
        show_written(out, [output])
    if as_json:
        print_json({"run": run, "rows": done.rows, "counts": done.counts, "files": [output]})
    return ExitCode.DONE


def show_certificates(
    out: Console, run: Path, rows: Path, output: Path | None, options: CertifyOptions, *, as_json: bool
) -> int:
    """Certify every constraint of a run on new rows, print and write; return the exit code.

    Args:
        out: Where it is printed.
        run: The run folder.
        rows: The file of labeled rows.
        output: The JSON file to write, or None.
        options: Of the command line.
        as_json: Whether what is printed is for a machine.
    """
    if output is not None and output.exists() and rows.exists() and output.samefile(rows):
        raise InvalidInput(f"{output} is the input itself, which would be lost; write to another file.")
    with keep_quiet(out, as_json):
        saved = _load_student(run, options.student)
        split = read_labeled_rows(saved, rows, label=options.label, **options.dialect)
        constraints = read_run_constraints(saved)
        sided = [one for one in constraints if not one.is_equality]
        refused = [
            f"{one.name}: no data can show an equality; it is not certified." for one in constraints if one.is_equality
        ]
        proved = certify(saved.judged, sided, split, options.confidence) if sided else []
        for one in [*proved, *refused]:
            print_plain(out, one)
        record = {"run": str(run), "data": str(rows), "certificates": [asdict(one) for one in proved]}
        if output is not None:
            with write_atomically(output) as temporary:
                temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            show_written(out, [output])
    if as_json:
        print_json({**record, "not_certified": refused, "files": [] if output is None else [output]})
    shown = all(one.decision == "safe" for one in proved) and bool(proved)
    return ExitCode.DONE if shown else ExitCode.CHECK_FAILED


def show_export(out: Console, run: Path, output: Path, student: str, *, as_json: bool) -> int:
    """Export the student of a run, and print how far it is from the original; return the exit code.

    Args:
        out: Where it is printed.
        run: The run folder.
        output: The file to write.
        student: Which student of the run.
        as_json: Whether what is printed is for a machine.
    """
    with keep_quiet(out, as_json):
        off = export_student(_load_student(run, student), output)
        print_plain(out, f"read back and compared with the original: probabilities differ by at most {off:.1e}")
        show_written(out, [output])
    if as_json:
        print_json({"run": run, "largest_difference": off, "files": [output]})
    return ExitCode.DONE


def _load_student(run: Path, which: str) -> SavedStudent:
    names = get_args(Which)
    if which not in names:
        raise InvalidInput(f"--student is '{which}'; wanted one of {', '.join(names)}.")
    return load(run, which=which)  # type: ignore[arg-type]  # just looked up
