"""``safekd predict``, ``certify`` and ``export`` on a run of one's own data."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import safekd as kd
from tests.safekd.saved_students.trained_run import make_cases, train_run
from tests.support.cli_runner import run_cli


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_run(tmp_path_factory.mktemp("cli"))


@pytest.fixture
def rows(tmp_path):
    cases = make_cases(60, 5)
    cases.loc[0, "id"] = "=HYPERLINK(1)"
    cases.to_csv(tmp_path / "new.csv", index=False)
    cases.to_parquet(tmp_path / "new.parquet")
    return tmp_path / "new.csv"


def test_rows_are_predicted_beside_what_is_no_feature(run, rows, capsys):
    output = rows.parent / "out.csv"
    ran = run_cli(capsys, "predict", run, rows, "-o", output)
    assert ran.code == 0, ran.err
    said = pd.read_csv(output)
    assert list(said.columns) == ["id", "age", "outcome", "predicted", "probability: sick", "probability: well"]
    wanted = kd.load(run)(make_cases(60, 5))
    np.testing.assert_array_equal(said["probability: sick"].to_numpy(np.float32), wanted[:, 0])
    assert said["id"][0] == "'=HYPERLINK(1)"  # a spreadsheet must not run it
    counts = said["predicted"].value_counts()
    assert f"60 rows predicted: sick: {counts['sick']}, well: {counts['well']}" in ran.out


def test_csv_and_parquet_say_the_same(run, rows, capsys):
    for source, output in (("new.csv", "a.parquet"), ("new.parquet", "b.parquet")):
        assert run_cli(capsys, "predict", run, rows.parent / source, "-o", rows.parent / output).code == 0
    one, other = (pd.read_parquet(rows.parent / name) for name in ("a.parquet", "b.parquet"))
    pd.testing.assert_frame_equal(one, other)


def test_machines_read_one_object(run, rows, capsys):
    ran = run_cli(capsys, "predict", run, rows, "-o", rows.parent / "out.csv", "--json")
    record = json.loads(ran.out)
    assert record["rows"] == 60
    assert sum(record["counts"].values()) == 60
    ran = run_cli(capsys, "certify", run, rows, "--json")
    record = json.loads(ran.out)
    assert [one["constraint"] for one in record["certificates"]] == ["sick", "old and sick"]
    assert ran.code == (0 if all(one["decision"] == "safe" for one in record["certificates"]) else 1)


def test_new_cases_certify_and_used_ones_do_not_count(run, rows, capsys):
    big = rows.parent / "big.csv"
    pd.concat([make_cases(400, 0), make_cases(3000, 11)]).to_csv(big, index=False)  # the run's own and new ones
    output = rows.parent / "certificates.json"
    ran = run_cli(capsys, "certify", run, big, "-o", output)
    first, _ = json.loads(output.read_text())["certificates"]
    new = make_cases(3000, 11)
    p = kd.load(run)(new)[(new["outcome"] == "sick").to_numpy(), 0]
    used = first["left_out"]
    assert used > 50
    assert first["count"] + used == int((pd.read_csv(big)["outcome"] == "sick").sum())
    assert abs(first["estimate"] - p.mean()) < 0.02
    assert ran.code == (0 if "not shown" not in ran.out else 1)


def test_a_certificate_can_say_no(run, rows, capsys):
    """Labels turned round: whoever is called sick is well, and no such student may pass."""
    turned = make_cases(300, 5)
    turned["outcome"] = np.where(turned["outcome"] == "sick", "well", "sick")
    turned.to_csv(rows, index=False)
    ran = run_cli(capsys, "certify", run, rows)
    assert ran.code == 1
    assert "sick: not shown" in ran.out


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["predict", "RUN", "ROWS", "-o", "ROWS"], ["is the input itself", "write to another file"]),
        (["predict", "ROWS", "ROWS", "-o", "out.csv"], ["manifest.json"]),
        (["predict", "RUN", "short.csv", "-o", "out.csv"], ["lacks 1 of the 3 columns", "x2"]),
        (["predict", "RUN", "bad.csv", "-o", "out.csv"], ["line 3", "'x1'", "'many'"]),
        (["predict", "RUN", "taken.csv", "-o", "out.csv"], ["a column 'predicted' of its own"]),
        (["predict", "RUN", "ROWS", "-o", "out.csv", "--student", "best"], ["--student is 'best'", "best_feasible"]),
        (["certify", "RUN", "strange.csv"], ["line 2", "'outcome'", "'ill'", "sick, well"]),
        (["certify", "RUN", "ROWS", "--label", "nope"], ["of the 5 columns that are needed: nope"]),
        (["certify", "RUN", "ROWS", "--confidence", "1"], ["`confidence`"]),
        (["certify", "RUN", "ROWS", "-o", "ROWS"], ["is the input itself", "write to another file"]),
        (["certify", "RUN", "used.csv"], ["used", "gradient steps"]),
        (["export", "RUN", "-o", "student.bin"], [".pt2", ".onnx"]),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_lost(arguments, fragments, run, rows, capsys, monkeypatch):
    monkeypatch.chdir(rows.parent)
    cases = make_cases(5, 5)
    cases.drop(columns="x2").to_csv("short.csv", index=False)
    cases.assign(x1=["1", "many", "2", "3", "4"]).to_csv("bad.csv", index=False)
    cases.assign(predicted="sick").to_csv("taken.csv", index=False)
    cases.assign(outcome="ill").to_csv("strange.csv", index=False)
    split_N = pd.read_csv(run / "splits.csv")["split"]
    make_cases(400, 0)[split_N == "train"].to_csv("used.csv", index=False)
    before = rows.read_bytes()
    ran = run_cli(capsys, *({"RUN": run, "ROWS": rows}.get(part, part) for part in arguments))
    assert ran.refused(*fragments), ran.err
    assert rows.read_bytes() == before
    assert not (rows.parent / "out.csv").exists()
