"""Commands about trained students, and their options.  Heavy imports happen inside commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._options import AsJson, Decimal, Separator
from ..terminal import err, out

Run = Annotated[Path, typer.Argument(help="folder of a run, as `safekd train` writes it")]
WhichStudent = Annotated[str, typer.Option("--student", help="final, best_feasible, most_feasible or best_validated")]


def predict_command(
    run: Run,
    rows: Annotated[Path, typer.Argument(help="CSV or Parquet file with a column a feature, in any order")],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV or .parquet file to write; not the input")],
    student: WhichStudent = "final",
    separator: Separator = None,
    decimal: Decimal = "point",
    json: AsJson = False,
) -> None:
    """Predict new rows with the student of a run: class and probabilities, beside the columns that are no features.

    Example: safekd predict runs/demo new.csv -o predictions.csv

    Exit code 0: done; 2: bad input.
    """
    from ._student_commands import show_predictions

    dialect = {"separator": separator, "decimal": decimal}
    raise typer.Exit(show_predictions(out, err, run, rows, output, student, dialect, as_json=json))


def certify_command(
    run: Run,
    rows: Annotated[Path, typer.Argument(help="CSV or Parquet file of labeled rows that nothing else has seen")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file to write the certificates to")
    ] = None,
    label: Annotated[str | None, typer.Option(help="column of labels; that of the run's own data if left out")] = None,
    confidence: Annotated[float, typer.Option(help="of each certificate, above 0 and below 1")] = 0.95,
    student: WhichStudent = "final",
    separator: Separator = None,
    decimal: Decimal = "point",
    json: AsJson = False,
) -> None:
    """Say what new labeled rows show of every constraint of a run; rows that the run used are left out.

    Example: safekd certify runs/demo held_out.csv --label diagnosis -o certificates.json

    Exit code 0: every constraint is shown to hold; 1: one is not shown; 2: bad input.
    """
    from ._student_commands import CertifyOptions, show_certificates

    options = CertifyOptions(label, confidence, student, {"separator": separator, "decimal": decimal})
    raise typer.Exit(show_certificates(out, run, rows, output, options, as_json=json))


def export_command(
    run: Run,
    output: Annotated[Path, typer.Option("--output", "-o", help=".pt2 for torch.export, .onnx for ONNX")],
    student: WhichStudent = "final",
    json: AsJson = False,
) -> None:
    """Write the student of a run for programs without safekd: features as in the table in, probabilities out.

    What was written is read back and compared with the original; a difference of a probability above 1e-6 is refused.

    Example: safekd export runs/demo -o student.onnx

    Exit code 0: done; 2: bad input.
    """
    from ._student_commands import show_export

    raise typer.Exit(show_export(out, run, output, student, as_json=json))


def add_student_commands(app: typer.Typer) -> None:
    """Enter the commands.

    Args:
        app: The command line.
    """
    app.command("predict")(predict_command)
    app.command("certify")(certify_command)
    app.command("export")(export_command)
