"""An experiment file whose contexts are the names in a column, or a column of numbers cut where it says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import safekd as kd
from safekd.errors import InvalidConfig, InvalidInput
from safekd.experiment import _context_rule, _parquet_examples, build_experiment
from safekd.experiment._context_rule import ContextSettings
from safekd.experiment._parquet_examples import ParquetSettings
from safekd.experiment.config import load_config
from safekd.saved_students import read_labeled_rows
from tests.support.cli_runner import run_cli

N = 400
CONFIG = """
[data]
source = "SOURCE"
label = "outcome"
MORE
[data.context]
CONTEXT
[[teachers]]
name = "fitted"
kind = "logistic_regression"
[student]
hidden = []
[[constraints]]
name = "sick"
critical = ["sick"]
at_least = 0.5
each = "context"
[training]
epochs = 2
batch_size = 50
"""
draw = np.random.default_rng(0)
FRAME = pd.DataFrame(draw.normal(size=(N, 2)), columns=["x0", "x1"])
FRAME["outcome"] = np.where(FRAME["x0"] + draw.normal(size=N) > 0.5, "sick", "well")
FRAME["site"] = np.array(["north", "east", "south"])[draw.choice(3, size=N, p=[0.3, 0.5, 0.2])]
FRAME["night"] = draw.integers(0, 2, size=N)
NAMED = FRAME.drop(columns="night")
NUMBERS = FRAME.drop(columns="site")
SITES = 'column = "site"'


def write(folder, context, frame=NAMED, source="cases.csv", more=""):
    if source.endswith("csv"):
        frame.to_csv(folder / source, index=False)
    else:
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / source, row_group_size=100)
    text = CONFIG.replace("SOURCE", source).replace("CONTEXT", context).replace("MORE", more)
    (folder / "mine.toml").write_text(text)
    return folder / "mine.toml"


def build(*given, **more):
    return build_experiment(*load_config(write(*given, **more)))


def read_contexts(experiment):
    """The name of each row's context, by the number of the row."""
    table = experiment.table
    return np.array(table.contexts)[table.context_N]


@pytest.mark.parametrize("source", ["cases.csv", "cases.parquet"])
def test_a_column_of_names_is_one_context_a_name(tmp_path, source):
    experiment = build(tmp_path, SITES, source=source)
    assert experiment.table.contexts == ["east", "north", "south"]
    assert experiment.table.features == ["x0", "x1"]
    assert read_contexts(experiment).tolist() == FRAME["site"].tolist()
    assert [one.name for one in experiment.constraints] == ["sick: east", "sick: north", "sick: south"]
    ordered = build(tmp_path, SITES + '\nnames = ["south", "north", "east"]', source=source)
    assert ordered.table.contexts == ["south", "north", "east"]
    assert read_contexts(ordered).tolist() == FRAME["site"].tolist()


@pytest.mark.parametrize("names", ["", '\nnames = ["south", "north", "east"]'])
def test_names_of_a_stream(tmp_path, monkeypatch, names):
    monkeypatch.setattr(_parquet_examples, "SETTINGS", ParquetSettings(sample_rows=50, run_rows=100))
    frame = NAMED
    experiment = build(tmp_path, SITES + names, frame, "cases.parquet", "stream = true")
    assert experiment.table.contexts == (["south", "north", "east"] if names else ["east", "north", "south"])
    for batch in [*experiment.train.batches(50), experiment.validation.batch()]:
        named = np.array(experiment.table.contexts)[batch.context.numpy()]
        assert named.tolist() == frame["site"].to_numpy()[batch.index.numpy()].tolist()


@pytest.mark.parametrize("source", ["cases.csv", "cases.parquet"])
def test_a_column_of_numbers_is_cut_at_quantiles_or_where_the_file_says(tmp_path, source):
    experiment = build(tmp_path, 'column = "x0"\nnames = ["low", "high"]', NUMBERS, source)
    assert read_contexts(experiment).tolist() == np.where(FRAME["x0"] >= FRAME["x0"].median(), "high", "low").tolist()
    assert "x0" in experiment.table.features
    cut = build(tmp_path, 'column = "x0"\nnames = ["a", "b", "c"]\ncuts = [-1, 0.5]', NUMBERS, source)
    wanted = pd.cut(FRAME["x0"], [-np.inf, -1, 0.5, np.inf], right=False, labels=["a", "b", "c"])
    assert read_contexts(cut).tolist() == wanted.tolist()
    assert cut.table.context_rule.cuts == (-1.0, 0.5)


@pytest.mark.parametrize("source", ["cases.csv", "cases.parquet"])
@pytest.mark.parametrize("names", ["", '\nnames = ["1", "0"]'])
def test_numbers_can_be_names(tmp_path, source, names):
    experiment = build(tmp_path, 'column = "night"' + names, NUMBERS, source)
    assert experiment.table.contexts == (["1", "0"] if names else ["0", "1"])
    assert read_contexts(experiment).tolist() == FRAME["night"].astype(str).tolist()
    assert experiment.table.features == ["x0", "x1"]


