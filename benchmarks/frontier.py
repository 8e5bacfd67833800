"""What does a frontier of 16 points cost by warm starts, and what by 16 runs from scratch?

    python -m benchmarks.frontier [--targets 16] [--out docs/benchmarks/frontier.md]

One run traces the five known frontiers of the tests with ``solvers.trace_frontier``, then solves the same targets one
by one with ``solvers.minimize`` and with scipy's SLSQP (the epsilon loop that people write by hand), each from the same
start.  Evaluations count points at which the functions were called; ends, other starts and checks are part of a trace.
Errors are against the formula, in units of the range.  Asserts nothing about time.  Then the same for training: the
demo's student by ``kd.trace_frontier``, each run begun where its neighbour ended, and every run from scratch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize as scipy_minimize
from torch import Tensor

import safekd as kd
from safekd.demo import load_demo_config
from safekd.experiment import build_experiment
from solvers import minimize, trace_frontier

from ._timing import processor, report_path, today, versions

_TOLERANCE = 2.5e-4  # finer than the demo's: warm and cold runs then end at the same numbers

Value = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Front:
    """A problem with a known frontier.  exact: the objective at levels of ``constrained``."""

    name: str
    objective: Value
    constrained: Value
    x0: Tensor
    bounds: tuple[Any, Any] | None
    exact: Callable[[Any], Any]


@dataclass(frozen=True)
class Cost:
    """evaluations, seconds; worst: largest error of an objective or a violation; solved: rows within 1e-4."""

    evaluations: int
    seconds: float
    worst: float
    solved: int


def fronts() -> list[Front]:
    """Return the five: Zitzler, Deb and Thiele 2000 (two), Fonseca and Fleming 1995, Binh and Korn 1997, Schaffer."""

    def spread(x: Tensor) -> Tensor:
        return 1 + 9 * x[1:].mean()

    def gauss(x: Tensor, centre: float) -> Tensor:
        return 1 - torch.exp(-((x - centre) ** 2).sum())

    def binh(e: Any) -> Any:
        return np.where(e <= 72, 2 * (5 - np.sqrt(e / 8)) ** 2, 4 + (5 - np.sqrt((e - 36).clip(0) / 4)) ** 2)

    half, root = torch.full((30,), 0.5, dtype=torch.float64), 3**-0.5
    pair, one = torch.ones(2, dtype=torch.float64), torch.full((1,), 5.0, dtype=torch.float64)
    side = torch.tensor([5.0, 3.0], dtype=torch.float64)
    return [
        Front("ZDT1", lambda x: spread(x) * (1 - (x[0] / spread(x)).sqrt()), lambda x: x[0], half, (0.0, 1.0),
              lambda e: 1 - np.sqrt(e)),
        Front("ZDT2", lambda x: spread(x) * (1 - (x[0] / spread(x)) ** 2), lambda x: x[0], half, (0.0, 1.0),
              lambda e: 1 - e**2),
        Front("Fonseca and Fleming", lambda x: gauss(x, -root), lambda x: gauss(x, root),
              torch.zeros(3, dtype=torch.float64), (-4.0, 4.0),
              lambda e: 1 - np.exp(-((2 - np.sqrt(-np.log(1 - e))) ** 2))),
        Front("Binh and Korn", lambda x: ((x - 5) ** 2).sum(), lambda x: 4 * (x**2).sum(), pair, (0.0, side), binh),
        Front("Schaffer", lambda x: ((x - 2) ** 2).sum(), lambda x: (x**2).sum(), one, None,
              lambda e: (2 - np.sqrt(e)) ** 2),
    ]  # fmt: skip


def traced(front: Front, targets: int, starts: int) -> tuple[Cost, list[float]]:
    """Trace a frontier; return what it cost, and its targets."""
    began = time.perf_counter()
    f = trace_frontier(
        front.objective, front.constrained, front.x0, bounds=front.bounds, targets=targets, starts=starts
    )
    seconds = time.perf_counter() - began
    rows = f.table[~f.table["filled"]]
    return _cost(front, rows["target"], rows["objective"], rows["constrained"], f.evaluations, seconds), list(
        rows["target"]
    )


def one_by_one(front: Front, targets: list[float]) -> Cost:
    """Solve every target from x0 with ``solvers.minimize``."""
    began, evaluations, points = time.perf_counter(), 0, []
    for e in targets:
        s = minimize(
            front.objective,
            front.x0,
            inequality=lambda x, e=e: (front.constrained(x) - e).reshape(1),
            bounds=front.bounds,
        )
        evaluations += s.evaluations
        points.append(s.x)
    return _of_points(front, targets, points, evaluations, time.perf_counter() - began)


def by_slsqp(front: Front, targets: list[float], *, warm: bool) -> Cost:
    """Solve every target with scipy's SLSQP and gradients by torch, from x0 or from the last answer."""
    count = 0

    def with_gradient(value: Value) -> Callable[[Any], tuple[float, Any]]:
        def call(x_n: Any) -> tuple[float, Any]:
            nonlocal count
            count += 1
            x = torch.from_numpy(np.array(x_n)).requires_grad_()
            y = value(x).reshape(())
            (gradient,) = torch.autograd.grad(y, x)
            return float(y.detach()), gradient.numpy()

        return call

    began, points, x = time.perf_counter(), [], front.x0
    objective, constrained = with_gradient(front.objective), with_gradient(front.constrained)
    low, high = front.bounds if front.bounds is not None else (-np.inf, np.inf)
    box = [(float(a), float(b)) for a, b in zip(*(torch.as_tensor(s).expand(len(x)) for s in (low, high)), strict=True)]
    for e in sorted(targets, reverse=True):
        row = {
            "type": "ineq",
            "fun": lambda z, e=e: e - constrained(z)[0],
            "jac": lambda z: -constrained(z)[1],
        }
        answer = scipy_minimize(
            objective, (x if warm else front.x0).numpy(), jac=True, method="SLSQP", bounds=box, constraints=[row],
            options={"ftol": 1e-10, "maxiter": 500},
        )  # fmt: skip
        point = torch.from_numpy(np.clip(answer.x, *np.array(box).T))
        points.append(point)
        x = point if bool(torch.isfinite(point).all()) else front.x0
    return _of_points(front, sorted(targets, reverse=True), points, count // 2, time.perf_counter() - began)


def _of_points(front: Front, targets: list[float], points: list[Tensor], evaluations: int, seconds: float) -> Cost:
    values = [(float(front.objective(x)), float(front.constrained(x))) for x in points]
    return _cost(front, targets, [f for f, _ in values], [c for _, c in values], evaluations, seconds)


def _cost(front: Front, targets: Any, f: Any, c: Any, evaluations: int, seconds: float) -> Cost:
    e_N, f_N, c_N = (np.asarray(column, dtype=np.float64) for column in (targets, f, c))
    exact_N = front.exact(e_N)
    off_N = np.abs(f_N - exact_N) / np.ptp(exact_N)
    missed_N = np.maximum(off_N, (c_N - e_N) / np.ptp(e_N))
    missed_N = np.where(np.isfinite(missed_N), missed_N, np.inf)
    return Cost(evaluations, seconds, float(missed_N.max()), int((missed_N <= 1e-4).sum()))


def trained(targets: int) -> list[str]:
    """Trace the demo's frontier warm and cold, to the same residuals; return a table as Markdown."""
    _, config = load_demo_config()
    experiment, settings = build_experiment(config, Path()), config.frontier
    lines, cold_steps = [], 0
    for who, warm in (("from scratch", False), ("warm starts", True)):
        began = time.perf_counter()
        frontier = kd.trace_frontier(
            experiment.trainer_at,
            experiment.train,
            targets=targets,
            highest=settings.highest,
            epochs=settings.epochs,
            tolerance=_TOLERANCE,
            warm=warm,
        )
        seconds = time.perf_counter() - began
        steps, table = int(frontier.table["steps"].sum()), frontier.table
        cold_steps = cold_steps or steps
        residuals = table.filter(like="kkt_").to_numpy().max()
        done = int(table["status"].isin(["converged", "anchor", "redundant", "taken"]).sum())
        lines.append(
            f"| {who} | {frontier.meta['runs']} | {steps} | {steps / cold_steps:.2f} | {seconds:.1f} | "
            f"{done}/{len(table)} | {residuals:.1e} | {frontier.hypervolume((1.0, 0.0)):.6f} |"
        )
    return [
        "",
        f"## The demo's student, {targets} thresholds up to {settings.highest:g}",
        "",
        f"`kd.trace_frontier`, breast cancer: tolerance {_TOLERANCE:g}, {settings.epochs} steps a run at most.",
        "Converged: with anchor and rows that another one's student meets.  Hypervolume: at (1, 0).",
        "",
        "| runs begin | runs | steps | of those from scratch | seconds | converged | worst residual | hypervolume |",
        "|---|---|---|---|---|---|---|---|",
        *lines,
    ]


def report(targets: int) -> str:
    """Measure all and return the table as Markdown."""
    lines = [
        f"# A frontier of {targets} points: warm starts, and runs from scratch",
        "",
        f"{today()}, {processor()}, one thread; {versions(['torch', 'numpy', 'scipy'])}.",
        "`python -m benchmarks.frontier`.  Evaluations are points at which the functions were called (SLSQP: half the",
        "calls of objective and row).  Solved: rows whose objective is within 1e-4 of the formula, in units of the",
        "range, and whose row is violated by no more.  The left end is vertical in four of the five: no multiplier",
        "exists there, which is what costs runs from scratch most.  Defaults spend some solves on a look for other",
        "minima, which neither starts=1 nor the runs from scratch do.",
        "",
        "| problem | who | evaluations | of ours from scratch | seconds | solved | worst error |",
        "|---|---|---|---|---|---|---|",
    ]
    for front in fronts():
        ours, levels = traced(front, targets, 1)
        looked, _ = traced(front, targets, 4)
        cold = one_by_one(front, levels)
        rows = {
            "trace_frontier, starts=1": ours,
            "trace_frontier, defaults": looked,
            "minimize, from scratch": cold,
            "SLSQP, warm": by_slsqp(front, levels, warm=True),
            "SLSQP, from scratch": by_slsqp(front, levels, warm=False),
        }
        for who, cost in rows.items():
            share = f"{cost.evaluations / cold.evaluations:.2f}"
            lines.append(
                f"| {front.name} | {who} | {cost.evaluations} | {share} | {cost.seconds:.2f} | "
                f"{cost.solved}/{targets} | {cost.worst:.1e} |"
            )
    return "\n".join(lines + trained(targets)) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frontier", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--targets", type=int, default=16, help="points of each frontier")
    parser.add_argument("--out", type=report_path, help="write the report here")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    text = report(options.targets)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
