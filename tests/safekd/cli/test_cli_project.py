"""``safekd project``: what a user types, what comes out, and what bad input is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import safekd as kd
from tests.support.cli_runner import run_cli

GOOD = "a,b,c\n0.9,0.05,0.05\n0.2,0.7,0.1\n0.3,0.3,0.4\n"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.csv"
    path.write_text(GOOD)
    return path


def test_writes_what_the_library_computes(weights, tmp_path, capsys):
    output = tmp_path / "out.csv"
    ran = run_cli(capsys, "project", weights, "-o", output, "--lower", 0.1, "--upper", 0.6, "--order", "a>=b")
    assert ran.code == 0, ran.err
    polytope = kd.WeightPolytope(3, lower=0.1, upper=0.6, orderings=[(0, 1)])
    expected = kd.project(pd.read_csv(weights).to_numpy(), polytope)
    result = pd.read_csv(output).to_numpy()
    np.testing.assert_array_equal(result, expected)
    assert polytope.check(result).holds()
    assert "3 rows projected" in ran.out
    assert "out.csv" in ran.out


def test_a_chain_is_two_orderings(weights, tmp_path, capsys):
    output = tmp_path / "out.csv"
    assert run_cli(capsys, "project", weights, "-o", output, "--order", "a>=b>=c").code == 0
    result = pd.read_csv(output).to_numpy()
    assert (result[:, 0] >= result[:, 1]).all()
    assert (result[:, 1] >= result[:, 2]).all()


def test_other_columns_are_kept_to_the_letter(tmp_path, capsys):
    path, output = tmp_path / "w.csv", tmp_path / "out.csv"
    path.write_text("id,a,note,b\n007,0.9,=SUM(A1),0.3\n 1e3,0.1,,0.2\n")
    ran = run_cli(capsys, "project", path, "-o", output, "--teacher", "a", "--teacher", "b", "--upper", 0.6)
    assert ran.code == 0, ran.err
    others = pd.read_csv(output, dtype=str, keep_default_na=False)
    assert list(others.columns) == ["id", "a", "note", "b"]
    assert others["id"].tolist() == ["007", " 1e3"]
    assert others["note"].tolist() == ["'=SUM(A1)", ""]  # a spreadsheet must not run it


def test_kl_keeps_ratios(weights, tmp_path, capsys):
    output = tmp_path / "out.csv"
    assert run_cli(capsys, "project", weights, "-o", output, "--metric", "kl", "--upper", 0.99).code == 0
    result = pd.read_csv(output).to_numpy()
    np.testing.assert_allclose(result, pd.read_csv(weights).to_numpy(), atol=1e-12)  # rows sum to one: already there


@pytest.mark.parametrize(
    ("content", "options", "fragments"),
    [
        (GOOD, ["--order", "a>=d"], ['--order "a>=d"', "no teacher column 'd'", "a, b, c"]),
        (GOOD, ["--order", "a>b"], ['"a>b" is not understood', '"a>=b"']),
        (GOOD, ["--teacher", "z"], ["--teacher", "no teacher column 'z'", "a, b, c"]),
        (GOOD, ["--order", "a>=b", "--order", "b>=a"], ["0 >= 1 >= 0"]),
        (GOOD, ["--upper", "0.3"], ["upper=0.3", "0.9", "Raise `upper` to at least 0.333"]),
        (GOOD, ["--lower", "0.4"], ["lower=0.4", "1.2"]),
        (GOOD, ["--lower", "-0.1"], ["-0.1"]),
        (GOOD, ["--metric", "cosine"], ["--metric is 'cosine'", "euclidean or kl"]),
        ("a,b\n0.1,high\n", [], ["line 2", "column 'b'", "'high'", "finite number"]),
        ("a,b\n0.1,0.2\n0.1,NaN\n", [], ["line 3", "column 'b'", "'NaN'"]),
        ("a,b\n0.1,0.2\n0.1,\n", [], ["line 3", "column 'b'", "an empty cell"]),
        ("a,b\n0.1,0.2\n\n0.1,0.2,0.3\n", [], ["line 4", "3 cells", "header has 2"]),
        ("a,b\n0.1\n", [], ["line 2", "1 cells", "header has 2"]),
        ('a,b\n0.1,"0.2\n', [], ["line 2", "mend the quotes"]),
        ("a,a\n0.1,0.2\n", [], ["two columns named 'a'"]),
        ("", [], ["is empty", "header"]),
        ("a,b\n", [], ["no rows"]),
        ('a,b\n"0.1","0.2"\n0.1,"x\ny"\n', [], ["line 3", "column 'b'", "wanted a finite number"]),
        (GOOD, ["--lower", "0.1,x"], ["--lower", "found 'x', wanted a number"]),
        (GOOD, ["--lower", "0.1,0.2"], ["--lower has 2 numbers for 3 teachers (a, b, c)"]),
        (GOOD, ["--upper", "z=0.2"], ["--upper", "no teacher column 'z'", "a, b, c"]),
        (GOOD, ["--margin", "-1"], ["margin", "-1"]),
        (GOOD, ["--margin", "x"], ["--margin", "number"]),
        (GOOD, ["--teacher", "a", "--teacher", "a"], ["--teacher", "column 'a' is named twice"]),
        (GOOD, ["--safety-columns", "a,z"], ["--safety-columns", "no column 'z'"]),
        (
            GOOD,
            ["--teacher", "a,b", "--safety-columns", "c"],
            ["--safety-columns names 1 columns for 2 teachers (a, b)"],
        ),
        (
            GOOD,
            ["--critical-column", "c"],
            ["--critical-column says where orderings apply", "--order or --safety-columns"],
        ),
        (
            GOOD,
            ["--teacher", "a,b", "--order", "a>=b", "--critical-column", "c"],
            ["line 2", "column 'c'", "found '0.05', wanted 0, 1, true or false"],
        ),
        (GOOD, ["--rules", "nowhere.toml"], ["Cannot read nowhere.toml", "No such file"]),
        (GOOD, ["--no-such-option"], ["No such option", "--no-such-option"]),
    ],
)
def test_bad_input_is_told_and_nothing_is_lost(content, options, fragments, tmp_path, capsys):
    path, output = tmp_path / "w.csv", tmp_path / "out.csv"
    path.write_text(content)
    output.write_text("what was there")
    ran = run_cli(capsys, "project", path, "-o", output, *options)
    assert ran.refused(*fragments), ran.err
    assert output.read_text() == "what was there"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "w.csv"]  # nothing half written


SCORED = "id,a,b,sa,sb,urgent\n007,0.2,0.8,2,1,1\n008,0.2,0.8,1,2,true\n009,0.2,0.8,2,1,0\n"


@pytest.mark.parametrize(
    "columns", [["--safety-columns", "sa,sb"], ["--safety-columns", "sa", "--safety-columns", "sb"]]
)
def test_each_row_follows_its_own_scores_where_it_is_critical(columns, tmp_path, capsys):
    path, output = tmp_path / "w.csv", tmp_path / "out.csv"
    path.write_text(SCORED)
    ran = run_cli(capsys, "project", path, "-o", output, "--teacher", "a,b", *columns, "--critical-column", "urgent")
    assert ran.code == 0, ran.err
    assert output.read_text() == SCORED.replace("007,0.2,0.8", "007,0.5,0.5")


def test_rules_come_from_a_file_and_options_override_them(weights, tmp_path, capsys):
    rules, output = tmp_path / "rules.toml", tmp_path / "out.csv"
    rules.write_text('lower = 0.1\nupper = { a = 0.4 }\norder = ["b>=a"]\nmetric = "kl"\n')
    raw_NK = pd.read_csv(weights).to_numpy()
    assert run_cli(capsys, "project", weights, "-o", output, "--rules", rules).code == 0
    polytope = kd.WeightPolytope(3, lower=0.1, upper=[0.4, 1, 1], orderings=[(1, 0)])
    np.testing.assert_array_equal(pd.read_csv(output).to_numpy(), kd.project(raw_NK, polytope, metric="kl"))
    options = ["--upper", "0.5", "--order", "a>=b", "--metric", "euclidean"]
    assert run_cli(capsys, "project", weights, "-o", output, "--rules", rules, *options).code == 0
    polytope = kd.WeightPolytope(3, lower=0.1, upper=0.5, orderings=[(0, 1)])
    np.testing.assert_array_equal(pd.read_csv(output).to_numpy(), kd.project(raw_NK, polytope))


def test_what_the_file_says_is_called_by_its_key(weights, tmp_path, capsys):
    rules = tmp_path / "rules.toml"
    rules.write_text('order = ["a>=z"]\n')
    ran = run_cli(capsys, "project", weights, "-o", tmp_path / "out.csv", "--rules", rules)
    assert ran.refused('`order` "a>=z"', "no teacher column 'z'")
    rules.write_text("colour = 1\n")
    ran = run_cli(capsys, "project", weights, "-o", tmp_path / "out.csv", "--rules", rules)
    assert ran.refused("rules.toml", "unknown key 'colour'")


@pytest.mark.parametrize("text", ["0.1,0.05,0.2", "a=0.1,b=0.05,c=0.2", " 0.1 , 0.05 , 0.2 "])
def test_bounds_may_differ_between_teachers(text, weights, tmp_path, capsys):
    output = tmp_path / "out.csv"
    assert run_cli(capsys, "project", weights, "-o", output, "--lower", text).code == 0
    polytope = kd.WeightPolytope(3, lower=[0.1, 0.05, 0.2])
    np.testing.assert_array_equal(pd.read_csv(output), kd.project(pd.read_csv(weights).to_numpy(), polytope))


def test_parquet_in_parquet_out(weights, tmp_path, capsys):
    source, output = tmp_path / "w.parquet", tmp_path / "out.parquet"
    frame = pd.read_csv(weights).assign(note=["=x", None, ""])
    frame.to_parquet(source)
    ran = run_cli(capsys, "project", source, "-o", output, "--teachers", "a,b,c", "--lower", 0.1)
    assert ran.code == 0, ran.err
    result = pd.read_parquet(output)
    expected = kd.project(frame[["a", "b", "c"]].to_numpy(), kd.WeightPolytope(3, lower=0.1))
    np.testing.assert_array_equal(result[["a", "b", "c"]], expected)
    pd.testing.assert_series_equal(result["note"], frame["note"])


def test_the_input_is_not_overwritten(weights, capsys):
    assert run_cli(capsys, "project", weights, "-o", weights).refused("is the input itself", "write to another file")
    assert weights.read_text() == GOOD


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 4), pytest.param(signal.SIGTERM, 4, marks=pytest.mark.slow)]
)
def test_stopped_midway_it_leaves_nothing_half_written(sent, code, tmp_path):
    """Rows come from a pipe that never ends, so the signal finds it at work."""
    pipe, output = tmp_path / "pipe", tmp_path / "out.csv"
    os.mkfifo(pipe)
    output.write_text("what was there")
    command = [sys.executable, "-m", "safekd", "project", pipe, "-o", output]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process, pipe.open("w") as stream:
        stream.write(GOOD)
        stream.flush()
        while not any(
            path.stat().st_size > len("a,b,c\n") for path in tmp_path.glob(".out.csv.*")
        ):  # until rows are there
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(sent)
        printed = process.communicate(timeout=120)[1]
    assert process.returncode == code
    assert "stopped; nothing half written was left behind" in " ".join(printed.split())
    assert "Traceback" not in printed
    assert output.read_text() == "what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "pipe"]


def test_a_missing_file_is_told(tmp_path, capsys):
    assert run_cli(capsys, "project", tmp_path / "none.csv", "-o", tmp_path / "o.csv").refused("no file", "none.csv")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_told(weights, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run_cli(capsys, "project", weights, "-o", blocked / "o.csv").refused("Cannot write")


def test_no_name_for_the_output_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("w.csv").write_text("a,b\n0.5,0.5\n")
    assert run_cli(capsys, "project", "w.csv", "-o", ".").refused("Cannot write .: it is a folder")
    assert run_cli(capsys, "audit", "w.csv", "--json", ".").refused("Cannot write .: it is a folder")


def test_two_bounds_for_one_teacher_are_refused(tmp_path, capsys):
    path = tmp_path / "w.csv"
    path.write_text("a,b\n0.5,0.5\n")
    ran = run_cli(capsys, "project", path, "-o", tmp_path / "o.csv", "--lower", "a=0.1,a=0.2")
    assert ran.refused("--lower: 'a' has two bounds")


def test_a_rule_set_may_begin_with_a_byte_order_mark(tmp_path, capsys):
    path, rules = tmp_path / "w.csv", tmp_path / "rules.toml"
    path.write_text("a,b\n0.9,0.1\n")
    rules.write_bytes(b"\xef\xbb\xbfupper = 0.6\n")
    assert run_cli(capsys, "audit", path, "--rules", rules).code == 1
