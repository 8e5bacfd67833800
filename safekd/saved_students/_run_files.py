"""What a run of an experiment file leaves beside its result, so that somebody else can run, read and repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..experiment import Experiment, VariantReport, tabulate_weights
from ..experiment.config import format_config
from ..io import write_atomically, write_csv
from ..training import FitResult
from ._gather_facts import gather_facts
from ._student_card import MODEL_CARD, format_model_card
from ._student_spec import describe_student

CONFIG, EFFECTIVE_CONFIG, SPLITS, WEIGHTS = "config.toml", "effective.toml", "splits.csv", "weights.csv"


def write_run_files(
    part: Path,
    experiment: Experiment,
    result: FitResult,
    text: str,
    folder: Path,
    refused: Sequence[str] = (),
    rivals: Sequence[VariantReport] = (),
) -> None:
    """Write the files of a run besides those of ``FitResult.save``.

    ``config.toml`` as it was given, ``effective.toml`` with every default, ``student.json`` with features, scaling
    and names, ``splits.csv`` with the split of every row, ``weights.csv`` with the weights of training examples,
    ``report.json`` with what a report says besides, and ``MODEL_CARD.md``.

    Args:
        part: The folder, which exists.
        experiment: What was run.
        result: What came out.
        text: The configuration, with paths as they are seen from where it will stand.
        folder: Where relative paths of ``experiment.config`` start.
        refused: Why constraints have no certificate, a sentence each.
        rivals: Students that were trained beside it, for comparison.
    """
    spec = describe_student(experiment, folder)
    _write_text(part / CONFIG, text)
    _write_text(part / EFFECTIVE_CONFIG, format_config(text))
    spec.save(part)
    if experiment.stream is None:  # of data that stream, the column or the seed says it row by row
        write_csv(_tabulate_splits(experiment), part / SPLITS)
    write_csv(tabulate_weights(experiment), part / WEIGHTS)
    gather_facts(experiment, result, rivals).save(part)
    _write_text(part / MODEL_CARD, format_model_card(spec, experiment, result, refused))


def _tabulate_splits(experiment: Experiment) -> pd.DataFrame:
    """Return the split of every row of the data, numbered from 0, and its key where it has one."""
    rows = np.concatenate(list(experiment.index.values()))
    names = np.repeat(list(experiment.index), [len(part) for part in experiment.index.values()])
    order = np.argsort(rows, kind="stable")
    table = pd.DataFrame({"row": rows[order], "split": names[order]})
    if experiment.table.keys is not None:
        table.insert(1, "key", np.array(experiment.table.keys, dtype=object)[rows[order]])
    return table


def _write_text(path: Path, text: str) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
