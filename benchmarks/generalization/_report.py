"""The report of ``benchmarks.generalization``: counts, means and what they cost, as Markdown."""

from __future__ import annotations

import math

import pandas as pd

from .._timing import processor, today, versions
from ..projection._report import table
from ._tasks import TASKS

LADDER, RECOMMENDED = "ladder of thresholds (before)", 'CrossFit(also=["judge"])'

_HOW = """Written by `python -m benchmarks.generalization --seeds {seeds}`. Students are distilled from teachers of
equal weight under one constraint posed on the training split, {epochs} full-batch steps of Adam a training at most.
Rules were chosen on seeds from 100 on; these are seeds 0 to {last}.

As asked: posed at what is wanted. Ladder: the rule before, up a ladder of at most 6 thresholds, each look at the
judging split at level 1 - 0.05 / 6, and one step back. Cross-fitted for the average: without a margin. The others as
`docs/generalization.md` explains them, with their defaults; `CrossFit(also=["judge"])` is what is recommended. Where
neither "judge" nor "ladder" stands in a name, only the training split was used.

Met: share of students whose average over the new critical cases is at least what was asked for. Error: the mean
standard error of that average, by original for digits. Loss: distillation on the training split, nats, and on new cases
of all kinds. Extra: over "as asked", and as a share of the ladder's. Said cleared: how often, and how many of those are
met. Runs: trainings. Seconds: of processor time. Means over seeds, in brackets the smallest and the largest."""


def markdown(rows: pd.DataFrame, seeds: int, epochs: int) -> str:
    """Return the report."""
    facts = [["date", today()], ["processor", processor()], ["versions", versions(["torch", "scikit-learn", "numpy"])]]
    how = _HOW.format(seeds=seeds, epochs=epochs, last=seeds - 1)
    parts = ["# Does a constraint hold on new data?\n", how + "\n", table(["", ""], facts) + "\n"]
    parts += ["## All tasks\n", _overall(rows) + "\n"]
    for name, task_rows in rows.groupby("task", sort=False):
        cases = f"New data hold {task_rows['cases'].min()} to {task_rows['cases'].max()} critical cases."
        parts += [
            f"## {name}\n",
            f"{TASKS[str(name)].about} {cases}\n",
            _summary(task_rows) + "\n",
            _by_seed(task_rows) + "\n",
        ]
    return "\n".join(parts)


def _overall(rows: pd.DataFrame) -> str:
    tasks = list(rows["task"].unique())
    head = ["", "met", *(f"met: {task}" for task in tasks), *(f"extra: {task}" for task in tasks)]
    lines = []
    for arm, arm_rows in rows.groupby("arm", sort=False):
        by_task = {task: arm_rows[arm_rows["task"] == task] for task in tasks}
        met = [_share(one["new"] >= one["asked"]) for one in by_task.values()]
        extra = [_extra(rows[rows["task"] == task], str(arm)) for task in tasks]
        lines.append([str(arm), _share(arm_rows["new"] >= arm_rows["asked"]), *met, *extra])
    return table(head, lines)


def _summary(task_rows: pd.DataFrame) -> str:
    head = [
        "",
        "posed at",
        "train",
        "new",
        "error",
        "met",
        "loss",
        "extra",
        "new loss",
        "said cleared",
        "runs",
        "seconds",
    ]
    lines = []
    for arm, rows in task_rows.groupby("arm", sort=False):
        met, said = rows["new"] >= rows["asked"], rows["said"] == "cleared"
        cleared = f"{_share(said)}, {int((met & said).sum())} met" if (rows["said"] != "").any() else "-"
        lines.append(
            [
                str(arm),
                *(_spread(rows[column]) for column in ("posed", "train", "new")),
                f"{rows['error'].mean():.3f}",
                _share(met),
                _spread(rows["loss"]),
                _extra(task_rows, str(arm)),
                f"{rows['new_loss'].mean():.3f}",
                cleared,
                f"{rows['runs'].mean():.1f}",
                f"{rows['seconds'].mean():.1f}",
            ]
        )
    return table(head, lines)


def _extra(task_rows: pd.DataFrame, arm: str) -> str:
    loss = task_rows.groupby("arm")["loss"].mean()
    if "as asked" not in loss:
        return "-"
    extra, ladder = loss[arm] - loss["as asked"], loss.get(LADDER, math.nan) - loss["as asked"]
    share = f" ({extra / ladder:.0%})" if ladder > 0 and extra > 0 else ""
    return f"{extra:+.3f}{share}"


def _by_seed(task_rows: pd.DataFrame) -> str:
    arms = [arm for arm in task_rows["arm"].unique() if arm in ("as asked", LADDER, RECOMMENDED)]
    head = ["seed", *(f"{arm}: {what}" for arm in arms for what in ("posed", "new", "loss"))]
    lines = []
    for seed, rows in task_rows.groupby("seed"):
        by_arm = rows.set_index("arm")
        lines.append([str(seed), *(f"{by_arm.loc[arm, c]:.3f}" for arm in arms for c in ("posed", "new", "loss"))])
    return table(head, lines)


def _spread(values: pd.Series) -> str:
    mean, low, high = (f"{value:.3f}" for value in (values.mean(), values.min(), values.max()))
    return f"{mean} ({low} to {high})"


def _share(which: pd.Series) -> str:
    return f"{int(which.sum())}/{len(which)}"
