"""Who solves constrained problems, in how many steps, and what does a constraint cost a step?

    python -m benchmarks.primal_dual [--quick] [--defaults] [--families FAMILY ...] [--jobs 2]
                                     [--out docs/benchmarks/primal_dual.md]
    python -m benchmarks.primal_dual --families cells [--draw SEED] [--seeds 3] [--only SUBSTRING ...]
                                     [--out docs/benchmarks/distillation_cells.md]

One run measures ours, Cooper, humancompatible-train, penalties set by hand, and scipy's trust-constr and SLSQP.  Peers
come with ``pip install 'safekd[bench]'``: a missing one is named in the table with the command that installs it.
Prints a Markdown report; with ``--out`` also writes it, and all cells as CSV beside it.  Asserts nothing about time.
The family ``cells``, distillation in many small cells, takes an hour or so and runs only when it is named; beside
other families its runs are in a CSV of their own, ``..._cells.csv``.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from .._timing import processor, today, versions
from ..distillation_cells import Cell as DistillationCell
from ..distillation_cells import Piece, Row, choose, measure_piece, plan, report_sections
from ..distillation_cells import as_csv as rows_as_csv
from ._cells import Cell, call, train, walk
from ._overhead import Step, courses, overhead
from ._peers import PEERS
from ._problems import QP_SIZES, Problem, frontier, quadratics, table
from ._report import FAMILIES, as_csv, markdown
from ._solvers import SOLVERS
from ._steps import OURS, PENALTIES
from ._students import StudentTask, breast_cancer, digits

STEPPERS = [*OURS, *PEERS, *PENALTIES]
_TRAINER = "ours, ConstrainedTrainer"
CELLS = "cells"
P = TypeVar("P")
R = TypeVar("R")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; return the exit status."""
    options = _read(arguments)
    torch.set_num_threads(1)  # the problems are small: threads would wait for each other
    defaults = options.quick or options.defaults
    cells = list(measure(options.families, options.quick, defaults, options.jobs))
    steps: list[Step] = []
    if "overhead" in options.families:
        _say("overhead")
        steps = list(overhead(courses()[1:2], 0.0) if options.quick else overhead(courses(), 20.0))
    rows = list(_measure_rows(options, defaults)) if CELLS in options.families else []
    known = facts(options.quick, defaults) | ({"draw": str(options.draw)} if rows else {})
    report = markdown(cells, steps, known, report_sections(rows))
    print(report)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
        beside = options.out.with_suffix(".csv")
        if cells or not rows:
            beside.write_text(as_csv(cells), encoding="utf-8")
            beside = beside.with_stem(f"{beside.stem}_cells")
        if rows:
            beside.write_text(rows_as_csv(rows), encoding="utf-8")
    return 0


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    what = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.primal_dual", description=what)
    everything = [*FAMILIES, "overhead"]
    add = parser.add_argument
    add("--quick", action="store_true", help="few problems, few steps, no grid: shows that it works, no more")
    add("--defaults", action="store_true", help="documented settings alone, no grid: a third of the time")
    families = [*everything, CELLS]
    add("--families", nargs="+", choices=families, default=everything, metavar="FAMILY", help=", ".join(families))
    add("--draw", type=int, default=0, help="cells: seed that draws the cells beside the fixed ones")
    add("--seeds", type=int, default=3, help="cells: runs of each, from different initial students and batch orders")
    add("--only", nargs="+", default=[], metavar="SUBSTRING", help="cells: those whose name holds one of these")
    add("--jobs", type=int, default=2, help="processes side by side; the step overhead is measured by one alone")
    add("--out", type=Path, help="write the report here, and a .csv beside it")
    options = parser.parse_args(arguments)
    if CELLS in options.families and not choose(options.draw, options.only):
        parser.error(f"--only: no cell of draw {options.draw} has {options.only} in its name; see the report for names")
    return options


