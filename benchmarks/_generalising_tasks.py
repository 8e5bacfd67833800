"""Two tasks on which a constraint that is met in training is missed on new data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from sklearn.datasets import load_digits

from safekd.config import parse_config
from safekd.demo import demo_config
from safekd.experiment import Experiment, build

DIGITS = """
seed = {seed}
[data]
source = "digits.csv"
label = "digit"
[data.splits]
train = 0.4
audit = 0.1
safety = 0.25
certify = 0.125
test = 0.125
[[teachers]]
name = "logistic, all pixels"
kind = "logistic_regression"
options = {{ max_iter = 300 }}
[[teachers]]
name = "forest, left half"
kind = "random_forest"
features = ["pixel_?_0", "pixel_?_1", "pixel_?_2", "pixel_?_3"]
options = {{ n_estimators = 60, min_samples_leaf = 3 }}
[[teachers]]
name = "neighbours, few of the hard ones"
kind = "k_nearest_neighbours"
keep = {{ three = 0.1, eight = 0.1, nine = 0.1 }}
options = {{ n_neighbors = 9 }}
[weights]
context = "uniform"
[student]
hidden = [32]
[[constraints]]
name = "hard digits"
critical = ["three", "eight", "nine"]
at_least = 0.8
"""
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Task:
    """An experiment by seed.  judge: the split that thresholds are raised by; new: the splits nothing else saw."""

    make: Callable[[int], Experiment]
    judge: str
    about: str
    new: tuple[str, ...] = ("certify", "test")


def _breast_cancer(seed: int) -> Experiment:
    return build(demo_config(seed)[1], Path())


def _digits(seed: int) -> Experiment:
    found = load_digits()
    columns = [f"pixel_{i}_{j}" for i in range(8) for j in range(8)]
    frame = pd.DataFrame(found.data, columns=columns).assign(digit=[_NAMES[label] for label in found.target])
    with tempfile.TemporaryDirectory() as folder:
        frame.to_csv(Path(folder) / "digits.csv", index=False)
        return build(parse_config(DIGITS.format(seed=seed), "digits"), Path(folder))


TASKS = {
    "breast cancer": Task(
        _breast_cancer,
        "audit",
        "The demo: 569 cases, malignant ones at least 0.95. The judge is the audit split, some 42 malignant cases, "
        "on which the teachers were measured too.",
    ),
    "digits": Task(
        _digits,
        "safety",
        "1797 scanned digits (scikit-learn), 3, 8 and 9 at least 0.8. The judge is a split of its own, some 135 such "
        "digits, that nothing else used.",
    ),
}
