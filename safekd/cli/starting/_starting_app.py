"""Commands before a run, and their options.  Heavy imports happen inside commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._options import AsJson, Config, Overrides
from ..terminal import out


def init_command(
    output: Annotated[Path, typer.Argument(help="experiment file to write; not one that is there")],
    data: Annotated[
        Path,
        typer.Option(
            help="your CSV or Parquet file, a row an example; a folder of images, a subfolder a class; or, with "
            "--language, a file with a text a line"
        ),
    ],
    label: Annotated[str | None, typer.Option(help="column of labels; found by itself if one is named so")] = None,
    critical: Annotated[
        list[str] | None, typer.Option(help="class that must not be missed; repeatable; the rarest if left out")
    ] = None,
    at_least: Annotated[float, typer.Option(help="safety asked for, above 0 and below 1")] = 0.8,
    context: Annotated[str | None, typer.Option(help="column that contexts are made of; none if left out")] = None,
    language: Annotated[
        bool, typer.Option("--language", help="write a script that distills language models, instead")
    ] = False,
    student: Annotated[str | None, typer.Option(help="with --language: folder or name of the student's model")] = None,
    teacher: Annotated[
        list[str] | None, typer.Option(help="with --language: folder or name of a teacher's model; repeatable")
    ] = None,
    json: AsJson = False,
) -> None:
    """Write a commented experiment file for your own data, ready to be trained, or a script for language models.

    Example: safekd init mine.toml --data cases.csv --label diagnosis --critical malignant

    Exit code 0: done; 2: bad input.
    """
    from ._init_command import InitOptions, write_experiment

    options = InitOptions(data, label, critical or [], at_least, context, language, student, teacher or [])
    raise typer.Exit(write_experiment(out, output, options, as_json=json))


def validate_command(config: Config, changes: Overrides = None, json: AsJson = False) -> None:
    """Look at an experiment without training it: shapes, classes, cases, whether its rules and thresholds can be met.

    Example: safekd validate mine.toml --set constraints.0.at_least=0.9

    It reads data and teachers, and says how many held-out cases a certificate would need, how much memory the student
    takes, and how long a training of so many steps will last.

    Exit code 0: it can be trained; 1: it can, but too few cases are held out for any certificate; 2: bad input; 3: no
    student can meet the thresholds.
    """
    from ._validate_command import show_validation_of_config

    raise typer.Exit(show_validation_of_config(out, config, changes or [], as_json=json))


def ensemble_command(
    config: Config,
    changes: Overrides = None,
    plot: Annotated[Path | None, typer.Option(help="picture to write: .png, .svg or .pdf")] = None,
    json: AsJson = False,
) -> None:
    """Measure the teachers of an experiment: how good, how safe and how different they are, and whom to leave out.

    Example: safekd ensemble mine.toml --plot ensemble.svg

    Losses, safety in each context and overall, correlation of errors, variance of their pool as predicted and measured,
    what is guaranteed of the pool's loss and of a student's safety, whom to leave out and which pool to take.

    Exit code 0: done; 2: bad input.
    """
    from ._ensemble_command import print_ensemble

    raise typer.Exit(print_ensemble(out, config, changes or [], plot, as_json=json))


def list_command(
    kind: Annotated[
        str | None,
        typer.Argument(help="rules, measures, divergences, pools, dual-methods or students; all if none"),
    ] = None,
    json: AsJson = False,
) -> None:
    """List what an experiment file can name: weighting rules, measures, divergences, pools, dual methods, students.

    Example: safekd list measures

    Exit code 0: done; 2: bad input.
    """
    from ._list_command import show_names

    raise typer.Exit(show_names(out, kind, as_json=json))


def add_starting_commands(app: typer.Typer) -> None:
    """Enter the commands.

    Args:
        app: The command line.
    """
    app.command("init")(init_command)
    app.command("validate")(validate_command)
    app.command("ensemble")(ensemble_command)
    app.command("list")(list_command)
