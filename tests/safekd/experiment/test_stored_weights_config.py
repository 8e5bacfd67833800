"""An experiment file that names weights in a file, a divergence and a pool."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import safekd as kd
from safekd.divergences import ReverseKL
from safekd.experiment import build_experiment
from safekd.experiment.config import load_config
from safekd.pooling import geometric_pool

ROWS = 120
CONFIG = """
[data]
source = "cases.csv"
label = "outcome"
[[teachers]]
name = "forest"
kind = "logistic_regression"
features = ["x0"]
[[teachers]]
name = "net"
kind = "logistic_regression"
features = ["x1"]
[weights]
stored = "sub/w.csv"
lower = 0.1
upper = 0.9
WEIGHTS
[student]
hidden = []
[[constraints]]
name = "sick"
critical = ["sick"]
at_least = 0.5
[training]
epochs = 5
TRAINING
"""


def write(folder, weights="", training="", columns=("net", "forest"), rows=ROWS):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 2))
    label = np.where(x.sum(1) + rng.normal(size=ROWS) > 0, "sick", "well")
    pd.DataFrame(x, columns=["x0", "x1"]).assign(outcome=label).to_csv(folder / "cases.csv", index=False)
    (folder / "sub").mkdir(exist_ok=True)
    share = 0.2 + 0.6 * np.arange(rows) / ROWS
    pd.DataFrame({columns[0]: share, columns[1]: 1 - share}).to_csv(folder / "sub" / "w.csv", index=False)
    (folder / "mine.toml").write_text(CONFIG.replace("WEIGHTS", weights).replace("TRAINING", training))
    return folder / "mine.toml"


def test_each_split_gets_the_rows_of_its_examples(tmp_path):
    """Weights rise with the row of the data; splits hold rows in order, so their weights rise too, and none twice."""
    experiment = build_experiment(*load_config(write(tmp_path)))
    seen = []
    for split in experiment.splits.values():
        signals = experiment.trainer().objective.signals(split, split.batch(torch.arange(len(split))))
        weights_NK = experiment.unified.token(signals)  # the repair orders teachers by safety where that matters
        assert bool((weights_NK[:, 1].diff() > 0).all())  # the second teacher is "net", whose column comes first
        seen += weights_NK[:, 1].tolist()
    assert sorted(seen) == pytest.approx((0.2 + 0.6 * np.arange(ROWS) / ROWS).tolist(), abs=1e-6)


def test_a_student_is_trained_with_them(tmp_path):
    experiment = build_experiment(*load_config(write(tmp_path)))
    result = experiment.trainer().fit(experiment.train, validation=experiment.validation, epochs=5)
    assert result.point.finite


def test_divergence_and_pool_by_name(tmp_path):
    path = write(tmp_path, 'pool = "geometric"', 'divergence = "reverse_kl"\ntemperature = 2.0')
    objective = build_experiment(*load_config(path)).trainer().objective
    assert objective.pooling is geometric_pool
    assert objective.divergence == ReverseKL(2.0)


REFUSED = {
    "another teacher": ({"columns": ("net", "tree")}, r"w\.csv has no column for teacher 'forest'; it has: net, tree"),
    "too few rows": ({"rows": ROWS - 1}, r"have 119 rows, split 'data' has 120 examples"),
    "with a rule": (
        {"weights": 'token = "uniform"'},
        "stands in place of the rules of all scales; remove `token`",
    ),
    "an unknown pool": ({"weights": 'pool = "geometrc"'}, "there is no pool of that name; did you mean 'geometric'"),
    "an unknown divergence": ({"training": 'divergence = "kl"'}, "there is no divergence of that name"),
    "stored as a rule": ({"weights": 'task = "stored"'}, "there is no task rule of that name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(tmp_path, case):
    given, message = REFUSED[case]
    with pytest.raises(kd.InvalidInput, match=message):
        build_experiment(*load_config(write(tmp_path, **given)))


def test_a_file_that_is_not_there(tmp_path):
    path = write(tmp_path)
    (tmp_path / "sub" / "w.csv").unlink()
    with pytest.raises(kd.InvalidInput, match=r"w\.csv"):
        build_experiment(*load_config(path))
