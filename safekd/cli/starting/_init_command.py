"""``safekd init``: an experiment file for own data, its columns looked at."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ...errors import InvalidInput
from ...experiment.config import parse_config
from ...experiment.images import list_labeled_images
from ...io import holds_numbers, is_nameless, open_table, write_atomically
from .._exit_codes import ExitCode
from ..terminal import keep_quiet, print_json, print_plain, show_written
from ._config_template import ExperimentDraft, format_draft
from ._language_template import LanguageDraft, format_language_script


@dataclass(frozen=True)
class InitOptions:
    """What the command line says of the data.

    Attributes:
        data: The file.
        label: Column of labels; None to look for one.
        critical: Classes that must not be missed; empty for the rarest.
        at_least: Safety asked for.
        context: Column of contexts, None for none.
        language: Whether it is a script for language models that is written.
        student: Folder or name of the student's language model.
        teachers: Those of the teachers.
    """

    data: Path
    label: str | None
    critical: Sequence[str]
    at_least: float
    context: str | None
    language: bool = False
    student: str | None = None
    teachers: Sequence[str] = ()


@dataclass(frozen=True)
class LabelSettings:
    """How columns are guessed; ``tests/safekd/cli/starting/test_cli_starting.py`` notices.

    Attributes:
        labels: Names under which labels go, most common first.
        most_classes: More different labels are an identifier or a measurement.
    """

    labels: tuple[str, ...] = ("label", "labels", "class", "target", "diagnosis", "outcome", "y", "category")
    most_classes: int = 1000


_SETTINGS = LabelSettings()


def write_experiment(console: Console, output: Path, options: InitOptions, *, as_json: bool) -> int:
    """Write an experiment file; return the exit code.

    Args:
        console: Where it is said what was found.
        output: The file, which must not exist.
        options: Of the command line.
        as_json: Whether what is printed is for a machine.
    """
    if os.path.lexists(output):
        raise InvalidInput(f"{output} is there already, and would be lost; choose another name.")
    if not 0 < options.at_least < 1:
        raise InvalidInput(f"--at-least is {options.at_least:g}; wanted a number above 0 and below 1.")
    if options.language:
        return _write_script(console, output, options, as_json=as_json)
    draft = _look_at_images(output, options) if options.data.is_dir() else _look_at_data(output, options)
    text = format_draft(draft)
    parse_config(text, str(output))  # what is written can be read
    with write_atomically(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    with keep_quiet(console, as_json):
        counts = ", ".join(f"{name}: {number:,}" for name, number in list(draft.classes.items())[:8])
        what = "images in subfolders" if draft.images else f"rows; label '{draft.label}'"
        print_plain(console, f"{draft.rows:,} {what}: {counts}")
        if draft.left_out:
            print_plain(console, f"no numbers, so no features: {', '.join(draft.left_out[:8])}")
        print_plain(console, f"must not be missed: {', '.join(draft.critical)}, at least {draft.at_least:g}")
        show_written(console, [output])
        print_plain(console, f"next: safekd validate {output}, then safekd train {output}")
    if as_json:
        print_json({"files": [output], "label": draft.label, "classes": draft.classes, "critical": draft.critical})
    return ExitCode.DONE


def _write_script(console: Console, output: Path, options: InitOptions, *, as_json: bool) -> int:
    drafted = LanguageDraft(
        options.student or "", options.teachers, str(options.data), options.critical, options.at_least
    )
    text = format_language_script(drafted)
    with write_atomically(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    if as_json:
        print_json({"files": [output]})
        return ExitCode.DONE
    show_written(console, [output])
    print_plain(console, f"next: look it through, then python {output}")
    return ExitCode.DONE


def _look_at_images(output: Path, options: InitOptions) -> ExperimentDraft:
    if options.label is not None or options.context is not None:
        raise InvalidInput(
            f"{options.data} is a folder of images, whose classes are its subfolders; leave out --label and --context."
        )
    _, classes = list_labeled_images(options.data)
    counts = Counter(classes)
    return ExperimentDraft(
        source=_see_from(output, options.data),
        label="",
        classes=dict(sorted(counts.items())),
        features=None,
        left_out=[],
        critical=_choose_critical(counts, options),
        at_least=options.at_least,
        context=None,
        rows=len(classes),
        images=True,
    )


def _choose_critical(counts: Counter[str], options: InitOptions, label: str = "") -> list[str]:
    """Return the classes that must not be missed: those named, else the rarest."""
    if len(counts) < 2:
        where = f"{options.data}, column '{label}'" if label else options.data
        other = "Name another column, --label COLUMN, or add rows" if label else "Add a subfolder"
        raise InvalidInput(f"{where} holds one class, '{min(counts)}'; wanted at least 2. {other} of another class.")
    if unknown := [name for name in options.critical if name not in counts]:
        raise InvalidInput(f"--critical {unknown[0]}: no such class; there are: {', '.join(sorted(counts)[:20])}.")
    return list(options.critical) or [min(sorted(counts), key=lambda name: counts[name])]


def _see_from(output: Path, data: Path) -> str:
    return Path(os.path.relpath(data.absolute(), output.absolute().parent)).as_posix()


def _look_at_data(output: Path, options: InitOptions) -> ExperimentDraft:
    with open_table(options.data) as table:
        columns = list(table.columns)
        label = _find_label(columns, options)
        if options.context is not None and options.context not in columns:
            raise InvalidInput(f"{options.data} has no column '{options.context}'; it has: {', '.join(columns[:20])}.")
        others = [name for name in columns if name != label]
        numeric, counts, rows = dict.fromkeys(others, True), Counter[str](), 0
        for block in table.blocks():
            counts.update(name.strip() for name in block.texts(label))
            rows += block.rows
            for name in others:
                numeric[name] = numeric[name] and holds_numbers(block, name)
            if len(counts) > _SETTINGS.most_classes:
                raise InvalidInput(
                    f"{options.data}, column '{label}' holds more than {_SETTINGS.most_classes:,} different values; is "
                    "it the column of labels? Name it: --label COLUMN."
                )
    if counts.pop("", 0):
        raise InvalidInput(f"{options.data}, column '{label}' has rows without a label; fill them or drop the rows.")
    critical = _choose_critical(counts, options, label)
    left_out = [name for name in others if not numeric[name] or is_nameless(name)]
    features = [name for name in others if name not in left_out]
    if not features:
        raise InvalidInput(f"{options.data} has no column of numbers besides '{label}'; a student needs some.")
    if options.context is not None and not numeric[options.context]:
        raise InvalidInput(f"--context {options.context}: the column holds text; wanted numbers, to be cut.")
    return ExperimentDraft(
        source=_see_from(output, options.data),
        label=label,
        classes=dict(sorted(counts.items())),
        features=features if left_out else None,
        left_out=left_out,
        critical=critical,
        at_least=options.at_least,
        context=options.context,
        rows=rows,
    )


def _find_label(columns: Sequence[str], options: InitOptions) -> str:
    if options.label is not None:
        if options.label not in columns:
            raise InvalidInput(f"{options.data} has no column '{options.label}'; it has: {', '.join(columns[:20])}.")
        return options.label
    named = [name for wanted in _SETTINGS.labels for name in columns if name.strip().lower() == wanted]
    if not named:
        raise InvalidInput(
            f"No column of {options.data} is named like labels; say which one holds them, --label COLUMN: "
            f"{', '.join(columns[:20])}."
        )
    return named[0]
