"""The table of weights that a run keeps: all of a small split, a part of a large one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from safekd.experiment import _weight_table, build_experiment, find_training_signals, tabulate_weights
from tests.support.cases import load_cases_config


def test_a_large_split_is_sampled_and_rows_stay_their_own(monkeypatch):
    _, config = load_cases_config()
    experiment = build_experiment(config, Path())
    whole = tabulate_weights(experiment).set_index("row")
    assert sorted(whole.index) == experiment.index["train"].tolist()
    monkeypatch.setattr(_weight_table, "SETTINGS", _weight_table.WeightTableSettings(most_rows=40))
    part = tabulate_weights(experiment).set_index("row")
    assert len(part) == 40
    assert part.equals(whole.loc[part.index])
    again = tabulate_weights(experiment).set_index("row")
    assert again.equals(part)


def test_weights_are_those_that_the_trainer_uses():
    _, config = load_cases_config()
    experiment = build_experiment(config, Path())
    table, signals = tabulate_weights(experiment), find_training_signals(experiment)
    names = [f"weight: {name}" for name in experiment.ensemble.names]
    np.testing.assert_array_equal(table[names].to_numpy(), experiment.unified(signals).numpy())
