"""A report of one run or of several, written to one file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

import pandas as pd

from ...errors import InvalidInput
from ...frontier.table import read_frontier
from ...io import write_atomically
from ...io.folders import MANIFEST
from ...training.result_files import REPORT, REPORT_MARK
from ._elements import Element, clean, make, shorten, write_elements
from ._read_run import ReportedRun, read_run
from ._report_frame import FRAME, SCRIPT, STYLE
from .sections import (
    compare_runs,
    show_axioms,
    show_course,
    show_ensemble,
    show_frontier_figure,
    show_origin,
    show_safety,
    show_tightening,
    show_verdict,
    show_weights,
)

_MOST_RUNS = 16


def write_report(
    runs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    frontier: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a report of runs as one HTML file, which needs no network and no script to be read.

    The same runs give the same bytes.  The page states the SHA-256 of each run's manifest, so that a report can be told
    from that of another run.

    Args:
        runs: One run folder, or several that are compared: of ``safekd train``, ``safekd demo``, ``fit(run_dir=)`` or
            ``FitResult.save``.
        path: The file, which appears whole or not at all; ``report.html`` in the folder of the run if left out.
        frontier: CSV file of a frontier that is shown too; that of the run's folder, where it holds one, if left out.

    Returns:
        The file.

    Raises:
        InvalidInput: A folder holds no finished run, a file in it was changed, there are several runs and no ``path``,
            ``frontier`` is none, or ``path`` does not end in .html, is a file of a run, or cannot be written.
    """
    folders = [runs] if isinstance(runs, (str, os.PathLike)) else list(runs)
    if not 1 <= len(folders) <= _MOST_RUNS:
        raise InvalidInput(f"{len(folders)} runs were given for a report; wanted 1 to {_MOST_RUNS}.")
    if path is None and len(folders) > 1:
        raise InvalidInput(f"A report of {len(folders)} runs belongs to none of their folders; say where to write it.")
    target = Path(folders[0]) / REPORT if path is None else Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise InvalidInput(f"Cannot write a report to {target}: it is a web page; choose a name that ends in .html.")
    read = [read_run(folder, name) for folder, name in zip(folders, _name_runs(folders), strict=True)]
    _require_other_file(target, read)
    page = build_report_page(read, None if frontier is None else read_frontier(frontier)[:2])
    with write_atomically(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def build_report_page(runs: Sequence[ReportedRun], frontier: tuple[pd.DataFrame, str] | None = None) -> str:
    """Return the page.

    Args:
        runs: One, or several that are compared.
        frontier: Table and constraint of one that is shown besides.
    """
    title = f"Safety report: {', '.join(shorten(run.name, 40) for run in runs)}"
    if frontier is not None and len(runs) == 1:
        runs = [replace(runs[0], frontier=frontier)]
    body = [make("h1", title), *_list_sections(runs, frontier)]
    return FRAME.format(
        mark=REPORT_MARK,
        runs=escape(" ".join(run.sha256 for run in runs)),
        title=escape(clean(title)),
        style=STYLE,
        script=SCRIPT,
        body=write_elements(body),
    )


def _list_sections(runs: Sequence[ReportedRun], frontier: tuple[pd.DataFrame, str] | None) -> Iterator[Element]:
    if len(runs) == 1:
        yield from _show_run(runs[0], "run")
        return
    yield make("nav", make("ul", *(make("li", make("a", r.name, href=f"#run{n}")) for n, r in enumerate(runs))))
    yield compare_runs(runs)
    if shown := show_frontier_figure(frontier, runs, "frontier"):
        yield shown
    for number, run in enumerate(runs):
        yield make("h1", run.name, id=f"run{number}", class_="apart")
        yield from _show_run(run, f"run{number}")


def _show_run(run: ReportedRun, key: str) -> Iterator[Element]:
    sections = [
        show_verdict(run),
        show_safety(run, key),
        show_course(run, key),
        show_tightening(run),
        show_weights(run, key),
        show_frontier_figure(run.frontier, [run], key),
        show_axioms(run),
        show_ensemble(run),
        show_origin(run),
    ]
    yield from (section for section in sections if section is not None)


def _name_runs(folders: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return what the page calls each run: the name of its folder, or its path where names are shared."""
    names = [Path(folder).absolute().name for folder in folders]
    return names if len(set(names)) == len(names) else [os.fspath(folder) for folder in folders]


def _require_other_file(target: Path, runs: Sequence[ReportedRun]) -> None:
    """Refuse to write over a file of one of the runs."""
    for run in runs:
        if target.name in (*run.files, MANIFEST) and target.parent.resolve() == run.folder.resolve():
            raise InvalidInput(f"{target} is a file of the run that is reported; choose another name.")
