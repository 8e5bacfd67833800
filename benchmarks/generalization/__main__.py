"""Does a constraint that is met in training hold on new data, and what does it cost to see to it?

    python -m benchmarks.generalization [--seeds 20] [--tasks TASK ...] [--epochs 250] [--out PATH]

Prints a table a task.  Safety on new data is read on 20,000 critical cases that neither training nor any rule used.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import safekd as kd
from safekd.training import FitResult, read_full_pass

from .._timing import report_path
from ._ladder import fit_up_a_ladder
from ._population import Draw
from ._report import markdown
from ._tasks import DEFAULT, TASKS

ARMS = {
    "uniform, no constraint": None,
    "as asked": None,
    "ladder of thresholds (before)": None,
    "cross-fitted for the average (before)": kd.CrossFit(confidence=0.5, rounds=2),
    "CrossFit()": kd.CrossFit(),
    'CrossFit(also=["judge"])': kd.CrossFit(also=["judge"]),
    'Tighten("judge")': kd.Tighten("judge"),
}
TOLERANCE = 3e-3


@dataclass(frozen=True)
class Row:
    """What one student reached.

    posed: its threshold.  train, new: safety on the training split and on new cases; error: standard error of the
    latter, by original where cases are made from some.  loss, new_loss: distillation on the training split and on new
    cases of all kinds.  said: what the rule said, empty where there is none.  runs: how many trainings it took.
    """

    task: str
    seed: int
    arm: str
    asked: float
    posed: float
    train: float
    new: float
    error: float
    cases: int
    loss: float
    new_loss: float
    said: str
    status: str
    runs: int
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print, write; return the exit status."""
    options = _read(arguments)
    torch.set_num_threads(1)  # students are small: threads would wait for each other
    rows = pd.DataFrame([vars(row) for row in _shown(options)])
    report = markdown(rows, options.seeds, options.epochs)
    print(report)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(report, encoding="utf-8")
    return 0


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    what = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generalization", description=what)
    add = parser.add_argument
    add("--seeds", type=int, default=20, help="repetitions, each with data, teachers and students of its own")
    add("--first-seed", type=int, default=0, help="of these; rules were chosen on seeds from 100 on")
    add("--tasks", nargs="+", choices=list(TASKS), default=list(DEFAULT), metavar="TASK", help=", ".join(TASKS))
    add("--epochs", type=int, default=250, help="full-batch steps of a training at most")
    add("--out", type=report_path, help="write the report here")
    return parser.parse_args(arguments)


def _shown(options: argparse.Namespace) -> Iterator[Row]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("teachers", total=len(options.tasks) * options.seeds * len(ARMS))
        for name in options.tasks:
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                draw = TASKS[name].make(seed)
                reader = draw.trainer(False)  # asks the teachers of new cases once
                for arm in ARMS:
                    progress.update(bar, description=f"{name}, seed {seed}, {arm}")
                    yield train(draw, reader, name, arm, seed, options.epochs)
                    progress.advance(bar)


def train(draw: Draw, reader: kd.ConstrainedTrainer, name: str, arm: str, seed: int, epochs: int) -> Row:
    """Train one student as ``arm`` says, and read it on new data; ``reader``: whose student is lent for that."""
    runs = 0

    def count(info: object) -> None:
        nonlocal runs
        runs += getattr(info, "step", 1) == 0  # every run begins with a full pass

    def fit(trainer: kd.ConstrainedTrainer, start: kd.WarmStart | None = None, **more: Any) -> FitResult:
        return trainer.fit(
            draw.train,
            splits={"judge": draw.judge},
            epochs=epochs,
            tolerance=TOLERANCE,
            warm_start=start,
            on_trace=count,
            **more,
        )

    began, rule = time.process_time(), draw.rule
    if arm.startswith("ladder"):
        result, cleared = fit_up_a_ladder(lambda: draw.trainer(True), rule, draw.judge, fit)
        said, posed = "cleared" if cleared else "not cleared", result.point.readings[0].required
    else:
        result = fit(draw.trainer(arm != "uniform, no constraint"), tighten=ARMS[arm])
        raised = result.tightening
        said = "" if raised is None else raised.status.replace("_", " ")
        posed = raised.posed[rule.name] if raised else rule.required
    seconds = time.process_time() - began
    value_N = kd.safety.evaluate_groups(result.student, rule, draw.new)[0].value_P
    return Row(
        task=name,
        seed=seed,
        arm=arm,
        asked=rule.required,
        posed=posed,
        train=float(kd.safety.evaluate_groups(result.student, rule, draw.train)[0].mean),
        new=float(value_N.mean()),
        error=_error(value_N, draw.origins),
        cases=len(value_N),
        loss=result.point.loss,
        new_loss=_loss(draw, reader, result),
        said=said,
        status=result.status,
        runs=runs,
        seconds=seconds,
    )


def _error(value_N: torch.Tensor, origins_N: torch.Tensor | None) -> float:
    """Return the standard error of the average; cases made from one original count as one."""
    if origins_N is not None:
        _, group_N = origins_N.unique(return_inverse=True)
        count_G = torch.bincount(group_N)
        value_N = torch.zeros(len(count_G), dtype=value_N.dtype).index_add(0, group_N, value_N) / count_G
    return float(value_N.std() / len(value_N) ** 0.5)


def _loss(draw: Draw, reader: kd.ConstrainedTrainer, result: FitResult) -> float:
    """Return the distillation loss on new cases of all kinds."""
    reader.student.load_state_dict(result.student.state_dict())
    return read_full_pass(reader.objective, draw.mixed, {}, [], with_gradients=False).loss


if __name__ == "__main__":
    raise SystemExit(main())
