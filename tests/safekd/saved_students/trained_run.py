"""A run of ``safekd train`` on a table of one's own, trained once for all tests that read it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from safekd.cli import main

CONFIG = """
seed = 3
[data]
source = "cases.csv"
label = "outcome"
features = ["x*"]
[data.context]
column = "age"
names = ["young", "old"]
[data.splits]
train = 0.4
validation = 0.2
certify = 0.3
test = 0.1
[[teachers]]
name = "logistic"
kind = "logistic_regression"
[[teachers]]
name = "forest"
kind = "random_forest"
options = { n_estimators = 10 }
[student]
hidden = [6]
[[constraints]]
name = "sick"
critical = ["sick"]
at_least = 0.7
[[constraints]]
name = "old and sick"
critical = ["sick"]
contexts = ["old"]
at_least = 0.6
[training]
epochs = 150
"""


def make_cases(rows: int, seed: int) -> pd.DataFrame:
    """Return labeled cases: three features, an identifier, an age, and whether somebody is sick."""
    rng = np.random.default_rng(seed)
    x = rng.normal(loc=[5.0, -300.0, 0.01], scale=[1.0, 40.0, 0.002], size=(rows, 3))
    z = (x - [5.0, -300.0, 0.01]) / [1.0, 40.0, 0.002]
    sick = z[:, 0] + z[:, 1] - z[:, 2] + 0.5 * rng.normal(size=rows) > 0
    frame = pd.DataFrame({"id": [f"case {i}" for i in range(rows)], "age": rng.integers(20, 90, size=rows)})
    frame[["x0", "x1", "x2"]] = x
    return frame.assign(outcome=np.where(sick, "sick", "well"))


def train_run(folder: Path) -> Path:
    """Train in a folder, in this process, and return the run folder."""
    make_cases(400, 0).to_csv(folder / "cases.csv", index=False)
    (folder / "mine.toml").write_text(CONFIG)
    run = folder / "run"
    before = sys.argv
    sys.argv = ["safekd", "train", str(folder / "mine.toml"), "--run-dir", str(run)]
    try:
        with pytest.raises(SystemExit) as end:
            main()
    finally:
        sys.argv = before
    assert end.value.code in (0, 1)
    return run