@pytest.mark.parametrize("source", ["cases.csv", "cases.parquet"])
def test_whole_numbers_that_are_no_names_are_cut(tmp_path, source):
    frame = NUMBERS.assign(night=np.arange(N))
    experiment = build(tmp_path, 'column = "night"\nnames = ["1", "2"]', frame, source)
    assert read_contexts(experiment).tolist() == ["1"] * (N // 2) + ["2"] * (N // 2)
    with pytest.raises(InvalidConfig, match=f"'night', a column of numbers in {source}; give `names`"):
        build(tmp_path, 'column = "night"', NUMBERS.assign(night=np.arange(N) % 25), source)


REFUSED = {
    "a name that is not listed": (
        SITES + '\nnames = ["north", "east"]',
        NAMED,
        r"line \d+, column 'site': found 'south', wanted one of the contexts north, east \(\d+ rows .*: south\)",
    ),
    "an empty cell": (
        SITES,
        NAMED.assign(site=["", *FRAME["site"][1:]]),
        "line 2, column 'site': found an empty cell, wanted one of the contexts east, north, south",
    ),
    "measurements": ('column = "x0"', NUMBERS, r"'x0', a column of numbers in cases\.csv; give `names`"),
    "a hole among measurements": (
        'column = "x0"\nnames = ["a", "b"]',
        NUMBERS.assign(x0=[None, *FRAME["x0"][1:]]),
        "line 2, column 'x0': found an empty cell, wanted a finite number",
    ),
    "no such features": (SITES, NAMED, r"data\.features \['y\*'\] match no column; there are: x0, x1\."),
    "as many names as rows": (
        SITES,
        NAMED.assign(site=[f"ward {i}" for i in range(N)]),
        r"'site', which holds 400 different names in cases\.csv; wanted at most 300. Is it the column of contexts",
    ),
    "no such column": ('column = "ward"', NUMBERS, r"data\.context\.column is 'ward'; cases\.csv has: x0, x1"),
    "too few names": ('column = "x0"\nnames = ["a", "b"]\ncuts = [0, 1]', NUMBERS, "2 cuts make 3 contexts; give as"),
    "falling cuts": (
        'column = "x0"\nnames = ["a", "b", "c"]\ncuts = [1, 0]',
        NUMBERS,
        r"\[1\.0, 0\.0\]; wanted rising",
    ),
    "a name twice": (SITES + '\nnames = ["a", "a"]', NUMBERS, "`names` has 'a' twice; wanted different names"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(tmp_path, case, monkeypatch):
    context, frame, message = REFUSED[case]
    monkeypatch.setattr(_context_rule, "_SETTINGS", ContextSettings(most_names=300))
    with pytest.raises((InvalidInput, InvalidConfig), match=message):
        build(tmp_path, context, frame, more='features = ["y*"]' * (case == "no such features"))


def test_a_teacher_of_a_context_in_which_all_are_alike_is_refused(tmp_path):
    path = write(tmp_path, SITES, NAMED.assign(outcome=NAMED["outcome"].where(NAMED["site"] != "north", "sick")))
    path.write_text(path.read_text().replace("[student]", 'contexts = ["north"]\n[student]'))
    with pytest.raises(
        InvalidConfig, match=r"Teacher 'fitted' would see \d+ training examples of 1 class; .* Widen its contexts"
    ):
        build_experiment(*load_config(path))


def test_a_parquet_name_that_is_not_listed_is_told_by_its_row(tmp_path):
    frame = NAMED.assign(site=["north"] * 320 + ["west"] * 80)
    with pytest.raises(InvalidInput, match="row 321, column 'site': found 'west', wanted one of the contexts north, e"):
        build(tmp_path, SITES + '\nnames = ["north", "east"]', frame, "cases.parquet")


def test_a_run_certifies_new_rows_by_their_names(tmp_path, capsys):
    ran = run_cli(capsys, "train", write(tmp_path, SITES), "--run-dir", tmp_path / "run")
    assert ran.code in (0, 1), ran.err
    student = kd.load(tmp_path / "run")
    assert (student.require_spec().context_column, student.require_spec().context_cuts) == ("site", [])
    new = NAMED[:50].sample(frac=1, random_state=0)
    new.to_csv(tmp_path / "new.csv", index=False)
    split = read_labeled_rows(student, tmp_path / "new.csv")
    assert [split.context_names[c] for c in split.context.tolist()] == new["site"].tolist()
    assert student.predict(new).shape == (50, 3)
    new.assign(site="west").to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(
        InvalidInput, match="column 'site': found 'west', wanted one of the contexts east, north, south"
    ):
        read_labeled_rows(student, tmp_path / "other.csv")
