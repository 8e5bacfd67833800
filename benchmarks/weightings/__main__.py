"""Which weighting helps?  Every rule, as it comes and made conforming, on two tasks with something at stake.

    python -m benchmarks.weightings [--seeds 5] [--tasks TASK ...] [--rules RULE ...] [--out PATH]

Plain distillation, without constraints: only the weights differ.  Prints a table a task; differences to uniform weights
are paired by seed, and count as real where their 95 % interval leaves out zero.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.stats import t as student_t

from safekd import ConstrainedTrainer, WeightPolytope
from safekd.weights import Conforming, Normalized, Rule, Unified, find_ordering_violations

from .._timing import processor, report_path, today, versions
from ..projection._report import table
from ._rules import RULES
from ._tasks import TASKS, Task

LOWER, UPPER = 0.05, 0.6
_EPOCHS = 150
_MEASURES = ("accuracy", "safety")


@dataclass(frozen=True)
class Row:
    """What a student reached that was trained with one rule.

    accuracy: in use.  safety: in use, where it matters.  order, bounds: share of training positions whose weights break
    the order of safety (of critical ones), or the bounds.  step: seconds.
    """

    task: str
    rule: str
    conforming: bool
    seed: int
    accuracy: float
    safety: float
    order: float
    bounds: float
    step: float


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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weightings", description=what)
    add = parser.add_argument
    add("--seeds", type=int, default=5, help="repetitions, each with splits, teachers and students of its own")
    add("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK", help=", ".join(TASKS))
    add("--rules", nargs="+", choices=list(RULES), default=list(RULES), metavar="RULE", help=", ".join(RULES))
    add("--epochs", type=int, default=_EPOCHS, help="full-batch steps of each student")
    add("--out", type=report_path, help="write the report here")
    return parser.parse_args(arguments)


def _shown(options: argparse.Namespace) -> Iterator[Row]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    names = list(dict.fromkeys(["Uniform", *options.rules]))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        total = len(options.tasks) * options.seeds * len(names) * 2
        bar = progress.add_task("teachers", total=total)
        for task_name in options.tasks:
            for seed in range(options.seeds):
                task = TASKS[task_name](seed)
                for name in names:
                    progress.update(bar, description=f"{task_name}, seed {seed}, {name}")
                    for conforming in (False, True):
                        yield train(task, name, conforming, seed, options.epochs)
                        progress.advance(bar)


def train(task: Task, name: str, conforming: bool, seed: int, epochs: int) -> Row:
    """Distil one student with one rule, and judge it in use."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rule = RULES[name](task, WeightPolytope(len(task.ensemble), LOWER, UPPER))
    weights = _conforming(rule, task) if conforming else _raw(rule)
    student = task.student()
    trainer = ConstrainedTrainer(
        student,
        task.ensemble,
        weights=weights,
        optimizer=torch.optim.Adam(student.parameters(), lr=0.01),
        evidence=task.evidence,
        critical_contexts=task.critical_contexts,
        critical_classes=task.critical_classes,
        seed=seed,
    )
    start = time.perf_counter()
    result = trainer.fit(task.train, epochs=epochs, tolerance=1e-12, trace_every=epochs)
    step = (time.perf_counter() - start) / int(result.trace["step"].iloc[-1])
    batch = task.use.batch()
    with torch.no_grad():
        log_p_BV = torch.log_softmax(result.student(batch.inputs), dim=-1)
    value_B = task.safety.measured(log_p_BV, batch.labels)
    index = torch.arange(len(task.train))
    signals = trainer.objective.signals(task.train, task.train.batch(index))
    with torch.no_grad():
        w_BK = weights(signals)
    broken_B = find_ordering_violations(w_BK, signals.safety, signals.critical)
    outside_B = ((w_BK < LOWER) | (w_BK > UPPER)).any(-1)
    return Row(
        task.name,
        name,
        conforming,
        seed,
        float((log_p_BV.argmax(-1) == batch.labels).double().mean()),
        float(value_B[task.matters].mean()),
        float(broken_B.sum() / signals.critical.sum()),
        float(outside_B.double().mean()),
        step,
    )


def _raw(rule: Rule) -> Rule:
    """Return the rule with its scores made to sum to one, and nothing else done to them."""
    if isinstance(rule, Unified):
        return rule.compose
    return Normalized(rule)


def _conforming(rule: Rule, task: Task) -> Rule:
    if isinstance(rule, Unified):
        return rule
    return Conforming(rule, WeightPolytope(len(task.ensemble), LOWER, UPPER))


