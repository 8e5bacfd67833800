"""``safekd project``: what a user types, what comes out, and what bad input is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import safekd as kd

from .cli_runner import run_cli

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
    found = pd.read_csv(output).to_numpy()
    np.testing.assert_array_equal(found, expected)
    assert polytope.check(found).holds()
    assert "3 rows projected" in ran.out
    assert "out.csv" in ran.out


def test_a_chain_is_two_orderings(weights, tmp_path, capsys):
    output = tmp_path / "out.csv"
    assert run_cli(capsys, "project", weights, "-o", output, "--order", "a>=b>=c").code == 0
    found = pd.read_csv(output).to_numpy()
    assert (found[:, 0] >= found[:, 1]).all()
    assert (found[:, 1] >= found[:, 2]).all()


def test_other_columns_are_kept_to_the_letter(tmp_path, capsys):
    path, output = tmp_path / "w.csv", tmp_path / "out.csv"
    path.write_text("id,a,note,b\n007,0.9,=SUM(A1),0.3\n 1e3,0.1,,0.2\n")
    ran = run_cli(capsys, "project", path, "-o", output, "--teacher", "a", "--teacher", "b", "--upper", 0.6)
    assert ran.code == 0, ran.err
    kept = pd.read_csv(output, dtype=str, keep_default_na=False)
    assert list(kept.columns) == ["id", "a", "note", "b"]
    assert kept["id"].tolist() == ["007", " 1e3"]
    assert kept["note"].tolist() == ["'=SUM(A1)", ""]  # a spreadsheet must not run it


def test_kl_keeps_ratios(weights, tmp_path, capsys):
    output = tmp_path / "out.csv"
    assert run_cli(capsys, "project", weights, "-o", output, "--metric", "kl", "--upper", 0.99).code == 0
    found = pd.read_csv(output).to_numpy()
    np.testing.assert_allclose(found, pd.read_csv(weights).to_numpy(), atol=1e-12)  # rows sum to one: already there


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


def test_a_missing_file_is_told(tmp_path, capsys):
    assert run_cli(capsys, "project", tmp_path / "none.csv", "-o", tmp_path / "o.csv").refused("no file", "none.csv")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_told(weights, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run_cli(capsys, "project", weights, "-o", blocked / "o.csv").refused("Cannot write")
