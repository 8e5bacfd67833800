"""``safekd audit``: what it prints and writes, and its three exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.support.cli_runner import run_cli

GOOD = "id,a,b,c\n1,0.5,0.25,0.25\n2,0.375,0.375,0.25\n"
TEACHERS = ["--teacher", "a,b,c"]
RULES = [*TEACHERS, "--lower", "0.25", "--upper", "0.5", "--order", "a>=b>=c"]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.csv"
    path.write_text(GOOD)
    return path


def test_weights_that_conform_pass(weights, capsys):
    ran = run_cli(capsys, "audit", weights, *RULES)
    assert ran.code == 0, ran.err
    assert "nothing violated" in ran.out


BROKEN = {
    "normalization": ("3,0.5,0.25,0.25000000001", "III.1"),
    "positivity": ("3,1.25,0.0,-0.25", "III.2"),
    "bounds": ("3,0.5000000000000001,0.25,0.25", "III.3"),
    "ordering": ("3,0.25,0.5,0.25", "III.5"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_one_row_that_does_not_is_found_named_and_exits_1(kind, weights, tmp_path, capsys):
    row, axiom = BROKEN[kind]
    weights.write_text(f"{GOOD}\n{row}\n")
    targets = ["--json", tmp_path / "report.json", "--csv", tmp_path / "report.csv"]
    ran = run_cli(capsys, "audit", weights, *RULES, *targets)
    assert ran.code == 1, ran.err
    assert "violated" in ran.out
    assert "line 5" in " ".join(ran.out.split())
    findings = {finding["axiom"]: finding for finding in json.loads((tmp_path / "report.json").read_text())["findings"]}
    assert findings[axiom]["status"] == "violated"
    assert findings[axiom]["where"] == [3]
    assert (findings[axiom]["rows"], findings[axiom]["judged"]) == (1, 3)
    assert "Row 3 is " in findings[axiom]["evidence"]
    frame = pd.read_csv(tmp_path / "report.csv").set_index("axiom")
    assert frame.loc[axiom, "status"] == "violated"
    assert len(frame) == len(findings) >= 15
    assert "report.json" in ran.out


def test_what_was_projected_passes_by_the_same_rules(tmp_path, capsys):
    raw, done, rules = tmp_path / "raw.csv", tmp_path / "done.csv", tmp_path / "rules.toml"
    raw.write_text("id,a,b,sa,sb,hot\n" + "".join(f"{n},{n / 10},{1 - n / 10},{n % 3},1,{n % 2}\n" for n in range(11)))
    rules.write_text('teachers = ["a", "b"]\nlower = 0.1\nsafety_columns = ["sa", "sb"]\ncritical_column = "hot"\n')
    assert run_cli(capsys, "audit", raw, "--rules", rules).code == 1
    assert run_cli(capsys, "project", raw, "-o", done, "--rules", rules).code == 0
    ran = run_cli(capsys, "audit", done, "--rules", rules)
    assert ran.code == 0, ran.out


def test_a_row_that_is_not_critical_may_be_out_of_order(tmp_path, capsys):
    path = tmp_path / "w.csv"
    path.write_text("a,b,hot\n0.25,0.75,false\n0.5,0.5,true\n")
    options = ["--teacher", "a,b", "--order", "a>=b"]
    assert run_cli(capsys, "audit", path, *options, "--critical-column", "hot").code == 0
    assert run_cli(capsys, "audit", path, *options).code == 1


def test_the_scale_chooses_the_axioms(weights, tmp_path, capsys):
    run_cli(capsys, "audit", weights, *RULES, "--scale", "context", "--json", tmp_path / "r.json")
    findings = {finding["axiom"]: finding for finding in json.loads((tmp_path / "r.json").read_text())["findings"]}
    assert findings["III.22"]["status"] == "holds"
    assert findings["III.5"]["status"] == "not_applicable"


def test_parquet_is_judged_too(tmp_path, capsys):
    path = tmp_path / "w.parquet"
    pd.DataFrame({"a": [0.5, 0.25], "b": [0.5, 0.75]}).to_parquet(path)
    assert run_cli(capsys, "audit", path, "--lower", 0.1).code == 0
    ran = run_cli(capsys, "audit", path, "--lower", 0.1, "--upper", 0.7)
    assert ran.code == 1
    assert "row 2" in " ".join(ran.out.split())


@pytest.mark.parametrize(
    ("content", "options", "fragments"),
    [
        (GOOD, ["--teacher", "z"], ["--teacher", "no teacher column 'z'"]),
        (GOOD, [*TEACHERS, "--scale", "word"], ["'word'", "token"]),
        (GOOD, [*TEACHERS, "--upper", "0.3"], ["Raise `upper`"]),
        (GOOD + "3,x,0.5,0.5\n", TEACHERS, ["line 4", "column 'a'", "found 'x'"]),
        (GOOD + "3,nan,0.5,0.5\n", TEACHERS, ["line 4", "column 'a'", "found 'nan'"]),
        (GOOD + "3,0.5\n", TEACHERS, ["line 4", "found 2 cells, the header has 4"]),
        ("a,b\n", [], ["no rows"]),
    ],
)
def test_bad_input_exits_2_and_writes_nothing(content, options, fragments, tmp_path, capsys):
    path = tmp_path / "w.csv"
    path.write_text(content)
    ran = run_cli(capsys, "audit", path, *options, "--json", tmp_path / "r.json")
    assert ran.refused(*fragments), ran.err
    assert [one.name for one in tmp_path.iterdir()] == ["w.csv"]


@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_a_report_does_not_overwrite_the_input(option, weights, capsys):
    assert run_cli(capsys, "audit", weights, *RULES, option, weights).refused(option, "is the input itself")
    assert weights.read_text() == GOOD


def test_two_reports_need_two_files(weights, tmp_path, capsys):
    ran = run_cli(capsys, "audit", weights, *RULES, "--json", tmp_path / "r", "--csv", tmp_path / "r")
    assert ran.refused("--json and --csv both name")
