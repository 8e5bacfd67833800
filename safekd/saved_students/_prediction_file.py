"""New rows in a file, and what a saved student says of them; or what they show of it, where they have labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data import Split
from ..errors import InvalidInput
from ..io import Table, guard_cell, is_parquet, open_table, write_atomically
from ._image_rows import read_image_blocks, read_labeled_images
from ._saved_student import SavedStudent

Progress = Callable[[int, int, int | None], None]


@dataclass(frozen=True)
class PredictionSummary:
    """What was predicted.

    Attributes:
        rows: How many rows.
        counts: How many of each class, by name.
    """

    rows: int
    counts: dict[str, int]


def predict_file(
    student: SavedStudent,
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    separator: str | None = None,
    decimal: str = ".",
    on_progress: Progress | None = None,
) -> PredictionSummary:
    """Write the predictions for every row of a CSV or Parquet file, or every image of a folder, in constant memory.

    Columns that are no features come along as text, such as an identifier; then "predicted" and "probability: CLASS"
    for every class.  ``output`` appears when it is complete, or not at all.

    Args:
        student: The student.
        path: Rows with a column a feature, in any order; for a student of images a folder of these, whose paths are
            the column "file".
        output: A CSV file, or Parquet by its suffix; not ``path``.
        separator: What separates the cells of a CSV file, as ``open_table`` takes it; left out, the file tells.
        decimal: The decimal sign of a CSV file, "point" or "comma".
        on_progress: Called with the number of rows done, and how much has been read of how much (None where unknown).

    Raises:
        InvalidInput: A feature is missing, a cell is no number, or ``output`` is ``path``.
    """
    target = Path(output)
    if target.exists() and Path(path).exists() and target.samefile(path):
        raise InvalidInput(f"{target} is the input itself, which would be lost; write to another file.")
    counts: dict[str, int] = dict.fromkeys(student.class_names, 0)
    done = 0
    with _open_rows(student, Path(path), separator, decimal) as (kept, parts), _open_writer(target) as write:
        added = ["predicted", *(f"probability: {name}" for name in student.class_names)]
        if taken := [name for name in kept if name in added]:
            raise InvalidInput(f"{path} has a column '{taken[0]}' of its own; rename it, or take it out.")
        for others, x_NF, place, total in parts:
            answer = student.predict(x_NF)
            write(pd.concat([pd.DataFrame(others, index=answer.index), answer], axis=1))
            done += len(answer)
            for name, number in answer["predicted"].value_counts().items():
                counts[str(name)] += int(number)
            if on_progress is not None:
                on_progress(done, place, total)
    return PredictionSummary(done, counts)


@contextmanager
def _open_rows(
    student: SavedStudent, path: Path, separator: str | None, decimal: str
) -> Iterator[tuple[list[str], Iterator[tuple[dict[str, list[str]], Any, int, int | None]]]]:
    """Yield the columns that come along, and parts of the rows: these, features, how much is read of how much."""
    if path.is_dir():
        yield ["file"], _read_image_parts(student, path)
        return
    with open_table(path, separator=separator, decimal=decimal) as table:
        _require_known_columns(table, student.features)
        kept = [name for name in table.columns if name not in student.features]
        yield (
            kept,
            (
                ({name: block.texts(name) for name in kept}, block.numbers(student.features), block.done, table.total)
                for block in table.blocks()
            ),
        )


def _read_image_parts(student: SavedStudent, folder: Path) -> Iterator[tuple[dict[str, list[str]], Any, int, int]]:
    done = 0
    for files, x_NF, total in read_image_blocks(student, folder):
        done += len(files)
        yield {"file": files}, x_NF, done, total


def read_labeled_rows(
    student: SavedStudent,
    path: str | os.PathLike[str],
    *,
    label: str | None = None,
    separator: str | None = None,
    decimal: str = ".",
) -> Split:
    """Return a file of labeled rows, or a folder with a subfolder of images a class, as a split that ``certify`` takes.

    Where rows of the student's own data belonged together by a column, these do by the same one.

    Args:
        student: Whose features, classes and contexts it has.
        path: CSV or Parquet, with the columns of the student's own data.
        label: The column of labels; that of the student's own data if left out.
        separator: What separates the cells of a CSV file, as ``open_table`` takes it; left out, the file tells.
        decimal: The decimal sign of a CSV file, "point" or "comma".

    Raises:
        InvalidInput: A column is missing, a cell is no number, or a label is none of the student's classes.
    """
    if Path(path).is_dir():
        return read_labeled_images(student, Path(path))
    spec = student.require_spec()
    column = spec.label if label is None else label
    if column is None:
        raise InvalidInput(
            "The student's own data named no column of labels; say which one of the new rows it is: --label COLUMN, or "
            "label='COLUMN'."
        )
    cut = [] if spec.context_column is None else [spec.context_column]
    group = [] if spec.group is None else [spec.group]
    parts: list[tuple[Any, list[str], Any]] = []
    groups: list[str] = []
    with open_table(path, separator=separator, decimal=decimal) as table:
        _require_known_columns(table, [*spec.features, column, *cut, *group])
        for block in table.blocks():
            names = [name.strip() for name in block.texts(column)]
            unknown = [row for row, name in enumerate(names) if name not in spec.classes]
            if unknown:
                raise block.explain_refusal(unknown[0], column, f"one of the classes {', '.join(spec.classes[:20])}")
            for name in group:
                groups += [cell.strip() for cell in block.texts(name)]
                if "" in groups[-block.rows :]:
                    raise block.explain_refusal(groups[-block.rows :].index(""), name, "the name of a group")
            parts.append((block.numbers(spec.features), names, spec.context_rule.read_block(block)))
    labels = [name for _, names, _ in parts for name in names]
    x_NF, context_N = (np.concatenate([part[place] for part in parts]) for place in (0, 2))
    return student.build_split(Path(path).name, x_NF, labels, context_N, groups if group else None)


def _require_known_columns(table: Table, wanted: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in table.columns]:
        raise InvalidInput(
            f"{table.path} lacks {len(missing)} of the {len(wanted)} columns that are needed: "
            f"{', '.join(missing[:5])}{', ...' * (len(missing) > 5)}. It has: {', '.join(table.columns[:20])}."
        )


@contextmanager
def _open_writer(target: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Yield what appends rows to a file that appears when all are written."""
    with write_atomically(target) as temporary:
        if is_parquet(target):
            import pyarrow as pa
            from pyarrow.parquet import ParquetWriter

            writers: list[ParquetWriter] = []

            def write_parquet(frame: pd.DataFrame) -> None:
                rows = pa.Table.from_pandas(frame, preserve_index=False)
                if not writers:
                    writers.append(ParquetWriter(temporary, rows.schema))
                writers[0].write_table(rows)

            yield write_parquet
            for writer in writers:
                writer.close()
            return
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            lines = csv.writer(stream, lineterminator="\n")
            header: list[str] = []

            def write_csv(frame: pd.DataFrame) -> None:
                if not header:
                    header.extend(map(str, frame.columns))
                    lines.writerow(map(guard_cell, header))
                columns = [frame[name].map(_write_cell).tolist() for name in frame.columns]
                lines.writerows(zip(*columns, strict=True))

            yield write_csv


def _write_cell(value: object) -> object:
    return guard_cell(value) if isinstance(value, str) else repr(float(value))  # type: ignore[arg-type]
