"""Does every projected row conform?  Millions of random rows, hard on the arithmetic, each judged to the last bit.

    python -m benchmarks.conformance [--rows 10000000] [--seed 0] [--kinds KIND ...] [--classes K ...] [--out PATH]

Prints a table with a line for each kind of polytope, and for the first row that is wrong a program that replays it.
The exit status is 1 if any row was.  A seed and a number of rows draw the same problems on every machine.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from .._timing import processor, report_path, today, versions
from ..projection._report import number, table
from ._cases import CLASSES, KINDS, Chunk, Problem, plan
from ._judge import FAULTS, Judgement, ask_again, judge


@dataclass
class Tally:
    """What was found of one kind.  off, moved: the worst, as in ``Judgement``."""

    rows: int = 0
    polytopes: int = 0
    kept: int = 0
    off: float = 0.0
    moved: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    classes: set[int] = field(default_factory=set)

    def add(self, chunk: Chunk, found: Judgement) -> None:
        """Count one chunk."""
        self.rows += chunk.rows
        self.polytopes += 1
        self.kept += found.kept
        self.classes.add(chunk.K)
        # unlike max, numpy's maximum never loses a NaN
        self.off, self.moved = float(np.maximum(self.off, found.off)), float(np.maximum(self.moved, found.moved))
        self.faults.update({name: int(rows_B.sum()) for name, rows_B in found.faults.items()})

    @property
    def wrong(self) -> int:
        """How many faults there are; a row may have several."""
        return sum(self.faults.values())


@dataclass
class Outcome:
    """The tally of each kind, and the first row that is wrong, in words."""

    tallies: dict[str, Tally]
    first: str = ""

    @property
    def wrong(self) -> int:
        """How many faults there are in all."""
        return sum(tally.wrong for tally in self.tallies.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, project, judge; print and write; return the exit status."""
    options = _read(arguments)
    start = perf_counter()
    chunks = list(plan(options.rows, options.seed, options.kinds, options.classes))
    outcome = run(_shown(chunks))
    report = markdown(outcome, facts(options.seed, perf_counter() - start))
    print(report)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
    return 1 if outcome.wrong else 0


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    what = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conformance", description=what)
    add = parser.add_argument
    add("--rows", type=int, default=10_000_000, help="rows in all")
    add("--seed", type=int, default=0, help="another seed, other rows")
    add("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    add("--classes", nargs="+", type=int, default=list(CLASSES), metavar="K", help="numbers of teachers")
    add("--out", type=report_path, help="write the report here")
    return parser.parse_args(arguments)


def _shown(chunks: Sequence[Chunk]) -> Iterator[Chunk]:
    """Yield chunks, with a bar on the standard error stream."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("rows", total=sum(chunk.rows for chunk in chunks))
        for chunk in chunks:
            progress.update(task, description=f"{chunk.kind}, {chunk.metric}, K = {chunk.K}")
            yield chunk
            progress.advance(task, chunk.rows)


def run(chunks: Iterator[Chunk]) -> Outcome:
    """Project and judge all chunks."""
    outcome = Outcome({})
    for chunk in chunks:
        problem = chunk.draw()
        w_BK, again_BK, failure = _answers(problem)
        found = judge(problem, w_BK, again_BK)
        outcome.tallies.setdefault(chunk.kind, Tally()).add(chunk, found)
        if found.faulty.any() and not outcome.first:
            outcome.first = replay(chunk, problem, found, w_BK, again_BK) + failure
    return outcome


def _answers(problem: Problem) -> tuple[Tensor, Tensor, str]:
    """Project the rows and their answers; rows that raise an error are NaN, and the first error is given in words."""
    try:
        w_BK = problem.rules.project(problem.v, problem.metric)
        return w_BK, ask_again(problem, w_BK), ""
    except Exception as failure:  # whatever it is, it is what the run looks for
        if len(problem.v) == 1:
            nothing_BK = torch.full_like(problem.v, torch.nan)
            return nothing_BK, nothing_BK, f"\n# raised {type(failure).__name__}: {failure}"
    answers, agains, failures = zip(*(_answers(problem.row(b)) for b in range(len(problem.v))), strict=True)
    return torch.cat(answers), torch.cat(agains), next(filter(None, failures), "")


def replay(chunk: Chunk, problem: Problem, found: Judgement, w_BK: Tensor, again_BK: Tensor) -> str:
    """Return the first row that is wrong as a program that projects it, with what was found."""
    row = int(found.faulty.argmax())
    names = [name for name in FAULTS if found.faults[name][row]]
    rules = problem.row(row).rules
    options = {{"rank": "safety"}.get(name, name): own[0].tolist() for name, own in rules.of_rows.items()}
    polytope = rules.polytope
    linear = {name: getattr(polytope.linear, name) for name in "AbCd" if getattr(polytope.linear, name)} or None
    settings = (polytope.n_teachers, polytope.lower, polytope.upper, polytope.orderings, polytope.margin, linear)
    given = "".join(f", {name}={value!r}" for name, value in {"metric": problem.metric, **options}.items())
    return "\n".join(
        [
            f"# {', '.join(names)}: row {row} of {chunk}; twin of row {problem.first_B[row]}",
            "import torch",
            "from solvers import WeightPolytope, project",
            f"v = torch.tensor({problem.v[row].tolist()!r}, dtype={problem.v.dtype})",
            f"polytope = WeightPolytope{settings!r}",
            f"w = project(v, polytope{given})",
            f"# found {w_BK[row].tolist()!r}",
            f"# again {again_BK[row].tolist()!r}",
        ]
    )


def facts(seed: int, seconds: float) -> dict[str, str]:
    """Return what a reader needs to repeat the run."""
    return {
        "date": today(),
        "processor": processor(),
        "versions": versions(["torch", "numpy", "numba", "cvxpy", "clarabel", "moreau"]),
        "seed": str(seed),
        "time": f"{number(seconds)} s",
    }


_RUN = """Written by `python -m benchmarks.conformance --rows {rows} --seed {seed}`. Ten families of scores at scales
from 1e-8 to 1e8 (`benchmarks/conformance/_scores.py`): spread, ties, ties but for a few ulp, rows all alike, scores on
bounds, weights that conform already, denormals and zeros of both signs, one huge score among small ones, scores far
away and close together, scores of all sizes; one row in eight is asked twice. float64, float32, bfloat16 and float16,
Euclidean and kl. Each answer is judged, and projected again; `benchmarks/conformance/_judge.py` says what is wrong."""

_LEGEND = """A column for each fault counts rows. The last three: the worst sum's distance from one, in K ulp of the
dtype; the furthest that a weight moved when projected again, in ulp; rows that kept every bit. Kinds in bold have no
exact path: they go to cvxpy, which is slow, and get few rows, least of all for kl."""


def markdown(outcome: Outcome, known: dict[str, str]) -> str:
    """Return the report."""
    total = sum(tally.rows for tally in outcome.tallies.values())
    verdict = f"FAULTS: {outcome.wrong:,}. The first row that is wrong:" if outcome.wrong else "No row is wrong."
    parts = [
        "# Projection: do all rows conform?",
        _RUN.format(rows=total, seed=known["seed"]),
        table(["", ""], [[name, fact] for name, fact in known.items()]),
        f"**{total:,} rows. {verdict}**",
        f"```\n{outcome.first}\n```" if outcome.first else "",
        table(["", "rows", "polytopes", "K", *FAULTS, "sum off by", "moved by", "kept"], list(_lines(outcome))),
        _LEGEND,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _lines(outcome: Outcome) -> Iterator[list[str]]:
    for name, tally in outcome.tallies.items():
        yield [
            f"**{name}**" if KINDS[name].cvxpy else name,
            f"{tally.rows:,}",
            f"{tally.polytopes:,}",
            f"{min(tally.classes)} to {max(tally.classes)}",
            *(f"{tally.faults[fault]:,}" for fault in FAULTS),
            number(tally.off),
            number(tally.moved),
            f"{tally.kept / tally.rows:.1%}",
        ]


if __name__ == "__main__":
    sys.exit(main())
