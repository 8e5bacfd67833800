"""An experiment file that names a Parquet file: streamed where it is large, in memory where it is small."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import safekd as kd
from safekd.errors import InvalidConfig, InvalidInput
from safekd.experiment import _parquet_examples, build_experiment
from safekd.experiment._parquet_examples import ParquetSettings
from safekd.experiment.config import load_config
from tests.support.cli_runner import run_cli

N = 3000
CONFIG = """
[data]
source = "cases.parquet"
label = "outcome"
MORE
[[teachers]]
name = "fitted"
kind = "logistic_regression"
features = ["x0", "x1"]
TEACHER
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
STORED = """
[[teachers]]
name = "stored"
kind = "stored"
path = "api.npy"
"""
draw = np.random.default_rng(0)
FRAME = pd.DataFrame(draw.normal(size=(N, 3)) * [1.0, 5.0, 0.1] + [0.0, 3.0, -1.0], columns=["x0", "x1", "x2"])
FRAME["outcome"] = np.where(FRAME["x0"] + 0.3 * draw.normal(size=N) > 0, "sick", "well")
SPLITS = np.array(["train", "validation", "certify", "test"])[draw.choice(4, size=N, p=[0.6, 0.2, 0.1, 0.1])]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small = ParquetSettings(large=2000, sample_rows=300, run_rows=400)
    monkeypatch.setattr(_parquet_examples, "SETTINGS", small)


def build(folder, frame=FRAME, more="", teacher="", config=CONFIG, group=250):
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / "cases.parquet", row_group_size=group)
    (folder / "mine.toml").write_text(config.replace("MORE", more).replace("TEACHER", teacher))
    return build_experiment(*load_config(folder / "mine.toml"))


def read(batches):
    batches = list(batches)
    return tuple(torch.cat([getattr(b, name) for b in batches]) for name in ("index", "inputs", "labels", "context"))


@pytest.mark.parametrize("group", [40, 250, 3000])
def test_a_large_file_is_streamed_and_every_row_is_in_one_split(tmp_path, group):
    experiment = build(tmp_path, FRAME.assign(part=SPLITS), 'split = "part"', group=group)
    stream = experiment.train
    row_N, x_NF, label_N, _ = read(stream.epoch_batches(1, seed=5))
    assert sorted(row_N.tolist()) == np.flatnonzero(SPLITS == "train").tolist()
    train = FRAME[SPLITS == "train"][["x0", "x1", "x2"]].to_numpy()
    wanted = (FRAME[["x0", "x1", "x2"]].to_numpy() - train.mean(0)) / train.std(0)
    np.testing.assert_allclose(x_NF.numpy(), wanted[row_N], rtol=1e-5, atol=1e-6)
    assert experiment.table.classes == ["sick", "well"]
    assert label_N.tolist() == (FRAME["outcome"].to_numpy()[row_N] == "well").astype(int).tolist()
    again, _, _, _ = read(stream.epoch_batches(1, seed=5))
    other, _, _, _ = read(stream.epoch_batches(2, seed=5))
    assert torch.equal(row_N, again)
    assert row_N.tolist() != other.tolist()
    assert sorted(row_N.tolist()) == sorted(other.tolist())
    assert stream.survey.batch_rows == 50
    for name in ("validation", "certify", "test"):
        split = experiment.splits[name]
        assert len(split) == min(300, (name == SPLITS).sum())
        assert set(SPLITS[split.numbers]) == {name}
        np.testing.assert_allclose(split.inputs.numpy(), wanted[split.numbers], rtol=1e-5, atol=1e-6)
    assert len(experiment.splits["train"]) == 300  # on which teachers were fitted


def test_rows_are_drawn_into_splits_by_their_shares(tmp_path):
    experiment = build(tmp_path)
    shares = len(experiment.train) / N, len(experiment.splits["validation"])
    assert abs(shares[0] - 0.45) < 4 * (0.45 * 0.55 / N) ** 0.5
    assert shares[1] == 300
    row_N = read(experiment.train.batches(50))[0]
    held = torch.cat([split.numbers for name, split in experiment.splits.items() if name != "train"])
    assert not set(row_N.tolist()) & set(held.tolist())
    other = build(tmp_path, config="seed = 1\n" + CONFIG)
    assert set(read(other.train.batches(50))[0].tolist()) != set(row_N.tolist())


def test_a_small_file_is_read_like_a_csv_file(tmp_path):
    small = FRAME[:500]
    experiment = build(tmp_path, small)
    small.to_csv(tmp_path / "cases.csv", index=False)
    (tmp_path / "csv.toml").write_text(
        CONFIG.replace("cases.parquet", "cases.csv").replace("MORE", "").replace("TEACHER", "")
    )
    other = build_experiment(*load_config(tmp_path / "csv.toml"))
    assert experiment.stream is None
    for name, split in other.splits.items():
        assert torch.equal(experiment.splits[name].inputs, split.inputs)
        assert torch.equal(experiment.splits[name].labels, split.labels)
    parts = build(tmp_path, small.assign(part=SPLITS[:500]), 'split = "part"')
    assert len(parts.train) == (SPLITS[:500] == "train").sum()
    assert build(tmp_path, FRAME, "stream = false").stream is None
    assert build(tmp_path, small, "stream = true").stream is not None


