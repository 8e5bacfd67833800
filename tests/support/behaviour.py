"""What the library computes for fixed seeds, kept and compared: for changes that must move no number.

    python -m tests.support.behaviour keep before.json          # once, before anything moves
    python -m tests.support.behaviour compare before.json       # after each step: exit code 1 where a number differs
    python -m tests.support.behaviour compare before.json --only projections

Numbers are compared to the last bit and in the order in which they stand; names of columns, keys and statuses are left
out, since they are what such a change is about.  Times and memory are left out too.  Kept on the machine that compares:
another processor rounds otherwise.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import safekd as kd
from benchmarks.conformance._cases import KINDS, plan
from benchmarks.primal_dual._problems import Problem, table
from solvers import minimize

_ROWS = 2000
_CLASSES = (2, 3, 4, 8, 17, 33)
_MACHINE = re.compile(r"(^|_)(s|seconds|bytes|resident|peak|versions?|hash|created|run_id)$|^memory|^cuda|sha|digest")
_SAFEKD = [sys.executable, "-c", "from safekd.cli import main; main()"]

_TABLES = ["demo/trace.csv", "demo/weights.csv", "demo/frontier.csv", "train/trace.csv", "frontier.csv", "audit.csv"]
_DOCUMENTS = ["demo/verdict.json", "train/verdict.json", "audit.json"]

Numbers = dict[str, list[str]]


def projections() -> Numbers:
    """Return 2,000 projected rows of all kinds of polytope, and gradients of their squares."""
    kept: Numbers = {}
    for number, chunk in enumerate(plan(_ROWS, 0, list(KINDS), _CLASSES)):
        problem = chunk.draw()
        v_BK = problem.v.clone().requires_grad_()
        w_BK = problem.rules.project(v_BK, problem.metric)
        (w_BK.double() ** 2).sum().backward()
        name = f"{number} {chunk.kind}, {chunk.metric}, {chunk.dtype}, K = {chunk.K}"
        kept[name] = [_exact(x) for x in [*w_BK.flatten().tolist(), *v_BK.grad.flatten().tolist()]]
    return kept


def minimizations() -> Numbers:
    """Return points, multipliers and residuals of the problems of the primal-dual benchmark's table."""
    return {problem.name: _minimized(problem) for problem in table()}


def _minimized(problem: Problem) -> list[str]:
    bounds = None if problem.lower is None and problem.upper is None else (problem.lower, problem.upper)
    found = minimize(
        lambda x: problem.evaluate([x])[0],
        problem.start()[0].detach(),
        inequality=(lambda x: problem.evaluate([x])[1]) if problem.M else None,
        equality=(lambda x: problem.evaluate([x])[2]) if problem.E else None,
        bounds=bounds,
    )
    parts = [found.x, found.multipliers, found.equality_multipliers]
    numbers = [float(x) for part in parts for x in part.flatten()]
    residuals = found.residuals
    rest = [residuals.stationarity, residuals.primal, residuals.dual, residuals.complementarity, found.evaluations]
    return [_exact(float(x)) for x in [*numbers, *rest]]


def axioms() -> Numbers:
    """Return how often each axiom was tried and by how much it was missed, of rules of three kinds."""
    generator = torch.Generator().manual_seed(0)
    logits_BKV = torch.randn(64, 3, 5, generator=generator, dtype=torch.float64)
    signals = kd.weights.Signals(entropy=torch.special.entr(torch.softmax(logits_BKV, -1)).sum(-1))
    box = kd.WeightPolytope(3, lower=0.1, upper=0.6)
    rules = {
        "conforming": kd.weights.Conforming(kd.weights.EntropyDecay(), box),
        "raw": kd.weights.EntropyDecay(rate=3.0),
        "unified": kd.weights.Unified(token=kd.weights.EntropyDecay(), polytope=box),
    }
    kept: Numbers = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, rule in rules.items():
            kd.audit(rule, signals, tries=1).to_json(Path(folder) / "report.json")
            kept[name] = _of_json(json.loads((Path(folder) / "report.json").read_text()))
    return kept


def demo() -> Numbers:
    """Return the tables and verdicts of the demo, and of ``safekd train`` and ``frontier`` on its experiment file."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        _run(["demo", "--run-dir", str(top / "demo")])
        config = str(top / "demo" / "config.toml")
        _run(["train", config, "--run-dir", str(top / "train")])
        _run(["frontier", config, "--output", str(top / "frontier.csv")])
        weights = str(top / "demo" / "weights.csv")
        with Path(weights).open(newline="") as file:
            columns = next(csv.reader(file))[-4:]
        teachers = [part for column in columns for part in ("--teacher", column)]
        judged = ["audit", weights, *teachers, "--lower", "0.05", "--upper", "0.55"]
        _run([*judged, "--json", str(top / "audit.json"), "--csv", str(top / "audit.csv")])
        kept = {name: _of_csv(top / name) for name in _TABLES}
        kept |= {name: _of_json(json.loads((top / name).read_text())) for name in _DOCUMENTS}
        points = sorted(path for path in top.rglob("trace.csv") if path.parent.name not in ("demo", "train"))
        return kept | {f"trace of point {number}": _of_csv(path) for number, path in enumerate(points)}


PARTS: dict[str, Callable[[], Numbers]] = {
    "projections": projections,
    "minimizations": minimizations,
    "axioms": axioms,
    "demo": demo,
}


def differences(before: Numbers, now: Numbers) -> Iterator[str]:
    """Yield a line for each place at which two sets of numbers differ."""
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old is None or new is None:
            yield f"{name}: only {'before' if new is None else 'now'}"
        elif len(old) != len(new):
            yield f"{name}: {len(old)} numbers before, {len(new)} now"
        elif old != new:
            at = [place for place, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
            first = f"number {at[0]}: {old[at[0]]} -> {new[at[0]]}"
            yield f"{name}: {len(at)} of {len(old)} numbers differ, first {first}"


def main(arguments: list[str] | None = None) -> int:
    """Keep or compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["keep", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", choices=list(PARTS), action="append", help="this part alone; repeatable")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = {name: PARTS[name]() for name in options.only or PARTS}
    if options.action == "keep":
        options.file.write_text(json.dumps(found))
        return 0
    before = json.loads(options.file.read_text())
    lines = [f"{part}: {line}" for part, now in found.items() for line in differences(before[part], now)]
    count = sum(len(numbers) for now in found.values() for numbers in now.values())
    print("\n".join(lines) if lines else f"identical: {count:,} numbers")
    return 1 if lines else 0


def _run(arguments: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*_SAFEKD, *arguments], capture_output=True, text=True, check=False, env=environment)
    if done.returncode not in (0, 1):
        raise SystemExit(f"safekd {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}{done.stdout}")


def _of_csv(path: Path) -> list[str]:
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    kept = [place for place, name in enumerate(header) if not _MACHINE.search(name)]
    return [_exact(number) for row in rows for place in kept if (number := _number(row[place])) is not None]


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return {"True": 1.0, "False": 0.0}.get(cell)


def _of_json(document: Any) -> list[str]:
    if isinstance(document, dict):
        return [x for name, value in document.items() if not _MACHINE.search(name) for x in _of_json(value)]
    if isinstance(document, list):
        return [x for value in document for x in _of_json(value)]
    return [_exact(float(document))] if isinstance(document, (bool, int, float)) else []


def _exact(number: float) -> str:
    return "nan" if np.isnan(number) else float(number).hex()


if __name__ == "__main__":
    raise SystemExit(main())
