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
from collections.abc import Iterator, Sequence

import torch

from .._timing import processor, report_path, today, versions
from ..distillation_cells import Cell as DistillationCell
from ..distillation_cells import Piece, Row, choose, measure_piece, plan, report_sections
from ..distillation_cells import as_csv as rows_as_csv
from ._overhead import BY_HAND, PLAIN, TRAINER, Step, courses, list_measure_courses, overhead
from ._report import FAMILIES, as_csv, markdown, tell_measures
from ._work import measure, run_side_by_side, say

CELLS = "cells"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; return the exit status."""
    options = _read(arguments)
    torch.set_num_threads(1)  # the problems are small: threads would wait for each other
    defaults = options.quick or options.defaults
    cells = list(measure(options.families, options.quick, defaults, options.jobs))
    steps: list[Step] = []
    by_measure: list[Step] = []
    if "overhead" in options.families:
        say("overhead")
        steps = list(overhead(courses()[1:2], 0.0) if options.quick else overhead(courses(), 20.0))
    if "measures" in options.families:
        say("measures")
        by_measure = list(overhead(list_measure_courses(), 0.2 if options.quick else 10.0, (PLAIN, BY_HAND, TRAINER)))
    rows = list(_measure_rows(options, defaults)) if CELLS in options.families else []
    known = facts(options.quick, defaults) | ({"draw": str(options.draw)} if rows else {})
    report = markdown(cells, steps, known, [*tell_measures(by_measure), *report_sections(rows)])
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
    everything = [*FAMILIES, "overhead", "measures"]
    add = parser.add_argument
    add("--quick", action="store_true", help="few problems, few steps, no grid: shows that it works, no more")
    add("--defaults", action="store_true", help="documented settings alone, no grid: a third of the time")
    families = [*everything, CELLS]
    add("--families", nargs="+", choices=families, default=everything, metavar="FAMILY", help=", ".join(families))
    add("--draw", type=int, default=0, help="cells: seed that draws the cells beside the fixed ones")
    add("--seeds", type=int, default=3, help="cells: runs of each, from different initial students and batch orders")
    add("--only", nargs="+", default=[], metavar="SUBSTRING", help="cells: those whose name holds one of these")
    add("--jobs", type=int, default=2, help="processes side by side; the step overhead is measured by one alone")
    add("--out", type=report_path, help="write the report here, and a .csv beside it")
    options = parser.parse_args(arguments)
    if CELLS in options.families and not choose(options.draw, options.only):
        parser.error(f"--only: no cell of draw {options.draw} has {options.only} in its name; see the report for names")
    return options


def _measure_rows(options: argparse.Namespace, defaults: bool) -> Iterator[Row]:
    """Yield the rows of the family of many cells, cell by cell."""
    cells: list[DistillationCell] = choose(options.draw, options.only)
    if options.quick:
        cells = cells[:1]
    say(f"cells: {len(cells)}; reference runs for their thresholds")
    work: list[Piece] = list(plan(cells, 1 if options.quick else options.seeds, options.quick, defaults))
    alone = options.jobs == 1
    done = map(measure_piece, work) if alone else run_side_by_side(measure_piece, work, options.jobs)
    for number, rows in enumerate(done, start=1):
        first = rows[0]
        least = min(row.feasible for row in rows)
        say(f"{number} of {len(work)}: {first.cell}, seed {first.seed}: {first.contender}: {least:.4g}")
        yield from rows


def facts(quick: bool, defaults: bool) -> dict[str, str]:
    """Return what a reader needs to judge the numbers; no names of machines, users or folders."""
    packages = ["torch", "numpy", "scipy", "scikit-learn", "cooper-optim", "humancompatible-train"]
    provenance = {"date": today(), "processor": processor(), "versions": versions(packages)}
    if quick:
        provenance["QUICK RUN"] = "few problems and steps"
    if defaults:
        provenance["NO GRID"] = "documented settings alone"
    return provenance


if __name__ == "__main__":
    raise SystemExit(main())