def test_rows_that_a_file_holds_twice_judge_nothing(tmp_path):
    twice = FRAME.assign(part=SPLITS)
    twice.loc[np.flatnonzero(SPLITS == "certify")[:20], ["x0", "x1", "x2", "outcome"]] = FRAME.loc[
        np.flatnonzero(SPLITS == "train")[:20], ["x0", "x1", "x2", "outcome"]
    ].to_numpy()
    frame = twice.astype({"x0": float, "x1": float, "x2": float})
    experiment = build(tmp_path, frame, 'split = "part"')
    assert len(experiment.splits["certify"]) == min(300, (SPLITS == "certify").sum()) - 20


def test_contexts_and_stored_teachers_go_by_row(tmp_path):
    p_NV = torch.softmax(torch.randn(N, 2, generator=torch.Generator().manual_seed(0)), -1)
    np.save(tmp_path / "api.npy", p_NV.numpy())
    more = '[data.context]\ncolumn = "x1"\nnames = ["low", "high"]'
    experiment = build(tmp_path, more=more, teacher=STORED)
    for source in (experiment.train, experiment.validation):
        batch = next(iter(source.batches(50)))
        said = experiment.ensemble.log_probabilities(batch, source.name)[:, 1].exp().float()
        torch.testing.assert_close(said, p_NV[batch.index], rtol=1e-5, atol=1e-6)
        high = FRAME["x1"].to_numpy()[batch.index] > FRAME["x1"].median()
        assert (batch.context.numpy() == high).mean() > 0.9  # cut by a sample
    result = experiment.trainer().fit(experiment.train, experiment.validation, epochs=1)
    assert result.uses[0].record()["examples"] == len(experiment.train)


REFUSED = {
    "no label column": (FRAME.rename(columns={"outcome": "y"}), "", "has no column 'outcome'; it has: x0, x1, x2, y"),
    "no split column": (FRAME, 'split = "part"', "has no column 'part'"),
    "another split": (
        FRAME.assign(part="dev"),
        'split = "part"',
        "row 1, column 'part': found 'dev', wanted one of train, validation, certify, test, safety",
    ),
    "an empty split": (FRAME.assign(part="train"), 'split = "part"', "Split 'validation' is empty"),
    "no label": (
        FRAME.assign(outcome=[*FRAME["outcome"][:700], None, *FRAME["outcome"][701:]]),
        "",
        "row 701, column 'outcome': found an empty cell|row 701, column 'outcome': found '', wanted a name",
    ),
    "a hole": (FRAME.assign(x1=[*FRAME["x1"][:9], None, *FRAME["x1"][10:]]), "", "row 10, column 'x1'"),
    "text as a feature": (FRAME.assign(note="a"), "", "column 'note': found values of type .*string, wanted numbers"),
    "real labels": (
        FRAME.assign(outcome=FRAME["x0"]),
        "",
        "column 'outcome': found values of type double, wanted text",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(tmp_path, case):
    frame, more, message = REFUSED[case]
    with pytest.raises((InvalidInput, InvalidConfig), match=message):
        build(tmp_path, frame, more)


def test_a_name_that_says_parquet_on_a_csv_file_is_told(tmp_path):
    build(tmp_path)
    FRAME.to_csv(tmp_path / "cases.parquet", index=False)
    with pytest.raises(InvalidInput, match=r"cases\.parquet cannot be read as Parquet: Parquet magic bytes"):
        build_experiment(*load_config(tmp_path / "mine.toml"))


def test_more_groups_than_can_be_compared_are_told_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(_parquet_examples, "SETTINGS", ParquetSettings(large=2000, most_groups=100))
    frame = FRAME.assign(part=SPLITS, patient=[f"p{i}" for i in range(N)])
    with pytest.raises(InvalidInput, match=r"column 'patient': more than 100 groups; .* Leave `split` out, so that"):
        build(tmp_path, frame, 'split = "part"\ngroup = "patient"')


def test_labels_that_are_numbers_of_rows_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(_parquet_examples, "SETTINGS", ParquetSettings(large=2000, most_classes=100))
    with pytest.raises(InvalidInput, match="more than 100 different labels; is it the label column"):
        build(tmp_path, FRAME.assign(outcome=np.arange(N)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size = 50", "", "training.batch_size is left out, and the data are streamed"),
        ("batch_size = 50", "batch_size = 50\n[tighten]\non = 'crossfit'", "needs the examples of 'train' in memory"),
        ("cases.parquet", "cases.csv", "`stream` is of a Parquet file, and source is 'cases.csv'"),
        ("api.npy", "api.csv", "Teacher 'stored': api.csv would be read whole, and the data are streamed"),
    ],
)
def test_what_does_not_go_with_a_stream_is_told_on_the_command_line(tmp_path, capsys, old, new, message):
    build(tmp_path, teacher="")
    pd.DataFrame({"sick": [0.5] * N, "well": [0.5] * N}).to_csv(tmp_path / "api.csv", index=False)
    text = CONFIG.replace("MORE", "stream = true").replace("TEACHER", STORED if "api" in old else "")
    (tmp_path / "mine.toml").write_text(text.replace(old, new))
    ran = run_cli(capsys, "train", tmp_path / "mine.toml", "--run-dir", tmp_path / "run")
    assert ran.refused(message)


def test_the_command_line_trains_on_a_stream(tmp_path, capsys):
    build(tmp_path)
    ran = run_cli(capsys, "train", tmp_path / "mine.toml", "--run-dir", tmp_path / "run")
    assert ran.code in (0, 1), ran.err
    assert "gradient steps" in ran.out
    assert (tmp_path / "run" / "student.safetensors").exists()
    (data,) = tmp_path.glob("*.parquet")
    assert kd.load(tmp_path / "run").spec.rows == pq.read_metadata(data).num_rows  # of the file, not of a sample
