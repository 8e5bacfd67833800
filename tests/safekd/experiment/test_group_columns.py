"""An experiment file that names columns of splits and of groups: rows of one patient stay together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import safekd as kd
from safekd.errors import InvalidConfig, InvalidInput
from safekd.experiment import _parquet_examples, build_experiment
from safekd.experiment._parquet_examples import ParquetSettings
from safekd.experiment.config import format_config, load_config
from safekd.saved_students import read_labeled_rows
from tests.support.cli_runner import run_cli

N = 600
CONFIG = """
[data]
source = "SOURCE"
label = "outcome"
MORE
[[teachers]]
name = "fitted"
kind = "logistic_regression"
[student]
hidden = []
[[constraints]]
name = "sick"
critical = ["sick"]
at_least = 0.5
split = "train"
[training]
epochs = 2
batch_size = 50
"""
draw = np.random.default_rng(0)
FRAME = pd.DataFrame(draw.normal(size=(N, 2)), columns=["x0", "x1"])
FRAME["outcome"] = np.where(FRAME["x0"] + draw.normal(size=N) > 0.5, "sick", "well")
PATIENT = draw.integers(0, 150, size=N)
FRAME["patient"] = [f"p{number}" for number in PATIENT]
SPLITS = np.array(["train", "validation", "certify", "test", "safety"])
PART = SPLITS[draw.choice(5, size=150, p=[0.4, 0.2, 0.1, 0.1, 0.2])][PATIENT]


def build(folder, frame, more, source="cases.csv", config=CONFIG):
    if source.endswith("csv"):
        frame.to_csv(folder / source, index=False)
    else:
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / source, row_group_size=100)
    (folder / "mine.toml").write_text(config.replace("SOURCE", source).replace("MORE", more))
    return build_experiment(*load_config(folder / "mine.toml"))


def patients(experiment, frame=FRAME):
    """The patients of each split, by its name."""
    return {name: set(frame["patient"].to_numpy()[rows]) for name, rows in experiment.index.items()}


@pytest.mark.parametrize("source", ["cases.csv", "cases.parquet"])
def test_a_column_says_which_split_each_row_is_in(tmp_path, source):
    frame = FRAME.drop(columns="patient").assign(part=PART)
    experiment = build(tmp_path, frame, 'split = "part"', source)
    assert experiment.table.features == ["x0", "x1"]
    for name in SPLITS:
        assert experiment.index[name].tolist() == np.flatnonzero(name == PART).tolist()
        assert len(experiment.splits[name]) == (name == PART).sum()
    train = frame[PART == "train"][["x0", "x1"]].to_numpy()
    np.testing.assert_allclose(experiment.scaling.mean_F, train.mean(0), atol=1e-12)


@pytest.mark.parametrize("source", ["cases.csv", "cases.parquet"])
def test_groups_stay_in_one_split_and_shares_are_kept(tmp_path, source):
    experiment = build(tmp_path, FRAME, 'group = "patient"', source)
    assert experiment.table.features == ["x0", "x1"]
    parts = patients(experiment)
    assert sum(map(len, parts.values())) == FRAME["patient"].nunique()  # none in two
    assert sorted(np.concatenate(list(experiment.index.values()))) == list(range(N))
    for name, share in {"train": 0.45, "validation": 0.2, "certify": 0.175, "test": 0.175}.items():
        rows = experiment.index[name]
        for outcome in ("sick", "well"):  # as near to the shares as groups of four rows let it be
            mine = (FRAME["outcome"].to_numpy()[rows] == outcome).sum()
            assert abs(mine - share * (FRAME["outcome"] == outcome).sum()) <= 4, (name, outcome)
    other = build(tmp_path, FRAME, 'group = "patient"', source, "seed = 1\n" + CONFIG)
    assert patients(other) != parts


@pytest.mark.parametrize("source", ["cases.csv", "cases.parquet"])
def test_certificates_count_groups(tmp_path, source):
    experiment = build(tmp_path, FRAME, 'group = "patient"', source)
    certify = experiment.splits["certify"]
    sick = FRAME["outcome"].to_numpy()[experiment.index["certify"]] == "sick"
    groups = FRAME["patient"].to_numpy()[experiment.index["certify"]]
    assert len(np.unique(certify.cluster)) == len(np.unique(groups))
    for number in np.unique(certify.cluster):
        assert len(set(groups[(certify.cluster == number).numpy()])) == 1
    result = experiment.trainer().fit(experiment.train, experiment.validation, epochs=1)
    certificate = kd.certify(result, experiment.constraints[0], certify)
    assert (certificate.count, certificate.clusters) == (sick.sum(), len(np.unique(groups[sick])))
    assert certificate.clusters < certificate.count


def test_certificates_on_new_rows_count_groups_too(tmp_path, capsys):
    build(tmp_path, FRAME, 'group = "patient"')
    ran = run_cli(capsys, "train", tmp_path / "mine.toml", "--run-dir", tmp_path / "run")
    assert ran.code in (0, 1), ran.err
    student = kd.load(tmp_path / "run")
    new = FRAME.sample(200, random_state=0).assign(x0=lambda frame: frame["x0"] + 1e-3)
    new.to_csv(tmp_path / "new.csv", index=False)
    split = read_labeled_rows(student, tmp_path / "new.csv")
    assert len(np.unique(split.cluster)) == new["patient"].nunique()
    constraint = build(tmp_path, FRAME, 'group = "patient"').constraints[0]
    certificate = kd.certify(student.result, constraint, split)
    assert certificate.clusters == new["patient"][new["outcome"] == "sick"].nunique() < certificate.count
    new.drop(columns="patient").to_csv(tmp_path / "without.csv", index=False)
    with pytest.raises(InvalidInput, match=r"lacks 1 of the 4 columns .*: patient"):
        read_labeled_rows(student, tmp_path / "without.csv")
    new.assign(patient=["", *new["patient"][1:]]).to_csv(tmp_path / "hole.csv", index=False)
    with pytest.raises(InvalidInput, match="line 2, column 'patient': found an empty cell, wanted the name of a group"):
        read_labeled_rows(student, tmp_path / "hole.csv")


def test_a_stream_draws_groups_into_splits(tmp_path, monkeypatch):
    monkeypatch.setattr(_parquet_examples, "SETTINGS", ParquetSettings(sample_rows=60, run_rows=100))
    experiment = build(tmp_path, FRAME, 'group = "patient"\nstream = true', "cases.parquet")
    trained = np.concatenate([batch.index.numpy() for batch in experiment.train.batches(50)])
    seen = set(FRAME["patient"].to_numpy()[trained])
    assert len(trained) > 60
    for name in ("validation", "certify", "test"):
        split = experiment.splits[name]
        mine = FRAME["patient"].to_numpy()[split.numbers]
        assert not seen & set(mine)
        assert len(np.unique(split.cluster)) == len(set(mine))
    assert len(seen) == FRAME["patient"].nunique() - len(
        set(FRAME["patient"].to_numpy()[np.setdiff1d(range(N), trained)])
    )


def torn(split):
    """All parts, with one row of a patient that has several in another split."""
    part = PART.copy()
    rows = np.flatnonzero(PATIENT[300] == PATIENT)
    assert len(rows) > 1
    part[rows[-1]] = split if part[rows[-1]] != split else "test"
    return FRAME.assign(part=part)


@pytest.mark.parametrize(
    ("source", "stream"), [("cases.csv", ""), ("cases.parquet", ""), ("cases.parquet", "\nstream = true")]
)
def test_a_split_column_that_tears_a_group_apart_is_refused_by_name(tmp_path, source, stream):
    both = 'split = "part"\ngroup = "patient"' + stream
    experiment = build(tmp_path, FRAME.assign(part=PART), both, source)
    assert set(experiment.splits) == set(SPLITS)
    with pytest.raises(
        InvalidInput, match=rf"rows of group 'p{PATIENT[300]}' \(column 'patient'\) into '\w+' and '\w+"
    ):
        build(tmp_path, torn("certify"), both, source)


REFUSED = {
    "no such column": (FRAME, 'group = "ward"', "has no column 'ward'; it has: x0, x1, outcome, patient"),
    "a row without one": (
        FRAME.assign(patient=["", *FRAME["patient"][1:]]),
        'group = "patient"',
        "line 2: no group in column 'patient'",
    ),
    "too few": (FRAME.assign(patient=PATIENT % 3), 'group = "patient"', "found 3 groups.* wanted at least 4"),
    "an unknown split": (
        FRAME.assign(part=["dev", *PART[1:]]),
        'split = "part"',
        "line 2, column 'part': found 'dev', wanted one of train, validation, certify, test, safety",
    ),
    "an empty split": (
        FRAME.drop(columns="patient").assign(part="train"),
        'split = "part"',
        "'validation' is empty: no row of cases.csv has",
    ),
    "shares beside it": (
        FRAME.assign(part=PART),
        'split = "part"\n[data.splits]\ntrain = 0.45',
        "shares say nothing; remove `splits`",
    ),
    "one column twice": (FRAME, 'split = "outcome"', "`label` names column 'outcome', and another key does too"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(tmp_path, case):
    frame, more, message = REFUSED[case]
    with pytest.raises((InvalidInput, InvalidConfig), match=message):
        build(tmp_path, frame, more)


def test_a_constraint_on_a_split_that_the_column_does_not_name(tmp_path):
    config = CONFIG.replace('split = "train"', 'split = "safety"')
    frame = FRAME.drop(columns="patient").assign(part=PART)
    assert "safety" in build(tmp_path, frame, 'split = "part"', config=config).others
    with pytest.raises(InvalidConfig, match="constraint 'sick' names the split 'safety', and no row of cases"):
        build(tmp_path, frame[PART != "safety"], 'split = "part"', config=config)


def test_the_effective_configuration_has_no_shares_beside_a_column():
    effective = format_config(CONFIG.replace("SOURCE", "a.csv").replace("MORE", 'split = "part"'))
    assert "[data.splits]" not in effective
    assert "[data.splits]" in format_config(CONFIG.replace("SOURCE", "a.csv").replace("MORE", 'group = "part"'))
