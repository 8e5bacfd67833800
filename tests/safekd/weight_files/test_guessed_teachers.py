"""A file whose teachers nobody named: an index, an id or a total is no weight, and genuine scores raise no alarm."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import safekd as kd
from safekd.io import _csv
from safekd.weight_files._guessed_teachers import find_other_columns
from tests.support.cli_runner import run_cli

W_NK = np.random.default_rng(3).dirichlet(np.ones(3), 6)
SCORES_NK = np.random.default_rng(4).random((6, 3))
NOT_WEIGHTS = {
    "counting from 0": ("n", np.arange(6)),
    "counting from 1": ("n", np.arange(1, 7)),
    "counting down": ("n", np.arange(6, 0, -1)),
    "counting in tens": ("n", 10 * np.arange(6)),
    "counting as floats": ("n", np.arange(6.0) + 0.0),
    "small steps": ("when", 0.05 * np.arange(6)),
    "ids": ("patient", [1017, 1022, 1040, 1003, 1999, 1500]),
    "folds": ("part", [0, 1, 2, 0, 1, 2]),
    "flags": ("urgent", [0, 1, 0, 0, 1, 1]),
    "a total": ("total", np.ones(6)),
    "a total in percent": ("all", np.full(6, 100.0)),
    "a confidence": ("confidence", [0.9, 0.8, 0.95, 0.7, 0.85, 0.6]),
    "negative": ("logit", [-1.5, 0.3, 2.0, -0.1, 0.2, 1.1]),
}


def frame_of(name, column, weights_NK, place=0):
    frame = pd.DataFrame(dict(zip("abc", np.asarray(weights_NK).T, strict=True)))
    frame.insert(place, name, column)
    return frame


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("kind", NOT_WEIGHTS)
def test_a_column_beside_weights_is_refused_with_the_next_move(kind, place, suffix, tmp_path):
    name, column = NOT_WEIGHTS[kind]
    frame, source, target = frame_of(name, column, W_NK, place), tmp_path / f"w{suffix}", tmp_path / f"o{suffix}"
    (frame.to_csv if suffix == ".csv" else frame.to_parquet)(source, index=False)
    with pytest.raises(kd.InvalidInput, match=f"column '{name}' stands beside columns that sum to 1 in every row") as e:
        kd.project_file(source, target, {"lower": 0.1})
    assert str(e.value).endswith('name them: `teachers` = ["a", "b", "c"].')
    assert not target.exists()
    with pytest.raises(kd.InvalidInput, match=f"column '{name}'"):
        kd.audit_file(source, {})
    assert kd.project_file(source, target, {"teachers": ["a", "b", "c"], "lower": 0.1}).rows == 6


@pytest.mark.parametrize("rounded_NK", [W_NK.round(2), 100 * W_NK, (100 * W_NK).round(1)])
@pytest.mark.parametrize("kind", ["counting from 0", "counting in tens", "folds", "a total in percent"])
def test_weights_may_be_rounded_or_in_percent(kind, rounded_NK, tmp_path):
    frame_of(*NOT_WEIGHTS[kind], rounded_NK).to_csv(tmp_path / "w.csv", index=False)
    with pytest.raises(kd.InvalidInput, match="hardly a teacher's"):
        kd.project_file(tmp_path / "w.csv", tmp_path / "o.csv", {})


def test_several_such_columns_are_named_together(tmp_path):
    frame = frame_of("row", np.arange(6), W_NK).assign(fold=[1, 2, 3, 1, 2, 3], sum=1.0)
    frame.to_csv(tmp_path / "w.csv", index=False)
    with pytest.raises(kd.InvalidInput) as caught:
        kd.project_file(tmp_path / "w.csv", tmp_path / "o.csv", {})
    assert "column 'row' and column 'fold' and column 'sum' stand beside" in str(caught.value)
    assert '`teachers` = ["a", "b", "c"]' in str(caught.value)


@pytest.mark.parametrize("rows", [1, 2, 6])
@pytest.mark.parametrize("scores_NK", [W_NK, SCORES_NK])
@pytest.mark.parametrize("header", ["", " ", "Unnamed: 0", "__index_level_0__"])
def test_a_column_without_a_name_is_no_teacher_whatever_it_holds(header, scores_NK, rows, tmp_path, capsys):
    frame = frame_of(header, np.arange(6), scores_NK).head(rows)
    frame.to_csv(tmp_path / "w.csv", index=False)
    ran = run_cli(capsys, "project", tmp_path / "w.csv", "-o", tmp_path / "o.csv")
    assert ran.refused("has no name, as the index of a table that pandas", "name them: --teacher a,b,c."), ran.err
    assert not (tmp_path / "o.csv").exists()
    assert run_cli(capsys, "audit", tmp_path / "w.csv").refused("--teacher a,b,c")
    assert run_cli(capsys, "project", tmp_path / "w.csv", "-o", tmp_path / "o.csv", "--teacher", "a,b,c").code == 0


@pytest.mark.parametrize(
    ("header", "rows", "found"),
    [
        ("id", [[0, 0.2, 0.7, 0.1]], "id"),  # one row, and with the id 0 it sums to 1
        ("id", [[7, 0.2, 0.7, 0.1]], "id"),
        ("row", [[1, 0.9, 0.3, 0.4], [2, 0.1, 0.3, 0.8], [3, 0.5, 0.5, 0.6]], "row"),  # beside scores
        ("z", [[i, 0.9, 0.3, 0.1 * i + 0.15] for i in range(5)], "z"),
        ("total", [[1.6, 0.9, 0.3, 0.4], [1.2, 0.1, 0.3, 0.8]], "total"),  # the sum of scores
        ("all", [[i + 0.9, i, 0.25, 0.65] for i in (0.5, 0.3, 2, 3, 1)], "all"),
        ("id", [[1, 20, 70, 10], [2, 90, 5, 5]], "id"),
    ],
)
def test_few_rows_and_scores_give_it_away_too(header, rows, found):
    columns, reason = find_other_columns([header, "a", "b", "c"], np.array(rows, dtype=float))
    assert [[header, "a", "b", "c"][k] for k in columns] == [found], reason


GENUINE = {
    "weights": W_NK,
    "weights, two of which are 0": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "weights, one always 0": [[0.5, 0.5, 0], [0.3, 0.7, 0], [0.1, 0.9, 0]],
    "weights, one half": [[0.5, 0.3, 0.2], [0.5, 0.25, 0.25], [0.5, 0.1, 0.4]],
    "weights, rounded": [[0.33, 0.33, 0.33], [0.5, 0.49, 0.01], [0.17, 0.17, 0.67]],
    "percent": [[50, 30, 20], [50, 25, 25], [10, 80, 10]],
    "scores": SCORES_NK,
    "scores of 0 and 1": [[1, 0, 1], [0, 1, 1], [1, 1, 1]],
    "whole scores": [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12], [13, 14, 15]],
    "grades": [[5, 3, 4], [4, 4, 2], [1, 5, 5]],
    "logits": np.log(W_NK),
    "one row": [[0.9, 0.05, 0.40]],
    "one row whose last two sum to 1": [[1, 0.5, 0.5]],
    "large": 1e6 * SCORES_NK,
    "clipped, two rows that sum to 1 without the last": [[0.6, 0.1, 0.1, 0.2, 0.1], [0.1, 0.6, 0.1, 0.2, 0.1]],
    "rounded, one almost never": [[0.61, 0.01, 0.39], [0.95, 0, 0.05], [0.93, 0, 0.07], [0.5, 0, 0.5], [0.2, 0, 0.8]],
    "percent, one almost never": [[0, 100, 0], [1, 92, 8], [0, 36, 64], [1, 4, 96], [0, 50, 50], [0, 30, 70]],
    "percent, some of 0 and 1": [[0, 70, 1, 29, 0], [0, 20, 1, 79, 0], [16, 76, 0, 7, 1]],
    "grades, two of which are sums": [[1, 4, 3], [2, 3, 1]],
    "one teacher beats all": [[1.0, 0.2, 0.3], [1.0, 0.4, 0.1], [1.0, 0.6, 0.9]],
    "the same": [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]],
    "zeros": [[0, 0, 0], [0, 0, 0]],
    "twins and a third that is out": [[0.4, 0.4, 0], [0.3, 0.3, 0]],
}


@pytest.mark.parametrize("kind", GENUINE)
def test_weights_and_scores_raise_no_alarm(kind):
    x_NK = np.array(GENUINE[kind], dtype=float)
    assert find_other_columns([f"t{k}" for k in range(x_NK.shape[1])], x_NK) is None


@pytest.mark.parametrize("scores_NK", [[[1, 0.5], [1, 0.7], [1, 0.9]], [[0.5, 0.5], [0.3, 0.7]], [[3, 0.2], [1, 0.9]]])
def test_two_teachers_raise_no_alarm(scores_NK):
    assert find_other_columns(["a", "b"], np.array(scores_NK, dtype=float)) is None


@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(2, 30),
    columns=st.integers(2, 8),
    kind=st.sampled_from(["weights", "scores", "two digits", "sparse", "zero weights"]),
)
def test_no_alarm_whatever_the_scores(seed, rows, columns, kind):
    rng = np.random.default_rng(seed)
    x_NK = rng.random((rows, columns))
    if kind in ("sparse", "zero weights"):
        x_NK *= rng.random((rows, columns)) < 0.6
    if "weights" in kind:
        x_NK = (x_NK + (kind == "weights") * 1e-3) / np.maximum(x_NK.sum(axis=1, keepdims=True), 1e-12)
        x_NK = x_NK[x_NK.sum(axis=1) > 0.9]
    if kind == "two digits":
        x_NK = x_NK.round(2)
    if len(x_NK) > 1:
        assert find_other_columns([f"t{k}" for k in range(columns)], x_NK) is None


def test_where_blocks_begin_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(_csv, "_CHUNK", 16)
    frame_of("n", np.arange(6), W_NK.round(3)).to_csv(tmp_path / "w.csv", index=False)
    with pytest.raises(kd.InvalidInput, match="column 'n' stands beside"):
        kd.project_file(tmp_path / "w.csv", tmp_path / "o.csv", {})


@pytest.mark.parametrize(
    ("header", "option"),
    [
        (["expert one", "b"], "--teacher 'expert one,b'"),
        (["a,1", "b"], "--teacher a,1 --teacher b"),
        (["$(x)", "b"], "--teacher '$(x),b'"),
    ],
)
def test_the_next_move_can_be_pasted_into_a_shell(header, option, tmp_path, capsys):
    frame = pd.DataFrame([["r0", 0.5, 0.5], ["r1", 0.3, 0.7]], columns=["case name", *header])
    frame.to_csv(tmp_path / "w.csv", index=False)
    ran = run_cli(capsys, "project", tmp_path / "w.csv", "-o", tmp_path / "o.csv")
    assert ran.refused("line 2, column 'case name': found 'r0', wanted a finite number"), ran.err
    assert f"name those that are: {option}." in " ".join(ran.err.split())


def test_text_beside_weights_in_parquet_is_told_the_same(tmp_path, capsys):
    frame_of("id", list("uvwxyz"), W_NK).to_parquet(tmp_path / "w.parquet")
    ran = run_cli(capsys, "project", tmp_path / "w.parquet", "-o", tmp_path / "o.parquet")
    assert ran.refused("column 'id': found values of type", "name those that are: --teacher a,b,c."), ran.err
