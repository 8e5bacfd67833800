"""The benchmark of constraints on new data: its tasks are what they say, its report counts what it was given."""

from __future__ import annotations

import pandas as pd
import torch

from benchmarks import generalising
from benchmarks._generalising_tasks import TASKS
from benchmarks.generalising import ARMS, Row, markdown


def row(seed: int, arm: str, new: float, bound: float, said: str) -> Row:
    return Row("digits", seed, arm, 0.9, 0.93, 0.93, 0.91, new, 120, bound, 0.5, 3, said, "converged", 2.0)


def test_the_report_counts():
    said = {0: "not cleared", 1: "cleared"}
    rows = [row(s, arm, 0.89 + 0.02 * s, 0.85 + 0.06 * s, said[s]) for s in (0, 1) for arm in ARMS]
    report = markdown(pd.DataFrame([vars(r) for r in rows]), 2, 400)
    line = next(line for line in report.splitlines() if line.startswith("| tightened"))
    assert "0.900 (0.890 to 0.910) | 1/2 | 1/2 | 0.5000 (0.5000 to 0.5000) | 3.0 | 1/2 | 2.0" in line
    assert next(line for line in report.splitlines() if line.startswith("| as asked")).endswith("| - | 2.0 |")
    assert "New data hold 120 to 120 cases" in report


def test_new_data_are_new():
    """Nothing of them in any split that training or tightening uses."""
    task = TASKS["breast cancer"]
    experiment = task.make(0)
    new = generalising._new(experiment, task)
    used = torch.cat([experiment.splits[name].inputs for name in ("train", task.judge)])
    assert len(new) == len(experiment.splits["certify"]) + len(experiment.splits["test"])
    assert float(torch.cdist(new.inputs, used).min()) > 0
