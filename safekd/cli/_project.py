"""``safekd project``: weights in a CSV file, made conforming."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from rich.console import Console

from solvers.polytope import WeightPolytope
from solvers.projection import project

from ..errors import InvalidInput
from ..report import projection_summary
from ..tables import numbers, read_table, write_csv
from ._progress import bar, show_written

_CHUNK = 65536


def show_projection(
    console: Console,
    path: Path,
    output: Path,
    rules: dict[str, Any],
    orders: list[str],
    teachers: list[str],
    metric: str,
) -> int:
    """Project every row with a progress bar, save, and print what moved; return the exit code."""
    if metric not in ("euclidean", "kl"):
        raise InvalidInput(f"--metric is '{metric}'; wanted euclidean or kl.")
    table = read_table(path)
    names = teachers or [str(column) for column in table.columns]
    for name in names:
        _require_column(name, table.columns, path, "--teacher")
    pairs = [pair for text in orders for pair in _parsed(text, names, path)]
    polytope = WeightPolytope(len(names), orderings=pairs, **rules)
    raw_NK = numbers(table[names], path)
    parts = []
    with bar(console) as progress:
        task = progress.add_task("projecting", total=len(raw_NK))
        for start in range(0, len(raw_NK), _CHUNK):
            part = raw_NK[start : start + _CHUNK]
            parts.append(np.asarray(project(part, polytope, metric=cast(Any, metric))))
            progress.update(task, advance=len(part))
    w_NK = np.concatenate(parts)
    for k, name in enumerate(names):
        table[name] = w_NK[:, k]
    write_csv(table, output)
    console.print(projection_summary(names, raw_NK, w_NK))
    show_written(console, [output])
    return 0


def _parsed(text: str, names: list[str], path: Path) -> list[tuple[int, int]]:
    """Return the pairs that "a>=b" or "a>=b>=c" states, as positions in ``names``."""
    parts = [part.strip() for part in text.split(">=")]
    if len(parts) < 2 or not all(parts):
        raise InvalidInput(f'--order "{text}" is not understood; wanted "a>=b" with two teacher columns.')
    for part in parts:
        _require_column(part, names, path, f'--order "{text}"')
    numbered = [names.index(part) for part in parts]
    return list(pairwise(numbered))


def _require_column(name: str, known: Any, path: Path, option: str) -> None:
    if name not in list(known):
        raise InvalidInput(f"{option}: {path} has no teacher column '{name}'; it has: {', '.join(map(str, known))}.")
