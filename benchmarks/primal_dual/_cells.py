"""One cell: one contender on one problem, judged on its way.

Seconds are those of the processor, in one thread, so that a busy machine does not change them much; the judge's own do
not count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safekd.training.trace import TracePoint

from ._judge import TOLERANCE, Judgement, judge
from ._problems import Problem
from ._solvers import Solver
from ._steps import Contender
from ._students import StudentTask


@dataclass(frozen=True)
class Cell:
    """What was seen of a contender on a problem.

    scale: of the dual learning rate, or the coefficient of a penalty; first: whether it is the documented setting.
    solved: right answer, residuals within the tolerance, at ``steps`` evaluations and ``seconds``.
    objective, violation: at the end.  feasible: the least objective seen at a violation within the tolerance, NaN if
    there was none.  says: the contender's own words, if it has any.  note: why it did not solve, or did not run.
    """

    problem: str
    family: str
    contender: str
    scale: float = 1.0
    first: bool = True
    solved: bool = False
    steps: int = 0
    seconds: float = math.nan
    objective: float = math.nan
    violation: float = math.nan
    feasible: float = math.nan
    says: str = ""
    note: str = ""


def walk(problem: Problem, who: Contender, scale: float) -> Cell:
    """Let a contender step until the judge is content or its steps or seconds are spent."""
    label = _label(problem, who.name, scale, scale == who.scales[0])
    if problem.truth != "solution":
        return Cell(**label, note="gives no verdicts")
    x = problem.start()
    try:
        walker = who.build(problem, x, scale)
    except ImportError as cause:
        return Cell(**label, note=missing(who.package, cause))
    except NotImplementedError as cause:
        return Cell(**label, note=f"does not apply: {cause}")
    spent, steps, solved_at, least = 0.0, 0, None, math.nan
    while True:
        start = time.process_time()
        for _ in range(problem.every):
            walker.step()
            problem.clip(x)
        spent += time.process_time() - start
        steps += problem.every * walker.cost
        judgement = judge(problem, x, *walker.multipliers())
        if judgement.residuals.primal <= TOLERANCE:
            least = judgement.objective if math.isnan(least) else min(least, judgement.objective)
        if judgement.solved and solved_at is None:
            solved_at = steps, spent
        if (
            (solved_at and not problem.whole)
            or not judgement.finite
            or steps >= problem.steps
            or spent > problem.seconds
        ):
            break
    seen = _describe(judgement, solved_at or (steps, spent))
    if solved_at:
        seen = {**seen, "solved": True, "note": ""}
    return Cell(**label, **seen, feasible=least)


def _label(problem: Problem, name: str, scale: float = 1.0, first: bool = True) -> dict[str, Any]:
    return {
        "problem": problem.name,
        "family": problem.family,
        "contender": name,
        "scale": scale,
        "first": first,
    }


def _describe(judgement: Judgement, spent: tuple[int, float]) -> dict[str, Any]:
    return {
        "solved": judgement.solved,
        "steps": spent[0],
        "seconds": spent[1],
        "objective": judgement.objective,
        "violation": judgement.residuals.primal,
        "note": judgement.fault,
    }


def call(problem: Problem, who: Solver) -> Cell:
    """Let a solver solve the problem, then judge its answer."""
    answer = who.solve(problem)
    judgement = judge(problem, [_shaped(problem, answer.x_n)], answer.lambda_M, answer.mu_E)
    least = judgement.objective if judgement.residuals.primal <= TOLERANCE else math.nan
    seen = _describe(judgement, (answer.evaluations, answer.seconds))
    right = judgement.solved
    if problem.truth != "solution":
        right = answer.says == problem.truth
        seen["note"] = "" if right else f"says: {answer.says}"
    return Cell(**_label(problem, who.name), **{**seen, "solved": right}, feasible=least, says=answer.says)


def _shaped(problem: Problem, x_n: Tensor) -> Tensor:
    return x_n.detach().clone().reshape(problem.start()[0].shape).requires_grad_()


def train(task: StudentTask) -> Cell:
    """Let our trainer, at its defaults, train the student; its own full passes are part of its seconds."""
    trainer, spent = task.trainer(True, None), {}
    start = time.process_time()

    def clock(point: TracePoint) -> None:
        spent[point.step] = time.process_time() - start

    result = trainer.fit(task.train, epochs=task.problem.steps, trace_every=task.problem.every, on_trace=clock)
    columns = ("stationarity", "primal", "dual", "complementarity")
    trace = result.trace
    good = (trace[[f"kkt_{name}" for name in columns]] <= TOLERANCE).all(axis=1)
    multiplier = torch.tensor(list(result.multipliers.values()), dtype=torch.float64)
    judgement = judge(task.problem, list(result.student.parameters()), multiplier, torch.zeros(0))
    met = trace[trace["kkt_primal"] <= TOLERANCE]["distillation_loss"]
    row = trace[good].iloc[0] if good.any() else trace.iloc[-1]
    seen = _describe(judgement, (int(row["step"]), spent[int(row["step"])]))
    least = float(met.min()) if len(met) else math.nan
    name = "ours, ConstrainedTrainer"
    return Cell(**_label(task.problem, name), **seen, feasible=least, says=str(result.status))


def missing(package: str, cause: ImportError) -> str:
    """Return what is missing and how to install it."""
    root = {"cooper-optim": "cooper", "humancompatible-train": "humancompatible"}.get(package, package)
    if isinstance(cause, ModuleNotFoundError) and (cause.name or "").split(".")[0] == root:
        return f"not installed: pip install {package}"
    return f"does not import: {cause}"


def best_of(cells: Sequence[Cell]) -> Cell:
    """Return the best of one contender's cells on one problem: solved in the fewest steps, else nearest to it."""
    solved = [cell for cell in cells if cell.solved]
    if solved:
        return min(solved, key=lambda cell: cell.steps)
    met = [cell for cell in cells if not math.isnan(cell.feasible)]
    return min(met, key=lambda cell: cell.feasible) if met else cells[0]
