"""Does a constraint that is met in training hold on new data?  As asked, tightened, and cross-fitted, seed by seed.

    python -m benchmarks.generalising [--seeds 10] [--tasks TASK ...] [--epochs 400] [--out PATH]

Prints a table a task.  Safety on new data is read on the splits that neither training nor tightening used.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import safekd as kd
from safekd.experiment import Experiment
from safekd.trainer import FitResult

from ._generalising_tasks import TASKS, Task
from ._projection_report import table
from ._timing import processor, today, versions

ARMS = ("as asked", "tightened", "cross-fitted")
CONFIDENCE, LOOKS = 0.95, 6
FOLDS, ROUNDS = 5, 5
TOLERANCE = 3e-3


@dataclass(frozen=True)
class Row:
    """What one student reached.

    posed: its threshold.  train, judge, new: safety on the training split, on the split that judges, on the splits that
    nothing else saw.  bound: lower bound there.  said: what tightening said, empty as asked.
    """

    task: str
    seed: int
    arm: str
    asked: float
    posed: float
    train: float
    judge: float
    new: float
    cases: int
    bound: float
    loss: float
    looks: int
    said: str
    status: str
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generalising", description=what)
    add = parser.add_argument
    add("--seeds", type=int, default=10, help="repetitions, each with splits, teachers and students of its own")
    add("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK", help=", ".join(TASKS))
    add("--epochs", type=int, default=400, help="full-batch steps of a round at most")
    add("--out", type=Path, help="write the report here")
    return parser.parse_args(arguments)


def _shown(options: argparse.Namespace) -> Iterator[Row]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("teachers", total=len(options.tasks) * options.seeds * len(ARMS))
        for name in options.tasks:
            for seed in range(options.seeds):
                experiment = TASKS[name].make(seed)
                for arm in ARMS:
                    progress.update(bar, description=f"{name}, seed {seed}, {arm}")
                    yield train(experiment, name, arm, seed, options.epochs)
                    progress.advance(bar)


def train(experiment: Experiment, name: str, arm: str, seed: int, epochs: int) -> Row:
    """Train one student, and read it on every split."""
    task, rule = TASKS[name], experiment.constraints[0]
    tighten = {
        "as asked": None,
        "tightened": kd.Tighten(task.judge, CONFIDENCE, LOOKS),
        "cross-fitted": kd.CrossFit(folds=FOLDS, rounds=ROUNDS),
    }[arm]
    began = time.process_time()
    result = experiment.trainer().fit(
        experiment.train,
        experiment.audit,
        splits=experiment.others,
        epochs=epochs,
        tolerance=TOLERANCE,
        tighten=tighten,
    )
    seconds = time.process_time() - began
    raised = result.tightening
    certificate = kd.certify(result, rule, _new(experiment, task), CONFIDENCE)
    return Row(
        task=name,
        seed=seed,
        arm=arm,
        asked=rule.required,
        posed=rule.required if raised is None else raised.posed[rule.name],
        train=_safety(result, rule, experiment.train),
        judge=_safety(result, rule, experiment.splits[task.judge]),
        new=certificate.estimate,
        cases=certificate.count,
        bound=certificate.lower_bound,
        loss=result.point.loss,
        looks=0 if raised is None else raised.looks,
        said="" if raised is None else raised.status.replace("_", " "),
        status=result.status,
        seconds=seconds,
    )


def _new(experiment: Experiment, task: Task) -> kd.Split:
    """Return the splits that nothing else saw as one."""
    parts = [experiment.splits[name] for name in task.new]
    contexts = torch.cat([part.batch().context for part in parts])
    return kd.Split("new", torch.cat([p.inputs for p in parts]), torch.cat([p.labels for p in parts]), context=contexts)


def _safety(result: FitResult, rule: kd.SafetyConstraint, data: kd.Split) -> float:
    return kd.certify(result.student, rule, data).estimate  # the average only: on data that were used a bound is none


_HOW = """Written by `python -m benchmarks.generalising --seeds {seeds}`. Every student is distilled under one
constraint posed on the training split, {epochs} full-batch steps of Adam a round at most, residuals within
{tolerance:g}. As asked: the threshold is what is wanted. Tightened: `kd.Tighten(confidence={confidence:g},
looks={looks})`. Cross-fitted: `kd.CrossFit(folds={folds}, rounds={rounds})`. Train, judge, new: safety on the training
split, on the split that judges, and on two splits that neither training nor tightening used. Met: new is at least what
is asked for. Shown: its {confidence:.0%} lower bound is. Loss: distillation, training split, nats. Looks: at the judge.
Means over seeds, in brackets the smallest and the largest. Seconds: of processor time."""


def markdown(rows: pd.DataFrame, seeds: int, epochs: int) -> str:
    """Return the report."""
    facts = [["date", today()], ["processor", processor()], ["versions", versions(["torch", "scikit-learn", "numpy"])]]
    how = _HOW.format(
        seeds=seeds,
        epochs=epochs,
        tolerance=TOLERANCE,
        confidence=CONFIDENCE,
        looks=LOOKS,
        folds=FOLDS,
        rounds=ROUNDS,
    )
    parts = ["# Does a constraint hold on new data?\n", how + "\n", table(["", ""], facts) + "\n"]
    for name, found in rows.groupby("task", sort=False):
        cases = f"New data hold {found['cases'].min()} to {found['cases'].max()} cases that count."
        parts += [f"## {name}\n", f"{TASKS[str(name)].about} {cases}\n", _summary(found) + "\n", _by_seed(found) + "\n"]
    return "\n".join(parts)


def _summary(found: pd.DataFrame) -> str:
    head = ["", "posed at", "train", "judge", "new", "met", "shown", "loss", "looks", "says cleared", "seconds"]
    lines = []
    for arm, rows in found.groupby("arm", sort=False):
        said = "-" if arm == "as asked" else _share(rows["said"] == "cleared")
        spread = [_spread(rows[column]) for column in ("posed", "train", "judge", "new")]
        met, shown = _share(rows["new"] >= rows["asked"]), _share(rows["bound"] >= rows["asked"])
        costs = [_spread(rows["loss"], 4), f"{rows['looks'].mean():.1f}", said, f"{rows['seconds'].mean():.1f}"]
        lines.append([str(arm), *spread, met, shown, *costs])
    return table(head, lines)


def _by_seed(found: pd.DataFrame) -> str:
    head = ["seed", *(f"{arm}: {what}" for arm in ARMS for what in ("posed", "new", "loss"))]
    lines = []
    for seed, rows in found.groupby("seed"):
        by_arm = rows.set_index("arm")
        cells = [f"{by_arm.loc[arm, c]:.{4 if c == 'loss' else 3}f}" for arm in ARMS for c in ("posed", "new", "loss")]
        lines.append([str(seed), *cells])
    return table(head, lines)


def _spread(values: pd.Series, digits: int = 3) -> str:
    mean, low, high = (f"{value:.{digits}f}" for value in (values.mean(), values.min(), values.max()))
    return f"{mean} ({low} to {high})"


def _share(which: pd.Series) -> str:
    return f"{int(which.sum())}/{len(which)}"


if __name__ == "__main__":
    raise SystemExit(main())
