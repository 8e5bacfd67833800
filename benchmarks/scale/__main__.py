"""What do size and number cost?  Peak memory and time of a step and of an evaluation, beside a plain loop and Cooper.

    python -m benchmarks.scale [--largest 1e8] [--longest 1e7] [--steps 10] [--budget MiB] [--out PATH]

Three series: students of 1e5 to 1e8 parameters; 1 to 100 constraints; streams of 1e4 to 1e7 examples.  Bytes are beyond
those of the student and its optimizer.  Exponents are slopes of logarithms by least squares.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from .._timing import ChildDied, exponent, in_child, processor, report_path, today, versions
from ..projection._report import table
from ._cells import BUDGET, WAYS, Cost, Size, measure

SHARE = 0.03  # of the time, for evaluations
FACTOR = 2.0  # of the parameters' own bytes, for an evaluation beyond the peak of a step
LINEAR, INDEPENDENT = 1.1, 0.1  # exponents that count as at most linear, and as none
GRAIN = 1e6  # bytes: what differs by less is the allocator's, so exponents see no less than this
_HEAD = ["n", "M", "N", "way", "step, ms", "step, MB", "evaluation, s", "evaluation, MB", "bytes / parameter",
         "beyond a step, bytes / parameter", "share"]  # fmt: skip
_PATIENCE = 900.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; return 1 where a goal is missed."""
    options = _read(arguments)
    costs = list(_run_all(options))
    report, missed = write_report(costs)
    print(report)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
    return int(bool(missed))


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--largest", type=float, default=1e8, help="parameters of the largest student")
    parser.add_argument("--longest", type=float, default=1e7, help="examples of the longest stream")
    parser.add_argument("--most", type=int, default=100, help="constraints at most")
    parser.add_argument("--steps", type=int, default=10, help="steps that are timed")
    parser.add_argument("--budget", type=int, default=BUDGET >> 20, help="MiB that an evaluation may hold for evidence")
    parser.add_argument("--out", type=report_path, help="write the report here")
    return parser.parse_args(arguments)


def list_sizes(largest: float, longest: float, most: int) -> dict[str, list[Size]]:
    """Return the sizes of each series."""
    students = [n for n in (10**5, 10**6, 10**7, 10**8) if n <= largest]
    streams = [N for N in (10**4, 10**5, 10**6, 10**7) if longest >= N]
    counts = [M for M in (1, 3, 10, 30, 100) if most >= M]
    return {
        "parameters": [Size(n, 3, 10_000, 64) for n in students],
        "constraints": [Size(10**5, M, 10_000, 256) for M in counts],
        "examples": [Size(10**4, 3, N, 1000) for N in streams],
    }


def _run_all(options: argparse.Namespace) -> Iterator[tuple[str, Cost]]:
    for series, sizes in list_sizes(options.largest, options.longest, options.most).items():
        for size in sizes:
            for way in WAYS:
                try:
                    for cost in in_child(measure, size, way, options.steps, options.budget << 20, patience=_PATIENCE):
                        yield series, cost
                except ChildDied as error:
                    print(f"{size} {way}: {error}")


def write_report(costs: Sequence[tuple[str, Cost]]) -> tuple[str, list[str]]:
    """Return the report, and the goals that are missed."""
    parts, missed = [], []
    for series, axis in (("parameters", "n"), ("constraints", "M"), ("examples", "N")):
        mine = [cost for name, cost in costs if name == series]
        ours = [cost for cost in mine if cost.way == "ours" and cost.evaluation_bytes is not None]
        slopes = _fit_exponents(ours, axis)
        parts += [f"## {series}\n", table(_HEAD, [_row(cost) for cost in mine]), ""]
        parts += [f"{what}: exponent {'-' if k is None else f'{k:.2f}'} in {axis}\n" for what, k in slopes.items()]
        missed += _find_missed(axis, ours, slopes["evaluation, memory"])
    head = [
        "# Size: what parameters, constraints and examples cost\n",
        f"`python -m benchmarks.scale`, {today()}; {processor()}, one thread; {versions(['torch', 'cooper-optim'])}.\n",
        "Bytes are beyond those of the student and Adam's moments, which each way holds.  What an evaluation holds",
        "beyond the peak of a step has a column of its own.  Up to the budget an evaluation holds each constraint's",
        "gradient in float64, beyond it two vectors; the goal of memory is judged at the largest student.\n",
    ]
    goals = [f"- missed: {text}" for text in missed] or ["- every goal is met"]
    return "\n".join([*head, *parts, "## Goals\n", *goals, ""]), missed


def _fit_exponents(ours: Sequence[Cost], axis: str) -> dict[str, float | None]:
    sizes = [float(cost.parameters if axis == "n" else getattr(cost.size, axis)) for cost in ours]
    values = {
        "step, time": [cost.step_s for cost in ours],
        "evaluation, time": [cost.evaluation_s for cost in ours],
        "evaluation, memory": [max(cost.evaluation_bytes or 0.0, GRAIN) for cost in ours],
    }
    return {what: exponent(sizes, numbers) for what, numbers in values.items()}


def _find_missed(axis: str, ours: Sequence[Cost], memory_exponent: float | None) -> list[str]:
    """Return the goals that one series misses: of time in each cell, of memory over all of them and at the largest."""
    missed = [
        f"{cost.size}: evaluations take {cost.share:.1%} of the time; goal {SHARE:.0%}"
        for cost in ours
        if not cost.share <= SHARE
    ]
    most = {"n": LINEAR, "N": INDEPENDENT}.get(axis)
    if most is not None and memory_exponent is not None and not memory_exponent <= most:
        missed.append(f"memory of an evaluation grows with exponent {memory_exponent:.2f} in {axis}; goal {most:g}")
    for cost in ours[-1:] if axis == "n" else []:
        factor = (cost.beyond_step_bytes or 0) / (4 * cost.parameters)
        if not factor <= FACTOR:
            missed.append(
                f"{cost.size}: an evaluation holds {factor:.2f} times the parameters beyond a step; goal {FACTOR:g}"
            )
    return missed


def _row(cost: Cost) -> list[str]:
    ours = cost.interval is not None
    held = cost.evaluation_bytes
    return [
        f"{cost.parameters:,}",
        str(cost.size.M),
        f"{cost.size.N:,}",
        cost.way,
        f"{1e3 * cost.step_s:.2f}",
        "-" if cost.step_bytes is None else f"{cost.step_bytes / 1e6:.1f}",
        f"{cost.evaluation_s:.2f}" if ours else "-",
        f"{held / 1e6:.1f}" if ours and held is not None else "-",
        f"{held / cost.parameters:.1f}" if ours and held is not None else "-",
        "-" if cost.beyond_step_bytes is None else f"{cost.beyond_step_bytes / cost.parameters:.1f}",
        f"{cost.share:.2%}" if ours else "-",
    ]


if __name__ == "__main__":
    raise SystemExit(main())
