"""Weights in a file, made conforming.  Axes: N rows of a block, K teachers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import numpy as np

from solvers.projection import project

from ..errors import SafekdError
from ..io import Block, open_table
from ._file_rules import FileRules, Floats, Rules, bind_rules, read_rule_set
from ._projection_summary import ProjectionSummary

Progress = Callable[[int, int, int | None], None]


def project_file(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    rules: Rules,
    *,
    separator: str | None = None,
    decimal: str = ".",
    key_labels: Mapping[str, str] | None = None,
    on_progress: Progress | None = None,
) -> ProjectionSummary:
    """Write a copy of a CSV or Parquet file in which the teachers' columns hold the nearest conforming weights.

    Any number of rows, in constant memory.  Weights are written so that they read back bit for bit; all other columns
    stay as they are, in CSV to the byte, but for an apostrophe before what a spreadsheet would run.  ``output``
    appears when it is complete, or not at all.

    Args:
        path: A CSV file with a header, or a Parquet file; one row a weighting.
        output: The copy, in the same format; not ``path``.
        rules: A ``RulesConfig``, a mapping with its keys, or the path of a TOML file.
        separator: What separates the cells of a CSV file, as ``open_table`` takes it; left out, the file tells.
        decimal: The decimal sign of a CSV file, "point" or "comma"; the copy has it too.
        key_labels: What messages call a key of the rules, where not by its own name ("order" may be "--order").
        on_progress: Called with the number of rows done, and how much has been read of how much (None where unknown).

    Returns:
        How many rows there were, how many moved, and how far.

    Raises:
        InvalidInput: Something in the file is wrong; the message names line, column and cell.
        InfeasiblePolytope: No weights meet the rules, all rows' or one row's.
    """
    config = read_rule_set(rules)
    with open_table(path, separator=separator, decimal=decimal) as table:
        bound = bind_rules(config, table, key_labels)
        done = ProjectionSummary(bound.teachers)
        read = ((block, bound.weights(block)) for block in table.blocks())
        first = next(read)  # a column that is no teacher's is told of before anything is written
        with table.copy(output, bound.teachers) as write:
            for block, raw_NK in chain([first], read):
                w_NK = _project_block(bound, block, raw_NK)
                write(block, w_NK)
                done.add(raw_NK, w_NK)
                if on_progress is not None:
                    on_progress(done.rows, block.done, table.total)
    return done


def _project_block(rules: FileRules, block: Block, raw_NK: Floats) -> Floats:
    """Return the weights of a block after projection, (N, K)."""
    ordering = rules.ordering(block)
    if rules.metric == "kl":
        bad = np.argwhere(~(raw_NK > 0))
        if len(bad):
            row, column = int(bad[0, 0]), rules.teachers[bad[0, 1]]
            raise block.explain_refusal(row, column, "a number above 0, which metric kl needs")
    try:
        return project(raw_NK, rules.polytope, metric=rules.metric, **ordering)
    except SafekdError:
        row, error = _find_refused_row(rules, raw_NK, ordering)
        text = re.sub(r"^Row 0\b,? ?", "", str(error)).removeprefix(": ")  # a row is named by its place in the file
        raise type(error)(f"{block.place(row)}: {text}") from error


def _find_refused_row(rules: FileRules, raw_NK: Floats, ordering: dict[str, Any]) -> tuple[int, SafekdError]:
    """Return the first row that cannot be projected, found by halving, and the error about it."""

    def try_rows(start: int, stop: int) -> SafekdError | None:
        some = {name: value[start:stop] for name, value in ordering.items()}
        try:
            project(raw_NK[start:stop], rules.polytope, metric=rules.metric, **some)
        except SafekdError as error:
            return error
        return None

    start, stop = 0, len(raw_NK)
    while stop - start > 1:
        middle = (start + stop) // 2
        start, stop = (start, middle) if try_rows(start, middle) else (middle, stop)
    error = try_rows(start, stop)
    assert error is not None
    return start, error
