"""An experiment file whose stored teachers and weights are found by a key, in whatever order their rows are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from safekd.errors import InvalidConfig, InvalidInput
from safekd.experiment import build_experiment
from safekd.experiment.config import load_config

N = 200
CONFIG = """
[data]
source = "cases.SUFFIX"
label = "outcome"
key = "id"
MORE
[[teachers]]
name = "api"
kind = "stored"
path = "api.STORED"
key = "case"
[[teachers]]
name = "fitted"
kind = "logistic_regression"
[weights]
stored = "w.STORED"
key = "case"
[student]
hidden = []
[[constraints]]
name = "sick"
critical = ["sick"]
at_least = 0.5
[training]
epochs = 2
batch_size = 50
"""
draw = np.random.default_rng(0)
FRAME = pd.DataFrame(draw.normal(size=(N, 2)), columns=["x0", "x1"])
FRAME["outcome"] = np.where(FRAME["x0"] + draw.normal(size=N) > 0.5, "sick", "well")
FRAME["id"] = draw.permutation(1000)[:N] + 1000  # whole numbers
SICK = draw.uniform(0.1, 0.9, size=N)
API = pd.DataFrame({"case": FRAME["id"], "well": 1 - SICK, "sick": SICK})
WEIGHTS = pd.DataFrame({"case": FRAME["id"], "fitted": SICK, "api": 1 - SICK})
OTHERS = pd.DataFrame({"case": [1, 2], "well": 0.5, "sick": 0.5})


def store(frame, path):
    frame.to_parquet(path, index=False) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


def build(folder, suffix="csv", stored="csv", more="", config=CONFIG, **frames):
    tables = {"cases": FRAME, "api": API.sample(frac=1, random_state=0), "w": WEIGHTS.sample(frac=1, random_state=1)}
    for name, frame in (tables | frames).items():
        store(frame, folder / f"{name}.{suffix if name == 'cases' else stored}")
    text = config.replace("SUFFIX", suffix).replace("STORED", stored).replace("MORE", more)
    (folder / "mine.toml").write_text(text)
    return build_experiment(*load_config(folder / "mine.toml"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("stored", ["csv", "parquet"])
def test_rows_are_found_by_their_keys(tmp_path, suffix, stored):
    experiment = build(tmp_path, suffix, stored)
    assert experiment.table.features == ["x0", "x1"]
    for name, split in experiment.splits.items():
        rows = experiment.index[name]
        said = experiment.ensemble.log_probabilities(split.batch(), name)[:, 0].exp()
        np.testing.assert_allclose(said[:, 0], SICK[rows], rtol=1e-5)
        signals = experiment.trainer().objective.signals(split, split.batch(torch.arange(len(split))))
        np.testing.assert_allclose(experiment.unified.token(signals)[:, 1], SICK[rows], rtol=1e-5)


def test_a_file_may_have_rows_of_other_examples(tmp_path):
    experiment = build(tmp_path, api=pd.concat([OTHERS, API]))
    split = experiment.validation
    said = experiment.ensemble.log_probabilities(split.batch(), split.name)[:, 0].exp()
    np.testing.assert_allclose(said[:, 0], SICK[experiment.index["validation"]], rtol=1e-5)


def test_it_is_the_run_with_rows_in_the_order_of_the_data(tmp_path):
    keyed = build(tmp_path)
    ordered = CONFIG.replace('key = "case"\n', "").replace('key = "id"\n', "")
    other = build(
        tmp_path,
        config=ordered,
        cases=FRAME.drop(columns="id"),
        api=API.drop(columns="case"),
        w=WEIGHTS.drop(columns="case"),
    )
    results = [one.trainer().fit(one.train, one.validation, epochs=2).student.state_dict() for one in (keyed, other)]
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name])


FIRST = str(FRAME["id"][0])
REFUSED = {
    "a key twice in the data": (
        {"cases": FRAME.assign(id=[*FRAME["id"][:5], FRAME["id"][0], *FRAME["id"][6:]])},
        rf"cases\.csv, column 'id': lines 2 and 7 have the same key '{FIRST}'",
    ),
    "no key": ({"cases": FRAME.assign(id=["", *FRAME["id"][1:]])}, r"cases\.csv, line 2: no key in column 'id'"),
    "a key that a teacher lacks": (
        {"api": API[1:]},
        rf"Teacher 'api': .*api\.csv, column 'case', lacks 1 of the 200 keys of the data: '{FIRST}'",
    ),
    "a key twice": (
        {"api": pd.concat([API, API[:1]])},
        rf"api\.csv, line 202, column 'case': found '{FIRST}', wanted a key that stands there once",
    ),
    "weights without a key": (
        {"w": WEIGHTS[:-1]},
        rf"Stored weights: .*w\.csv, column 'case', lacks 1 .* '{FRAME['id'][N - 1]}'",
    ),
    "no column of keys": ({"api": API.rename(columns={"case": "id"})}, "Teacher 'api': .* has no key column 'case'"),
    "no class": ({"api": API.drop(columns="sick")}, "Teacher 'api': .* has no column for class 'sick'"),
    "no key column of the data": ({"cases": FRAME.drop(columns="id")}, "has no column 'id'"),
    "no key of the data": (
        {"config": CONFIG.replace('key = "id"', "")},
        "`teachers.api.key` is compared with data.key, which is left out",
    ),
    "a key without a file": (
        {"config": CONFIG.replace('stored = "w.STORED"', "")},
        "`key` is of the file `stored`, and there is none",
    ),
    "rows without columns": (
        {"config": CONFIG.replace("api.STORED", "api.npy")},
        r"Teacher 'api': `key` names a column of a CSV or Parquet file, and api\.npy is none",
    ),
    "a stream": (
        {"suffix": "parquet", "more": "stream = true"},
        r"Stored weights: rows are matched by `key`, which needs the keys .* streamed\. Give data\.stream = false",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(tmp_path, case):
    given, message = REFUSED[case]
    with pytest.raises((InvalidInput, InvalidConfig), match=message):
        build(tmp_path, **given)


def test_a_parquet_key_that_stands_there_twice_is_told_by_rows(tmp_path):
    cases = FRAME.assign(id=[*FRAME["id"][:5], FRAME["id"][0], *FRAME["id"][6:]])
    with pytest.raises(InvalidInput, match=rf"column 'id': rows 1 and 6 have the same key '{FIRST}'"):
        build(tmp_path, "parquet", cases=cases)


def test_a_stream_refuses_a_keyed_teacher(tmp_path):
    config = CONFIG.replace('stored = "w.STORED"\nkey = "case"', "")
    with pytest.raises(InvalidConfig, match=r"Teacher 'api': rows are matched by `key`, .* the data are streamed"):
        build(tmp_path, "parquet", more="stream = true", config=config)