_HOW = """Written by `python -m benchmarks.weightings --seeds {seeds}`. Students are distilled for {epochs} full-batch
steps of Adam from four teachers, without constraints; only the weights differ. Raw: scores divided by their sum.
Conforming: the nearest weights between {lower} and {upper} that keep the order of safety where it is critical. Accuracy
and safety (mean probability of the truth where it matters) are those in use, mean over seeds; beside them what they
differ from uniform weights by, paired by seed, with its 95 % interval (Student's t): **bold** where it leaves out zero.
Of {tests} intervals a table, one in twenty leaves out zero by chance. Order, bounds: share of training positions whose
weights break the order of safety (of the critical ones), the bounds. Step: milliseconds, median over seeds."""


def markdown(rows: pd.DataFrame, seeds: int, epochs: int) -> str:
    """Return the report."""
    facts = {
        "date": today(),
        "processor": processor(),
        "versions": versions(["torch", "scikit-learn", "numpy", "numba"]),
    }
    lines = len(rows.groupby(["rule", "conforming"])) * len(_MEASURES)
    parts = [
        "# Which weighting helps?",
        _HOW.format(seeds=seeds, epochs=epochs, lower=LOWER, upper=UPPER, tests=lines),
        table(["", ""], [[name, fact] for name, fact in facts.items()]),
    ]
    head = ["rule", "", "accuracy", "to uniform", "safety", "to uniform", "order", "bounds", "step"]
    for name, of_task in rows.groupby("task", sort=False):
        parts += [f"## {name}", table(head, list(_lines(of_task))), _summarize(of_task)]
    return "\n\n".join(parts) + "\n"


def _lines(rows: pd.DataFrame) -> Iterator[list[str]]:
    base = rows[(rows["rule"] == "Uniform") & ~rows["conforming"]].set_index("seed")
    for (rule, conforming), arm in rows.groupby(["rule", "conforming"], sort=False):
        cells = [str(rule), "conforming" if conforming else "raw"]
        for measure in _MEASURES:
            cells += [f"{arm[measure].mean():.3f}", difference(arm.set_index("seed")[measure], base[measure]).text]
        cells += [f"{arm[name].mean():.1%}" for name in ("order", "bounds")]
        yield [*cells, f"{1e3 * arm['step'].median():.2f}"]


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences, and half the width of its 95 % interval."""

    mean: float
    half: float

    @property
    def real(self) -> bool:
        """Whether the interval leaves out zero."""
        return abs(self.mean) > self.half

    @property
    def text(self) -> str:
        """As the table shows it."""
        if self.mean == 0 and self.half == 0:
            return "0"
        found = f"{self.mean:+.3f} ± {self.half:.3f}"
        return f"**{found}**" if self.real else found


def difference(values: pd.Series, base: pd.Series) -> Difference:
    """Return what ``values`` are above ``base``, paired by index; one pair has an interval without end."""
    gap = (values - base).dropna()
    n = len(gap)
    half = float(student_t.ppf(0.975, n - 1) * gap.std() / np.sqrt(n)) if n > 1 else float("inf")
    return Difference(float(gap.mean()), half)


def _summarize(rows: pd.DataFrame) -> str:
    """Say what the table says: which rules differ from uniform weights for sure, and what making them conform costs."""
    base = rows[(rows["rule"] == "Uniform") & ~rows["conforming"]].set_index("seed")
    sentences = []
    for measure in _MEASURES:
        found: dict[str, list[str]] = {"better": [], "worse": []}
        for (rule, conforming), arm in rows.groupby(["rule", "conforming"], sort=False):
            gap = difference(arm.set_index("seed")[measure], base[measure])
            if gap.real:
                found["better" if gap.mean > 0 else "worse"].append(str(rule) if conforming else f"{rule} (raw)")
        said = "; ".join(f"{how}: {', '.join(names)}" for how, names in found.items() if names)
        sentences.append(f"{measure.capitalize()} beyond chance - {said or 'no rule'}.")
    pairs = rows.pivot_table(index=["rule", "seed"], columns="conforming", values=list(_MEASURES))
    for measure in _MEASURES:
        cost = difference(pairs[measure][True], pairs[measure][False])
        sentences.append(f"Making a rule conform changes {measure} by {cost.text} on average over rules and seeds.")
    return " ".join(sentences)


if __name__ == "__main__":
    raise SystemExit(main())
