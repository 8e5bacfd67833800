"""The weights that teachers have in an experiment, as a table: before and after projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..weights import Signals
from ._build_experiment import Experiment


@dataclass(frozen=True)
class WeightTableSettings:
    """How many weights are shown; ``tests/safekd/saved_students/test_weight_table.py`` notices.

    Attributes:
        most_rows: Of the training split, drawn at random where it has more: quantiles of ten thousand are exact to a
            hundredth, and every example of a small experiment is there.
    """

    most_rows: int = 10_000


SETTINGS = WeightTableSettings()


def find_training_signals(experiment: Experiment) -> Signals:
    """Return the signals of the training split, as the trainer sees them; of data that stream, those of its sample.

    Args:
        experiment: Data, teachers and evidence.
    """
    train = experiment.splits["train"]
    return experiment.trainer().objective.signals(train, train.batch())


def tabulate_weights(experiment: Experiment) -> pd.DataFrame:
    """Return the weights of training examples: row, class, context, whether orderings apply, raw and conforming.

    One row an example, ten thousand drawn at random where there are more.  ``moved`` is how far projection moved the
    weights, Euclidean; "raw: NAME" is a teacher's weight before, "weight: NAME" after.

    Args:
        experiment: Its training split and weighting rule.
    """
    train = experiment.splits["train"]
    if len(train) > SETTINGS.most_rows:
        train = train.sample(SETTINGS.most_rows, experiment.config.seed)
    batch = train.batch()
    signals = experiment.trainer().objective.signals(train, batch)
    repair = experiment.unified.repair(signals)
    number_N = batch.index.numpy()
    columns: dict[str, Any] = {
        "row": number_N if experiment.stream is not None else experiment.index["train"][number_N],
        "class": np.array(experiment.table.classes)[batch.labels.numpy()],
        "context": np.array(experiment.table.contexts)[batch.context.numpy()],
        "critical": signals.critical.numpy(),
        "moved": repair.distance.numpy(),
    }
    for k, name in enumerate(experiment.ensemble.names):
        columns[f"raw: {name}"] = repair.composed[:, k].numpy()
    for k, name in enumerate(experiment.ensemble.names):
        columns[f"weight: {name}"] = repair.weights[:, k].numpy()
    return pd.DataFrame(columns)