def measure(families: Sequence[str], quick: bool, defaults: bool, jobs: int) -> Iterator[Cell]:
    """Yield all cells, problem by problem; each contender on a problem is one piece of work for a process."""
    work = [
        (family, quick, defaults, number, name)
        for family in FAMILIES
        if family in families
        for number, name in _pairs(family, quick)
    ]
    if quick or jobs == 1:
        for piece in work:
            yield from measure_one(*piece)
        return
    for done, cells in enumerate(_side_by_side(_measure_apart, work, jobs), start=1):
        first = cells[0]
        said = f"{first.steps} steps" if first.solved else first.note
        _say(f"{done} of {len(work)}: {first.problem}: {first.contender}: {said}")
        yield from cells


def _side_by_side(measured: Callable[[P], list[R]], work: Sequence[P], jobs: int) -> Iterator[list[R]]:
    """Yield what each piece of work gives, in order, from processes of one thread each."""
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_begin) as pool:
        yield from pool.map(measured, work)


def _begin() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # a peer's advice is not a result


def _measure_apart(piece: tuple[str, bool, bool, int, str]) -> list[Cell]:
    return list(measure_one(*piece))


def _measure_rows(options: argparse.Namespace, defaults: bool) -> Iterator[Row]:
    """Yield the rows of the family of many cells, cell by cell."""
    cells: list[DistillationCell] = choose(options.draw, options.only)
    if options.quick:
        cells = cells[:1]
    _say(f"cells: {len(cells)}; reference runs for their thresholds")
    work: list[Piece] = list(plan(cells, 1 if options.quick else options.seeds, options.quick, defaults))
    alone = options.quick or options.jobs == 1
    done = map(measure_piece, work) if alone else _side_by_side(measure_piece, work, options.jobs)
    for number, rows in enumerate(done, start=1):
        first = rows[0]
        least = min(row.feasible for row in rows)
        _say(f"{number} of {len(work)}: {first.cell}, seed {first.seed}: {first.contender}: {least:.4g}")
        yield from rows


def measure_one(family: str, quick: bool, defaults: bool, number: int, name: str) -> Iterator[Cell]:
    """Yield the cells of one contender on one problem, its documented setting first."""
    task = _students(quick)[number] if family == "distillation" else None
    problem = problems(family, quick)[number] if task is None else task.problem
    if name == _TRAINER and task is not None:
        yield train(task)
    for who in SOLVERS:
        if who.name == name:
            yield call(problem, who)
    for who in STEPPERS:
        if who.name == name:
            alone = defaults or not who.grid or problem.truth != "solution"
            yield from (walk(problem, who, scale) for scale in (who.scales[:1] if alone else who.scales))


def _pairs(family: str, quick: bool) -> Iterator[tuple[int, str]]:
    listed = [task.problem for task in _students(quick)] if family == "distillation" else problems(family, quick)
    for number, problem in enumerate(listed):
        names = [_TRAINER] if family == "distillation" else [who.name for who in SOLVERS]
        yield from ((number, name) for name in names)
        yield from ((number, who.name) for who in STEPPERS if who.takes(problem))


@functools.cache
def problems(family: str, quick: bool) -> list[Problem]:
    """Return the problems of a family; quick ones are fewer, with fewer steps."""
    made = {"table": table, "frontier": frontier, "QP": lambda: quadratics([(6, 3)] if quick else QP_SIZES)}
    whole = made[family]()
    if not quick:
        return whole
    few = {"table": (0, 5), "frontier": (3,), "QP": (0,)}[family]
    return [replace(whole[number], steps=60) for number in few]


@functools.cache
def _students(quick: bool) -> list[StudentTask]:
    return [breast_cancer(40)] if quick else [breast_cancer(), digits()]


def facts(quick: bool, defaults: bool) -> dict[str, str]:
    """Return what a reader needs to judge the numbers; no names of machines, users or folders."""
    packages = ["torch", "numpy", "scipy", "scikit-learn", "cooper-optim", "humancompatible-train"]
    provenance = {"date": today(), "processor": processor(), "versions": versions(packages)}
    if quick:
        provenance["QUICK RUN"] = "few problems and steps"
    if defaults:
        provenance["NO GRID"] = "documented settings alone"
    return provenance


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
