"""How fast is the projection, beside everyone who solves the same problem?

    python -m benchmarks.projection [--quick] [--goals] [--budget SECONDS] [--out docs/benchmarks/projection.md]

One run measures ours on each engine, a plain copy, and the peers that are installed (``pip install 'safekd[bench]'``):
a missing one is named in the table with the command that installs it.  Prints a Markdown report; with ``--out`` also
writes it, and all cells as CSV beside it.  Asserts nothing about time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import torch

from .._timing import ChildDied, in_child, processor, report_path, today, versions
from ._cells import MODES, Cell, measure_series
from ._headline import judge_all
from ._peers import CONTENDERS, Contender
from ._report import as_csv, markdown

_FULL = {"classes": (2, 4, 8, 32, 128), "sizes": (1, 1_000, 100_000, 1_000_000), "budget": 10.0}
_QUICK = {"classes": (2, 8), "sizes": (1, 1_000), "budget": 0.5}
_DAG_CLASSES = (8, 16)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = _read(arguments)
    plan = _QUICK if options.quick else _FULL
    budget = plan["budget"] if options.budget is None else options.budget
    verdicts = []
    for verdict in judge_all(options.quick, budget):
        verdicts.append(verdict)
        _say(f"{verdict.goal.what}, {verdict.goal.case}, K={verdict.goal.K}: {verdict.measured:.3g} {verdict.word}")
    cells = [] if options.goals else list(measure_all(plan["classes"], plan["sizes"], budget))
    report = markdown(cells, verdicts, facts(options.quick, budget))
    print(report)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
        if cells:
            options.out.with_suffix(".csv").write_text(as_csv(cells), encoding="utf-8")
    return 0


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.projection", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few sizes, short budgets: shows that it works, no more")
    parser.add_argument("--goals", action="store_true", help="the goals alone, in about two minutes")
    parser.add_argument("--budget", type=float, help="seconds a cell may take (10; 0.5 with --quick)")
    parser.add_argument("--out", type=report_path, help="write the report here, and a .csv beside it")
    return parser.parse_args(arguments)


def measure_all(classes: Sequence[int], sizes: Sequence[int], budget: float) -> Iterator[Cell]:
    """Yield all cells: each contender on each of its cases, in a process of its own."""
    for case in ("chain", "bounds", "order", "dag"):
        for who in (one for one in CONTENDERS if case in one.cases):
            _say(f"{case}: {who.name}")
            yield from _series(who, case, _DAG_CLASSES if case == "dag" else classes, sizes, budget)


def _series(who: Contender, case: str, classes: Sequence[int], sizes: Sequence[int], budget: float) -> Iterator[Cell]:
    seen = set()
    try:
        for cell in in_child(measure_series, who.name, case, classes, sizes, budget, patience=120 + 6 * budget):
            seen.add((cell.K, cell.B, cell.mode))
            yield cell
    except ChildDied as cause:
        places = ((K, B, mode) for K in classes for mode in MODES for B in sizes)
        note = f"does not finish: {cause}"
        yield from (Cell(case, who.name, *place, note=note) for place in places if place not in seen)


def facts(quick: bool, budget: float) -> dict[str, str]:
    """Return what a reader needs to judge the numbers; no names of machines, users or folders."""
    names = ["torch", "numpy", *dict.fromkeys(name for who in CONTENDERS for name in who.packages)]
    found = {
        "date": today(),
        "processor": processor(),
        "torch.get_num_threads()": str(torch.get_num_threads()),
        "versions": versions(names),
        "budget": f"{budget:g} s a cell",
    }
    if quick:
        found["QUICK RUN"] = "few rows and short budgets; goals are measured on fewer rows than they are stated for"
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
